-- The numbers of one bucket: its refill, the time until an amount fits, charges and refunds. This
-- file is sent to Redis in front of exchange.lua and of snapshot.lua, as a part of both scripts.
-- memory_bucket.py is the same code in Python, function by function. Times are seconds of Redis's
-- clock.
--
-- The state `s` is one MessagePack map:
--   epoch         unique string of the bucket, made at creation: a new string shows a flush
--   born, at      time of creation, and time up to which the bucket is refilled
--   emptied       whether a flush has been taken into account
--   level         tier -> amount that may be used now; negative if more was granted in advance, or
--                 if calls used more than estimated
--   window        tier -> {slot, count, slot, count, ...}, oldest slot first
--   counted       tier -> sum of the counts in its window
--   overdue       process -> {until, amounts} for a process with a late call: the amounts of all
--                 calls of the process that are granted and not sent
--   spent         tier -> total that was ever charged, less all refunds
--   unknown       tiers whose earlier use no process has reported yet, or nothing
--   next          time before which no request starts, so that a burst is spread
--   learned       tier -> {limit per period from the provider's headers, time of the headers}
--   drift         tier -> running mean of the provider's level minus the level of this bucket
--   paused_at, paused_until, pause_s   beginning, end and length of the last pause
--   refused       tier -> amount of the refused call; the highest level right after the pause
--   ramp_from, ramp_s, strikes         after the pause: the first share of the rate, the seconds
--                 until the full rate, and the number of 429s in succession
--   jitter_s      seconds by which arrivals at the provider vary; grows with 429s, then shrinks
--   spec          the last spec of the bucket, as JSON
--   careful       until the first answer: {since = first start, at, level = {tier -> amount}}
--   v             the bucket's virtual time (start-time fair queueing), in seconds of the bucket

local EPSILON = 1e-6
local LEARNED_S, LOWEST_OF_S = 3600, 60
local RAMP_FROM, RAMP_LEAST, RAMP_S, RAMP_MAX_S = 0.5, 0.05, 10, 600
local STRIKE_MEMORY_S = 600
local NEARLY, JITTER_STEP_S, JITTER_MAX_S, JITTER_HALVED_S = 0.5, 0.002, 0.05, 30
local MEAN_SHARE = 0.1

local function redis_time()
  local time = redis.call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1e6
end

-- Return the share of the rate that applies at this time after a 429.
local function ramp(s, time)
  if not s.ramp_s then return 1 end
  local since = time - s.paused_until
  if since <= 0 then return s.ramp_from end
  return math.min(1, s.ramp_from + (1 - s.ramp_from) * since / s.ramp_s)
end

local function scale(s, tier)
  local learned = s.learned[tier.name]
  return learned and math.min(1, learned[1] / tier.limit) or 1
end

local function capacity(s, tier)
  local jitter_s = tier.short and s.jitter_s or 0
  return math.max(1, tier.capacity * scale(s, tier) - tier.rate * jitter_s)
end

-- Set tier.cap and tier.speed to the capacity and the rate that apply now.
local function put_in_force(s, tiers, now)
  local share = ramp(s, now)
  for _, tier in ipairs(tiers) do
    tier.cap = capacity(s, tier)
    if tier.kind == 'window' then tier.cap = math.max(1, tier.cap * share) end
    tier.speed = tier.rate * scale(s, tier) * share
  end
end

local function refill(s, tiers, time)
  local elapsed = math.max(0, time - s.at)
  local share = (ramp(s, s.at) + ramp(s, time)) / 2
  for _, tier in ipairs(tiers) do
    if tier.kind == 'bucket' then
      local cap = capacity(s, tier)
      local level = (s.level[tier.name] or cap) + elapsed * tier.rate * scale(s, tier) * share
      s.level[tier.name] = math.min(cap, level)
    end
  end
  s.jitter_s = s.jitter_s * 0.5 ^ (elapsed / JITTER_HALVED_S)
  s.at = math.max(s.at, time)
end

-- The configured limits may be higher than the provider's limits, and only the provider's first
-- answer shows this. Until then the bucket grants half of each minute tier, at half the rate. This
-- ends at the latest after the time in which an empty tier fills up: the provider's bucket would
-- then be full, so no capacity is lost. This function returns the seconds until that time.
local function careful_left(s, tier, now)
  return s.careful.since and s.careful.since + tier.capacity / tier.rate - now or math.huge
end

local function advance_careful(s, tiers, now)
  local careful = s.careful
  if not careful then return end
  local since = careful.since and math.max(careful.at, careful.since)
  local level, elapsed = {}, since and math.max(0, now - since) or 0
  for _, tier in ipairs(tiers) do
    if tier.short and careful_left(s, tier, now) > 0 then
      local half = math.max(1, tier.cap / 2)
      local had = careful.level[tier.name] or half
      level[tier.name] = math.min(half, had + elapsed * tier.speed / 2)
    end
  end
  careful.level, careful.at = level, now
  if not next(level) then s.careful = nil end
end

-- Return the seconds until the amount fits into the careful half, or until the careful time is
-- over.
local function careful_fit(s, tier, amount, reserve, now)
  local level = s.careful and s.careful.level[tier.name]
  if not level then return 0 end
  local missing = math.min(amount, math.max(1, tier.cap / 2)) + reserve - level
  if missing <= EPSILON then return 0 end
  return math.min(missing / (tier.speed / 2), careful_left(s, tier, now))
end

local function expire_slots(s, tier, now)
  local slots = s.window[tier.name] or {}
  local first, counted = 1, s.counted[tier.name] or 0
  while slots[first] and (slots[first] + 1) * tier.slot_s + tier.window_s <= now do
    counted = counted - slots[first + 1]
    first = first + 2
  end
  if first > 1 then
    local kept = {}
    for i = first, #slots do kept[#kept + 1] = slots[i] end
    slots = kept
  end
  s.window[tier.name] = slots
  s.counted[tier.name] = #slots > 0 and counted or 0
end

-- At the end of a pause, make room for only the refused request, even if the level was higher.
local function resume(s, tiers, now)
  if not s.refused or now < s.paused_until then return end
  refill(s, tiers, s.paused_until)
  for name, amount in pairs(s.refused) do
    if s.level[name] then s.level[name] = math.min(s.level[name], amount) end
  end
  s.refused = nil
end

-- Bring all numbers up to the present time.
local function advance(s, tiers, now)
  if s.at > now + 1 then s.at = now end -- the clock was set back
  if s.paused_until and s.paused_until - now > s.pause_s + 1 then s.paused_until = now end
  resume(s, tiers, now)
  refill(s, tiers, now)
  if s.ramp_s and now >= s.paused_until + s.ramp_s then s.ramp_s, s.ramp_from = nil, nil end
  for name, learned in pairs(s.learned) do
    if now - learned[2] > LEARNED_S then s.learned[name] = nil end
  end
  put_in_force(s, tiers, now)
  for _, tier in ipairs(tiers) do
    if tier.kind == 'window' then expire_slots(s, tier, now) end
  end
  advance_careful(s, tiers, now)
end

-- Return the seconds until `amount` fits into a window; `amount` includes the reserve of others.
local function window_fit(s, tier, amount, now)
  local excess = s.counted[tier.name] + amount - tier.cap
  if excess <= EPSILON then return 0 end
  local slots = s.window[tier.name]
  for i = 1, #slots, 2 do
    excess = excess - slots[i + 1]
    if excess <= EPSILON then
      return math.max(0, (slots[i] + 1) * tier.slot_s + tier.window_s - now)
    end
  end
  return tier.window_s
end

-- Return the seconds until the amounts fit into all tiers, and the tier that has room last (nil if
-- all tiers have room now). `reserve` has the amounts of other requests that go first, or is nil. An
-- amount that is larger than a tier waits until the tier is full.
local function last_to_fit(s, tiers, amounts, reserve, now)
  local longest, name = 0, nil
  for i, tier in ipairs(tiers) do
    local before = reserve and reserve[i] or 0
    local need = math.min(amounts[i], tier.cap) + before
    local delay = careful_fit(s, tier, amounts[i], before, now)
    if tier.kind == 'window' then
      delay = math.max(delay, window_fit(s, tier, need, now))
    elseif need - s.level[tier.name] > EPSILON then
      delay = math.max(delay, (need - s.level[tier.name]) / tier.speed)
    end
    if delay > longest then longest, name = delay, tier.name end
  end
  return longest, name
end

local function fit(s, tiers, amounts, reserve, now)
  local delay = last_to_fit(s, tiers, amounts, reserve, now)
  return delay
end

-- Return the seconds until the limits per hour and day have room for one request, and the tier that
-- has room last.
local function long_wait(s, tiers)
  local longest, name = 0, nil
  for _, tier in ipairs(tiers) do
    local missing = tier.short and 0 or 1 - s.level[tier.name]
    if missing > EPSILON and missing / tier.speed > longest then
      longest, name = missing / tier.speed, tier.name
    end
  end
  return longest, name
end

local function count_in_window(s, tier, amount, start)
  local slots = s.window[tier.name]
  local slot = math.floor(start / tier.slot_s)
  local last = #slots - 1
  if last > 0 and slots[last] >= slot then
    slots[last + 1] = slots[last + 1] + amount
  else
    slots[last + 2], slots[last + 3] = slot, amount
  end
  s.counted[tier.name] = s.counted[tier.name] + amount
end

local function refund_in_window(s, tier, amount, start)
  local slots = s.window[tier.name]
  local slot = math.floor(start / tier.slot_s)
  for i = 1, #slots, 2 do
    if slots[i] >= slot then
      local refund = math.min(slots[i + 1], amount)
      slots[i + 1] = slots[i + 1] - refund
      s.counted[tier.name] = s.counted[tier.name] - refund
      return
    end
  end
end

-- Return the gap after a start. If one request fills the bucket, there is no capacity for a late
-- arrival, so each gap is longer by the jitter of arrivals.
local function gap_after(s, tier, amount)
  if tier.name ~= 'requests' or tier.cap > 1 or tier.kind == 'window' then
    return amount * tier.spacing_s
  end
  return 1 / tier.speed + s.jitter_s
end

local function add_to_careful(s, tier, amount)
  local level = s.careful and s.careful.level[tier.name]
  if level then
    s.careful.level[tier.name] = math.min(math.max(1, tier.cap / 2), level + amount)
  end
end

local function charge(s, tiers, amounts, start)
  local free_from = s.next
  if s.careful then s.careful.since = s.careful.since or start end
  for i, tier in ipairs(tiers) do
    local name, amount = tier.name, amounts[i]
    s.spent[name] = (s.spent[name] or 0) + amount
    add_to_careful(s, tier, -amount)
    free_from = math.max(free_from, start + gap_after(s, tier, amount))
    if tier.kind == 'window' then
      count_in_window(s, tier, amount, start)
    else
      s.level[name] = s.level[name] - amount
    end
  end
  s.next = free_from
end

-- Give back amounts that were charged at `start`, and charge negative amounts.
local function refund(s, tiers, amounts, start)
  for i, tier in ipairs(tiers) do
    local name, amount = tier.name, amounts[i]
    if amount ~= 0 then
      s.spent[name] = (s.spent[name] or 0) - amount
      add_to_careful(s, tier, amount)
      if tier.kind == 'bucket' then
        s.level[name] = math.min(tier.cap, s.level[name] + amount)
      elseif amount > 0 then
        refund_in_window(s, tier, amount, start)
      else
        count_in_window(s, tier, -amount, start)
      end
    end
  end
end

-- A provider's bucket never holds more than its capacity. If `amounts` were granted but not sent at
-- the time `at`, the level at that time was at most the capacity less these amounts. All refill
-- beyond this level was lost, so this bucket's level is lowered.
local function hold_down(s, tiers, amounts, at, now)
  for i, tier in ipairs(tiers) do
    if tier.kind == 'bucket' and tier.short then
      local most = tier.cap - amounts[i] + tier.speed * math.max(0, now - at)
      s.level[tier.name] = math.min(s.level[tier.name], most)
    end
  end
end

-- In windows, count a late call from the time of its sending.
local function move_in_windows(s, tiers, amounts, start, sent)
  for i, tier in ipairs(tiers) do
    if tier.kind == 'window' then
      refund_in_window(s, tier, amounts[i], start)
      count_in_window(s, tier, amounts[i], sent)
    end
  end
end

-- Empty the minute tiers after a flush, because Redis has lost the use of the last minute, but the
-- provider has not lost it.
local function empty_short_tiers(s, tiers, now)
  for _, tier in ipairs(tiers) do
    if tier.kind == 'bucket' and tier.short then
      s.level[tier.name] = math.min(s.level[tier.name] or 0, 0)
    elseif tier.kind == 'window' and (s.counted[tier.name] or 0) < tier.capacity then
      s.window[tier.name] = s.window[tier.name] or {}
      s.counted[tier.name] = s.counted[tier.name] or 0
      count_in_window(s, tier, tier.capacity - s.counted[tier.name], now)
    end
  end
  s.emptied = true
end

-- Note tiers that are new in this bucket, so that a process reports their earlier use.
local function note_unknown(s, tiers)
  for _, tier in ipairs(tiers) do
    local is_new = s.level[tier.name] == nil and s.counted[tier.name] == nil
    if is_new and (not tier.short or tier.kind == 'window') then
      s.unknown = s.unknown or {}
      s.unknown[#s.unknown + 1] = tier.name
    end
  end
end

local function create(spec, ask, now)
  local s = {
    epoch = ask.process .. '-' .. ask.number, born = now, at = now, emptied = false,
    level = {}, window = {}, counted = {}, overdue = {}, spent = {}, learned = {}, drift = {},
    next = 0, v = 0, jitter_s = 0,
  }
  if ask.rebuilds then note_unknown(s, spec.tiers) end
  if ask.epoch ~= '' then empty_short_tiers(s, spec.tiers, now) end
  if spec.cautious then s.careful = {at = now, level = {}} end
  return s
end

-- Count the earlier use that a process has reported: in the tiers per hour and day, and in windows.
local function rebuild(s, tiers, used, now)
  for i, tier in ipairs(tiers) do
    local amount = used[tier.name]
    if amount and tier.kind == 'bucket' then
      s.level[tier.name] = math.max(0, tier.cap - amount)
    elseif amount then
      s.window[tier.name], s.counted[tier.name] = {}, 0
      count_in_window(s, tier, math.min(tier.capacity, amount), now)
    end
  end
  s.unknown = nil
end

-- Learn a limit from headers. Models that share the bucket may have different limits, so the lowest
-- limit of the last minute applies.
local function learn(s, tier, limit, now)
  if limit <= 0 then return end
  local learned = s.learned[tier.name]
  local kept = learned and now - learned[2] < LOWEST_OF_S
  if limit >= tier.limit then
    if not kept then s.learned[tier.name] = nil end
  elseif not kept or limit <= learned[1] then
    s.learned[tier.name] = {limit, now}
  end
end

-- Take a provider's headers into account: the limit, and the amount that was left when the request
-- arrived.
local function observe(s, tier, limit, remaining, spent, start, now)
  local before = scale(s, tier)
  learn(s, tier, limit, now)
  local after = scale(s, tier)
  tier.cap = capacity(s, tier)
  if tier.kind ~= 'bucket' then return end
  local level = s.level[tier.name] - tier.capacity * (before - after)
  if remaining >= 0 then
    local since = (s.spent[tier.name] or 0) - spent
    local theirs = remaining + tier.rate * after * math.max(0, now - start) - since
    local mean = s.drift[tier.name] or 0
    mean = mean + MEAN_SHARE * (math.min(theirs - level, tier.tolerance) - mean)
    if mean < -tier.tolerance then
      level, mean = level + mean, 0
    end
    s.drift[tier.name] = mean
  end
  s.level[tier.name] = level
end

-- Return how wrong the bucket was, from 0 (the call was a moment too early) to 1. The result is the
-- number of such requests that fit into the length of the pause, at the rate of the tier that was
-- nearest to its limit in this bucket.
local function severity(s, tiers, amounts, seconds)
  local worst, nearest_s = 1, math.huge
  for i, tier in ipairs(tiers) do
    if tier.short and amounts[i] > 0 then
      local left = tier.kind == 'window' and tier.cap - s.counted[tier.name] or s.level[tier.name]
      if left / tier.speed < nearest_s then
        nearest_s = left / tier.speed
        worst = math.min(1, math.max(0.01, seconds * tier.speed / amounts[i]))
      end
    end
  end
  return worst
end

-- Start the pause that an answer asks for. Return its length in seconds, or nil if the bucket is
-- already paused for that long. If the refused request started before the last pause began, its 429
-- belongs to the same event and lowers the rate no further.
local function pause(s, tiers, start, seconds, throttled, amounts, now)
  local until_time = now + seconds
  local known = s.paused_until or 0
  if throttled and start > (s.paused_at or 0) then
    local recent = s.paused_at and now - known < STRIKE_MEMORY_S
    s.strikes = recent and s.strikes + 1 or 1
    local worth = severity(s, tiers, amounts, seconds)
    s.ramp_from = math.max(RAMP_LEAST, ramp(s, now) * (1 - worth * (1 - RAMP_FROM)))
    s.ramp_s = math.min(RAMP_MAX_S, RAMP_S * worth * 2 ^ (s.strikes - 1))
    if worth < NEARLY then
      s.jitter_s = math.min(JITTER_MAX_S, s.jitter_s + math.min(seconds, JITTER_STEP_S))
    end
    s.paused_at = now
    s.refused = {}
    for i, tier in ipairs(tiers) do
      if tier.short then s.refused[tier.name] = amounts[i] end
    end
  end
  if until_time <= known then return nil end
  s.paused_until, s.pause_s = until_time, seconds
  return seconds
end
