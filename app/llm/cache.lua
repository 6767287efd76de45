-- One answer that equal requests share, and the lease of the caller that asks the provider for this
-- answer.
--
-- EVALSHA sha 2 answer asked  command token lease_ms [value ttl_ms]
--   KEYS[1] answer  string: app.llm.cache's JSON of an answer
--   KEYS[2] asked   string: token of the caller that asks the provider while the others wait; the
--                   key expires with the caller's lease
--   ARGV[1] command:
--           look    returns {answer or false, token of the caller that asks}; if there is no answer
--                   and no lease, this caller gets the lease and asks the provider
--           keep    returns 1 if the lease of ARGV[2] was renewed, 0 if the lease is lost
--           finish  returns 1; stores the value, if it is not empty, and ends the lease of ARGV[2]
--   ARGV[2] token of the caller
--   ARGV[3] length of a lease in milliseconds
--   ARGV[4] value, and ARGV[5] milliseconds until the value expires: for finish only

local command, token = ARGV[1], ARGV[2]

if command == 'look' then
  local answer = redis.call('GET', KEYS[1])
  if answer then
    return {answer, false}
  end
  local asked = redis.call('GET', KEYS[2])
  if not asked then
    redis.call('SET', KEYS[2], token, 'PX', ARGV[3])
    asked = token
  end
  return {false, asked}
end

local mine = redis.call('GET', KEYS[2]) == token

if command == 'keep' then
  return mine and redis.call('PEXPIRE', KEYS[2], ARGV[3]) or 0
end

if ARGV[4] ~= '' then
  redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[5])
end
if mine then
  redis.call('DEL', KEYS[2])
end
return 1
