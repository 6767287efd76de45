-- add(stream; length, after, id, document, id, document, ...) -> 1, or 0 if events are missing
--
-- The script adds each event to the stream as an entry with the event's id. An event that is in the
-- stream already is skipped, because Redis refuses ids that do not grow.
--
-- KEYS[1]  stream    the stream; the id of an entry is <event id>-0, and its field `event` is JSON
-- ARGV[1]  length    the approximate number of entries that the stream keeps
-- ARGV[2]  after     the id that the stream must have reached, or 0 to accept any stream; a stream
--                    that has not reached this id was lost, so nothing is added
-- ARGV[3], ARGV[4], ...  the id and the JSON of each event; the ids ascend

local last = 0
if redis.call('EXISTS', KEYS[1]) == 1 then
    -- The reply has names and values in turn. Unlike the newest entry, this id never falls.
    local facts = redis.call('XINFO', 'STREAM', KEYS[1])
    for place = 1, #facts, 2 do
        if facts[place] == 'last-generated-id' then
            last = tonumber(string.match(facts[place + 1], '^%d+'))
        end
    end
end
if last < tonumber(ARGV[2]) then
    return 0
end
for place = 3, #ARGV, 2 do
    if tonumber(ARGV[place]) > last then
        redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], ARGV[place] .. '-0',
            'event', ARGV[place + 1])
    end
end
return 1
