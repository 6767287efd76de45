-- One exchange of a process about one bucket. The script applies the message of the process, and
-- grants the requests that may start soon.
--
-- EVALSHA sha 5 state leases shares heads answer  spec ask channel [now]
--   KEYS[1] state   string, MessagePack: the bucket's numbers, see bucket.lua
--   KEYS[2] leases  sorted set: "process:id" of each request in flight -> expiry of its lease; used
--                   only if the bucket limits the concurrency
--   KEYS[3] shares  sorted set: run -> virtual time, for runs that were recently served
--   KEYS[4] heads   hash: process -> MessagePack {due, waiting, {run, priority, arrival, amounts}...}
--   KEYS[5] answer  string: "number reply" of this process's last exchange
--   ARGV[1] JSON: app.rate_limits.tiers.BucketSpec
--   ARGV[2] JSON: app.rate_limits.base.Exchange; its named tuples are arrays, in the order of their
--           fields: settlements {id, granted_at, amounts}, delays {granted_at, sent_at, amounts,
--           overdue, settled}, observations {position, limit, remaining, spent, sent_at}, refusals
--           {granted_at, pause_s, throttled, amounts}, runs {run_id, weight, waiting, requests},
--           requests {id, priority, arrival_ms, cost_s, amounts}
--   ARGV[3] prefix of the pub/sub channels: <prefix>:pauses, <prefix>:process:<process>
--   ARGV[4] the time in place of Redis's own time, for tests only
-- Returns JSON: app.rate_limits.base.Reply, with grants {id, delay_s}
--
-- The order of the grants is start-time fair queueing over runs (Goyal, Vin, Cheng 1996), then
-- priority, then arrival. For each other process, the script knows only the first request of each
-- run, so the order across processes applies only to these requests. A process that is first may
-- take a little more in the same exchange.

local STALE_HEAD_S = 5
local GONE_AFTER_S = 600
local FLUSH_MEMORY_S = 60
local NUDGE_S = 0.005
local OVERDUE_S = 5
local LONGEST_POLL_S = 10
local LEAD = 0.8

-- This script reads the clock, so Redis 6.2 must replicate the script's effects, not the script.
redis.replicate_commands()

local spec, ask, channel = cjson.decode(ARGV[1]), cjson.decode(ARGV[2]), ARGV[3]
local tiers = spec.tiers
local now = tonumber(ARGV[4]) or redis_time()

local function load()
  local packed = redis.call('GET', KEYS[1])
  local s = packed and cmsgpack.unpack(packed) or create(spec, ask, now)
  if packed and ask.rebuilds then note_unknown(s, tiers) end
  advance(s, tiers, now)
  if ask.epoch ~= '' and ask.epoch ~= s.epoch and not s.emptied and now - s.born < FLUSH_MEMORY_S then
    empty_short_tiers(s, tiers, now)
  end
  return s
end

local function tell(target, message)
  message.bucket = spec.bucket
  redis.call('PUBLISH', channel .. target, cjson.encode(message))
end

-- Return the amounts that are granted and not sent in all processes with late calls.
local function overdue_of(s)
  local sums = {}
  for i = 1, #tiers do sums[i] = 0 end
  for process, late in pairs(s.overdue) do
    if late[1] < now or #late[2] ~= #tiers then
      s.overdue[process] = nil
    else
      for i = 1, #tiers do sums[i] = sums[i] + late[2][i] end
    end
  end
  return sums
end

local function add_to_overdue(s, amounts)
  local late = s.overdue[ask.process]
  for i = 1, late and #tiers or 0 do late[2][i] = late[2][i] + amounts[i] end
end

