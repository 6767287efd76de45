-- Returns the state of one bucket, to be shown to people. The script changes nothing.
--
-- EVALSHA sha 3 state leases heads  [now]
--   KEYS[1] state, KEYS[2] leases, KEYS[3] heads: see exchange.lua
--   ARGV[1] the time in place of Redis's own time, for tests only
-- Returns JSON, or nothing if the bucket is not in use.

local packed = redis.call('GET', KEYS[1])
if not packed then return false end
local now = tonumber(ARGV[1]) or redis_time()
local s = cmsgpack.unpack(packed)
local spec = cjson.decode(s.spec)
advance(s, spec.tiers, now)

local heads, waiting = redis.call('HGETALL', KEYS[3]), 0
local soonest
for i = 2, #heads, 2 do
  local record = cmsgpack.unpack(heads[i])
  if record[1] + spec.late_s >= now then
    waiting = waiting + record[2]
    for j = 3, #record do
      local delay = fit(s, spec.tiers, record[j][4], nil, now)
      soonest = math.min(soonest or delay, delay)
    end
  end
end

local one = {}
local shown = {}
for i, tier in ipairs(spec.tiers) do
  one[i] = tier.in_requests and 1 or 0
  local learned = s.learned[tier.name]
  local used = tier.kind == 'window' and s.counted[tier.name] or nil
  shown[i] = {
    tier = tier.name, enforcement = tier.kind, limit = tier.limit, capacity = tier.cap,
    level = used and tier.cap - used or s.level[tier.name],
    rate = tier.speed, learned_limit = learned and learned[1] or nil,
  }
end
local paused = math.max(0, (s.paused_until or 0) - now)
local next_free = math.max(paused, s.next - now, soonest or fit(s, spec.tiers, one, nil, now))
return cjson.encode({
  bucket = spec.bucket, epoch = s.epoch, tiers = shown, waiting = waiting,
  concurrency = spec.concurrency, in_flight = redis.call('ZCOUNT', KEYS[2], now, '+inf'),
  paused_s = paused, next_free_s = next_free, ramp = ramp(s, now),
})
