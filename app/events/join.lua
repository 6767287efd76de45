-- join(stream, begins; group, after, known) -> 1, or 0 if there is no stream
--
-- The script makes a group, unless it exists already. Only the relay makes the stream: if a member
-- made an empty stream, the relay could not see that the events are gone.
--
-- After Redis has lost its data, a new member may make the group before an old member can. If the
-- group then begins after events that the old member knows to be missing, the group goes back.
--
-- KEYS[1]  stream    the stream
-- KEYS[2]  begins    a hash: the name of each group -> the id after which the group has begun
-- ARGV[1]  group     the name of the group
-- ARGV[2]  after     the id of the event after which the group begins
-- ARGV[3]  known     1 if the member was in the group before, so that it knows where the group was

if redis.call('EXISTS', KEYS[1]) == 0 then
    return 0
end
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], ARGV[2] .. '-0')
if made.err then
    if not string.find(made.err, 'BUSYGROUP', 1, true) then
        return made
    end
    local begin = redis.call('HGET', KEYS[2], ARGV[1])
    if ARGV[3] == '0' or not begin or tonumber(begin) <= tonumber(ARGV[2]) then
        return 1
    end
    redis.call('XGROUP', 'SETID', KEYS[1], ARGV[1], ARGV[2] .. '-0')
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
return 1
