-- add(stream; length, make, id, document, id, document, ...) -> 1, or 0 if there is no stream
--
-- The script adds each event to the stream as an entry with the event's id. An event that is in the
-- stream already is skipped, because Redis refuses ids that do not grow.
--
-- KEYS[1]  stream    the stream; the id of an entry is <event id>-0, and its field `event` is JSON
-- ARGV[1]  length    the approximate number of entries that the stream keeps
-- ARGV[2]  make      1 if a missing stream is made; 0 if nothing is added to a missing stream
-- ARGV[3], ARGV[4], ...  the id and the JSON of each event; the ids ascend

if ARGV[2] == '0' and redis.call('EXISTS', KEYS[1]) == 0 then
    return 0
end
local last = 0
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
if newest then
    last = tonumber(string.match(newest[1], '^%d+'))
end
for place = 3, #ARGV, 2 do
    if tonumber(ARGV[place]) > last then
        redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], ARGV[place] .. '-0',
            'event', ARGV[place + 1])
    end
end
return 1
