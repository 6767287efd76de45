-- add(stream; length, make, id, document, id, document, ...) -> 1, or 0 if there is no stream
--
-- Adds events to the stream, each as an entry with the event's id, so that an event that is there
-- already is not added again: Redis refuses ids that do not grow.
--
-- KEYS[1]  stream    of entries <event id>-0 with one field, event: the event as JSON
-- ARGV[1]  length    entries to keep, about
-- ARGV[2]  make      1: make the stream if there is none; 0: then add nothing
-- ARGV[3], ARGV[4], ...  id and JSON of each event, ids ascending

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