-- Apply the settlements after the number `done`, up to the number `last`.
local function settle(s, done, last)
  for i = done + 1, math.min(last, #ask.settlements) do
    local item = ask.settlements[i]
    if spec.concurrency > 0 then
      redis.call('ZREM', KEYS[2], ask.process .. ':' .. item[1])
    end
    if #item[3] == #tiers then refund(s, tiers, item[3], item[2]) end
  end
  return math.max(done, last)
end

local function note_late(s, item)
  if #item[3] == #tiers then
    s.overdue[ask.process] = {now, item[4]}
    hold_down(s, tiers, overdue_of(s), item[2], now)
    move_in_windows(s, tiers, item[3], item[1], item[2])
  end
end

local function note_overdue(s)
  s.overdue[ask.process] = next(ask.overdue) and {now + OVERDUE_S, ask.overdue} or nil
  hold_down(s, tiers, overdue_of(s), now, now)
end

-- Apply the reports of the process about its permits and about the provider. Delays and settlements
-- are applied in the order in which they happened. Otherwise a late call, which lowers the level of
-- the time before it was sent, would also take what its settlement gives back afterwards.
local function apply(s)
  if next(ask.used) and s.unknown then rebuild(s, tiers, ask.used, now) end
  local done = 0
  for _, item in ipairs(ask.delays) do
    done = settle(s, done, item[5])
    note_late(s, item)
  end
  settle(s, done, #ask.settlements)
  note_overdue(s)
  if ask.epoch == s.epoch then
    for _, seen in ipairs(ask.observations) do
      observe(s, tiers[seen[1] + 1], seen[2], seen[3], seen[4], seen[5], now)
    end
  end
  for _, item in ipairs(ask.refusals) do
    local news = pause(s, tiers, item[1], item[2], item[3] == 1, item[4], now)
    if news then tell(':pauses', {paused_s = news}) end
  end
  put_in_force(s, tiers, now)
  if ask.answered then s.careful = nil end
end

-- Return the number of requests that may start under the limit of concurrency.
local function free_places()
  if spec.concurrency == 0 then return math.huge end
  for _, id in ipairs(ask.renewals) do
    redis.call('ZADD', KEYS[2], now + spec.lease_s, ask.process .. ':' .. id)
  end
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
  return spec.concurrency - redis.call('ZCARD', KEYS[2])
end

-- Return the first requests of the other processes that are alive.
local function other_heads()
  local found, packed = {}, redis.call('HGETALL', KEYS[4])
  for i = 1, #packed, 2 do
    local process, record = packed[i], cmsgpack.unpack(packed[i + 1])
    if record[1] + STALE_HEAD_S < now then
      redis.call('HDEL', KEYS[4], process)
    elseif process ~= ask.process and record[1] + spec.late_s >= now then
      for j = 3, #record do
        if #record[j][4] == #tiers then
          found[#found + 1] = {
            process = process, record = record,
            run = record[j][1], priority = record[j][2], arrival = record[j][3], amounts = record[j][4],
          }
        end
      end
    end
  end
  return found
end

-- Return the virtual times of all runs with waiting requests: run -> seconds.
local function shares_of(s, heads)
  local names, shares = {}, {}
  for _, run in ipairs(ask.runs) do names[#names + 1] = run[1] end
  for _, head in ipairs(heads) do names[#names + 1] = head.run end
  if #names > 0 then
    local scores = redis.call('ZMSCORE', KEYS[3], unpack(names))
    for i, name in ipairs(names) do
      shares[name] = math.max(tonumber(scores[i] or 0) or 0, s.v)
    end
  end
  return shares
end

local function goes_before(a, b, shares)
  local va, vb = shares[a.run], shares[b.run]
  if math.abs(va - vb) > EPSILON then return va < vb end
  if a.priority ~= b.priority then return a.priority > b.priority end
  if a.arrival ~= b.arrival then return a.arrival < b.arrival end
  return a.process < b.process
end

local function first_of(heads, shares)
  local first
  for _, head in ipairs(heads) do
    if not first or goes_before(head, first, shares) then first = head end
  end
  return first
end

local function own_head(run, position)
  local request = run[4][position]
  return {
    process = ask.process, run = run[1], weight = run[2], id = request[1], priority = request[2],
    arrival = request[3], cost = request[4], amounts = request[5],
  }
end

-- Return the next requests of this process, one per run; `taken` counts the grants of each run.
local function own_heads(taken)
  local heads = {}
  for i, run in ipairs(ask.runs) do
    local position = (taken[i] or 0) + 1
    if run[4][position] then
      local head = own_head(run, position)
      head.index = i
      heads[#heads + 1] = head
    end
  end
  return heads
end

local function sum_of(heads)
  local sums = {}
  for i = 1, #tiers do sums[i] = 0 end
  for _, head in ipairs(heads) do
    for i = 1, #tiers do sums[i] = sums[i] + head.amounts[i] end
  end
  return sums
end

-- Return the seconds until this request may start, or nil if other requests go first and leave no
-- room for it. `step.mine` is true if this process was first in this exchange, and `step.used` is
-- the amount that it has taken in this exchange.
local function delay_of(s, head, others, everything, shares, free, step)
  local gap = math.max(0, s.next - now)
  if free > #others and fit(s, tiers, head.amounts, everything, now) == 0 then return gap end
  local ahead = {}
  for _, other in ipairs(others) do
    if goes_before(other, head, shares) then ahead[#ahead + 1] = other end
  end
  if #ahead == 0 or (step.mine and step.used < spec.quantum_s) then
    step.mine = true
    return math.max(gap, fit(s, tiers, head.amounts, nil, now))
  end
  if free > #ahead and fit(s, tiers, head.amounts, sum_of(ahead), now) == 0 then return gap end
  return nil
end

local function grant(s, others, shares, free)
  local grants, taken, step = {}, {}, {mine = false, used = 0}
  local everything = sum_of(others)
  while free >= 1 do
    local head = first_of(own_heads(taken), shares)
    local delay = head and delay_of(s, head, others, everything, shares, free, step)
    if not delay or delay > spec.horizon_s then break end
    charge(s, tiers, head.amounts, now + delay)
    add_to_overdue(s, head.amounts)
    grants[#grants + 1] = {head.id, delay}
    taken[head.index] = (taken[head.index] or 0) + 1
    step.used = step.used + head.cost
    s.v = shares[head.run]
    shares[head.run] = s.v + head.cost / head.weight
    redis.call('ZADD', KEYS[3], string.format('%.17g', shares[head.run]), head.run)
    if spec.concurrency > 0 then
      redis.call('ZADD', KEYS[2], now + delay + spec.lease_s, ask.process .. ':' .. head.id)
      free = free - 1
    end
  end
  return grants, taken, free
end

-- Find the request that is now the first, and the time of its start. If another process has this
-- request and would ask after that time, send a message to that process. Return the seconds until
-- this process should ask again.
local function ask_again_in(s, own, others, shares, free, paused_s)
  local heads = {}
  for _, head in ipairs(own) do heads[#heads + 1] = head end
  for _, head in ipairs(others) do heads[#heads + 1] = head end
  local first = first_of(heads, shares)
  if not first then return nil end
  local start, due = math.huge, spec.safety_poll_s
  if free >= 1 and not s.unknown then
    start = math.max(paused_s, s.next - now, fit(s, tiers, first.amounts, nil, now))
    due = math.max(0, start - LEAD * spec.horizon_s)
  end
  if first.process ~= ask.process then
    if first.record[1] - now > due + NUDGE_S then
      first.record[1] = now + due
      redis.call('HSET', KEYS[4], first.process, cmsgpack.pack(first.record))
      tell(':process:' .. first.process, {ask_in_s = due})
    end
    due = math.max(spec.safety_poll_s, start < math.huge and start / 2 or 0)
  end
  return #own > 0 and math.min(due, LONGEST_POLL_S) or nil
end

-- Return the reason why the requests of this process still wait.
local function blocked_by(s, own, others, free, paused_s)
  if #own == 0 then return '' end
  if paused_s > 0 then return 'pause' end
  if free < 1 then return 'concurrency' end
  local _, tier = last_to_fit(s, tiers, own[1].amounts, sum_of(others), now)
  return tier or (tiers[1] and tiers[1].name) or ''
end

-- Store the first requests of this process for the exchanges of the other processes.
local function note_heads(own, taken, ask_in)
  if #own == 0 then
    redis.call('HDEL', KEYS[4], ask.process)
    return
  end
  local waiting, record = 0, {now + ask_in, 0}
  for i, run in ipairs(ask.runs) do waiting = waiting + run[3] - (taken[i] or 0) end
  record[2] = waiting
  for _, head in ipairs(own) do
    record[#record + 1] = {head.run, head.priority, head.arrival, head.amounts}
  end
  redis.call('HSET', KEYS[4], ask.process, cmsgpack.pack(record))
end

local function save(s)
  s.spec = ARGV[1]
  redis.call('SET', KEYS[1], cmsgpack.pack(s), 'PX', math.ceil(spec.ttl_s * 1000))
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', string.format('%.17g', s.v))
  redis.call('PEXPIRE', KEYS[2], math.ceil(spec.lease_s * 2000))
  redis.call('PEXPIRE', KEYS[3], math.ceil(spec.ttl_s * 1000))
  redis.call('PEXPIRE', KEYS[4], GONE_AFTER_S * 1000)
end

local function exchange()
  local s = load()
  apply(s)
  local free = free_places()
  local others = other_heads()
  local shares = shares_of(s, others)
  local paused_s = math.max(0, (s.paused_until or 0) - now)
  local grants, taken = {}, {}
  if paused_s == 0 and not s.unknown then
    grants, taken, free = grant(s, others, shares, free)
  end
  local own = own_heads(taken)
  local ask_in = ask_again_in(s, own, others, shares, free, paused_s)
  note_heads(own, taken, ask_in)
  save(s)
  local spent, virtual = {}, {}
  for i, tier in ipairs(tiers) do spent[i] = s.spent[tier.name] or 0 end
  for i, run in ipairs(ask.runs) do virtual[i] = shares[run[1]] end
  virtual[#virtual + 1] = s.v
  local long_s, long_tier = long_wait(s, tiers)
  return {
    time_s = {math.floor(now), now % 1}, epoch = s.epoch, grants = grants, ask_in_s = ask_in,
    long_s = long_s, long_tier = long_tier, blocked_by = blocked_by(s, own, others, free, paused_s),
    paused_s = paused_s, careful = s.careful ~= nil, rebuild = s.unknown, spent = spent, shares = virtual,
  }
end

local answered = redis.call('GET', KEYS[5])
if answered then
  local number, reply = string.match(answered, '^(%d+) (.*)$')
  if tonumber(number) == ask.number then return reply end
end
local reply = cjson.encode(exchange())
if ask.leaving then
  redis.call('HDEL', KEYS[4], ask.process)
  redis.call('DEL', KEYS[5])
else
  redis.call('SET', KEYS[5], ask.number .. ' ' .. reply, 'EX', GONE_AFTER_S)
end
return reply
