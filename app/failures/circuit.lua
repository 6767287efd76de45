-- One circuit breaker: the script applies a process's message, and returns the circuit's state.
--
-- EVALSHA sha 1 state  config message channel circuit [now]
--   KEYS[1] state   string, MessagePack: the fields of tests.support.circuit_model.Circuit;
--                   slots = {{index, successes, failures}...}, seen = {process -> {number, time}}
--   ARGV[1] JSON: app.domain.circuit.CircuitBreakerConfig
--   ARGV[2] JSON: app.failures.circuit.Message, or "null" if the state is only read
--   ARGV[3] pub/sub channel of the news
--   ARGV[4] name of the circuit, for the news
--   ARGV[5] the time that tests use instead of the time of Redis's clock
-- Returns JSON: app.failures.circuit.View, with `at` as a string.
--
-- tests.support.circuit_model is a model of this script in Python: a test compares the two.

local SLOTS = 10
local SEEN_S = 60
local PROBE_LEASE_S = 15
local MAX_DOUBLINGS = 20
local IDLE_S = 600

-- Redis 6.2 can be configured to replicate scripts instead of their commands. This script needs
-- the replication of commands, because it reads the clock.
redis.replicate_commands()

local config, message = cjson.decode(ARGV[1]), cjson.decode(ARGV[2])
local looks = message == cjson.null
local now = tonumber(ARGV[5])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) + tonumber(time[2]) / 1000000
end

local packed = redis.call('GET', KEYS[1])
local c = packed and cmsgpack.unpack(packed)
  or {slots = {}, streak = 0, openings = 0, holder = '', holder_until = 0, told = 0, seen = {}}
local change = ''
-- This is a string, because cjson keeps only 14 digits of a number.
local at = string.format('%.0f', math.floor(now * 1000000 + 0.5))

local function slot_of(time)
  return math.floor(time * SLOTS / config.window_s)
end

local function forget()
  local oldest, slots = slot_of(now) - SLOTS, {}
  for _, slot in ipairs(c.slots) do
    if slot[1] > oldest then slots[#slots + 1] = slot end
  end
  c.slots = slots
  for process, seen in pairs(c.seen) do
    if seen[2] + SEEN_S <= now then c.seen[process] = nil end
  end
  if c.holder ~= '' and c.holder_until <= now then c.holder = '' end
end

local function tell(state, wait_s)
  redis.call('PUBLISH', ARGV[3], cjson.encode({
    circuit = ARGV[4], state = state, wait_s = wait_s, at = at,
  }))
end

local function open()
  local open_s = math.min(config.open_s * 2 ^ math.min(c.streak, MAX_DOUBLINGS), config.max_open_s)
  c.until_ = now + open_s
  c.streak = c.streak + 1
  c.openings = c.openings + 1
  c.holder = ''
  c.slots = {}
  change = 'opened'
  tell('open', open_s)
end

local function judge()
  if not c.until_ or message.token == '' or message.token ~= c.holder then return end
  if message.verdict == 'ok' then
    c.until_, c.streak, c.holder = nil, 0, ''
    change = 'closed'
    tell('closed', 0)
  elseif message.verdict == 'bad' then
    open()
  elseif message.verdict == 'release' then
    c.holder = ''
    tell('open', 0)
  else
    c.holder_until = now + PROBE_LEASE_S
  end
end

local function is_new()
  local last = c.seen[message.process]
  if message.number <= (last and last[1] or 0) then return false end
  c.seen[message.process] = {message.number, now}
  return true
end

local function add(index, place, count)
  for _, slot in ipairs(c.slots) do
    if slot[1] == index then
      slot[place] = slot[place] + count
      return
    end
  end
  local slot = {index, 0, 0}
  slot[place] = count
  c.slots[#c.slots + 1] = slot
end

local function sums()
  local ok, bad = 0, 0
  for _, slot in ipairs(c.slots) do ok, bad = ok + slot[2], bad + slot[3] end
  return ok, bad
end

local function count()
  for _, item in ipairs(message.ok) do
    if item[1] < config.window_s then add(slot_of(now - item[1]), 2, item[2]) end
  end
  if message.bad > 0 then add(slot_of(now), 3, message.bad) end
  forget()
  if message.bad == 0 then return end
  local ok, bad = sums()
  if bad >= config.min_failures and bad >= config.failure_share * (ok + bad) then
    open()
  elseif now - c.told >= config.window_s / 2 then
    c.told = now
    tell('closed', 0)
  end
end

local function grant()
  if message.token == '' or not c.until_ or now < c.until_ then return false end
  if c.holder ~= '' and c.holder ~= message.token then return false end
  c.holder, c.holder_until = message.token, now + PROBE_LEASE_S
  return true
end

forget()
local granted = false
if not looks then
  local judged = message.verdict and message.verdict ~= cjson.null
  if judged then judge() end
  if is_new() and not c.until_ then count() end
  granted = not judged and grant()
  local keep_s = math.max(IDLE_S, 2 * config.window_s, 2 * config.max_open_s)
  redis.call('SET', KEYS[1], cmsgpack.pack(c), 'PX', math.ceil(keep_s * 1000))
end

local state, wait_s = 'closed', 0
if c.until_ then
  state = c.holder ~= '' and 'half_open' or 'open'
  wait_s = math.max((c.holder ~= '' and c.holder_until or c.until_) - now, 0)
end
local ok, bad = sums()
return cjson.encode({
  state = state, wait_s = wait_s, granted = granted, change = change, opening = c.openings,
  ok = ok, bad = bad, at = at,
})
