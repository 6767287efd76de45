-- acquire(state, permits, window, turns, seen; process, known, horizon_ms, ttl_ms, pace,
--         rpm, burst, window_limit, rph, rpd, tpm, itpm, otpm, tokens_burst_ms, concurrent,
--         then id, input, output for each request)
--
-- Grants requests in order, each from all tiers or from none, up to the first that does not fit.
-- Returns {granted, retry_in_ms, delay_ms of each granted one}; numbers are texts.
--
-- KEYS[1] state    hash: <tier>:l level in tokens, <tier>:t time of that level (ms),
--                  <tier>:m limit learned from headers, paused (ms until which nobody may call)
-- KEYS[2] permits  zset: permit id -> time (ms) at which its concurrency slot returns by itself
-- KEYS[3] window   zset: permit id -> time (ms) of the grant, only with window enforcement
-- KEYS[4] turns    zset: process -> time (ms) since which its head waits
-- KEYS[5] seen     zset: process -> time (ms) of its last call
-- A limit of 0 means that the tier is unlimited. Redis's own clock is the only one.

redis.replicate_commands()
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local process, known = ARGV[1], ARGV[2] == '1'
local horizon, ttl, pace = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local burst, window_limit = tonumber(ARGV[7]), tonumber(ARGV[8])
local token_burst_ms, concurrent = tonumber(ARGV[14]), tonumber(ARGV[15])
local MINUTE, HOUR, DAY, DEAD_MS, POLL_MS = 60000, 3600000, 86400000, 3000, 50

-- {name, limit, span, capacity, which argument of a request it costs (0: one request)}
local wanted = {
    {'rpm', tonumber(ARGV[6]), MINUTE, burst, 0},
    {'rph', tonumber(ARGV[9]), HOUR, tonumber(ARGV[9]), 0},
    {'rpd', tonumber(ARGV[10]), DAY, tonumber(ARGV[10]), 0},
    {'tpm', tonumber(ARGV[11]), MINUTE, false, 3},
    {'itpm', tonumber(ARGV[12]), MINUTE, false, 1},
    {'otpm', tonumber(ARGV[13]), MINUTE, false, 2},
}

local fields = {'paused'}
for _, tier in ipairs(wanted) do
    fields[#fields + 1] = tier[1] .. ':l'
    fields[#fields + 1] = tier[1] .. ':t'
    fields[#fields + 1] = tier[1] .. ':m'
end
local state = redis.call('HMGET', KEYS[1], unpack(fields))
local paused = tonumber(state[1]) or 0

local tiers = {}
for index, tier in ipairs(wanted) do
    local limit = tier[2]
    if limit > 0 then
        local learned = tonumber(state[3 * index + 1])
        if learned and learned < limit then limit = learned end
        local minute = tier[3] == MINUTE
        local rate = limit / tier[3] * (minute and pace or 1)
        local capacity = tier[4] or math.max(rate * token_burst_ms, 1)
        local level, at = tonumber(state[3 * index - 1]), tonumber(state[3 * index])
        if not level then
            -- Whoever has seen this bucket before has lost it in a flush: no second burst.
            level, at = (known and minute) and 0 or capacity, now
        end
        level = math.min(capacity, level + math.max(now - at, 0) * rate)
        tiers[#tiers + 1] = {
            name = tier[1], rate = rate, capacity = capacity, level = level, arg = tier[5]
        }
    end
end

redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
if window_limit > 0 then redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now - MINUTE) end
local in_use = redis.call('ZCARD', KEYS[2])
local in_window = window_limit > 0 and redis.call('ZCARD', KEYS[3]) or 0

-- Other live processes whose head waits longer: one request is kept for each of them.
for _, dead in ipairs(redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', now - DEAD_MS)) do
    redis.call('ZREM', KEYS[4], dead)
    redis.call('ZREM', KEYS[5], dead)
end
local ahead = redis.call('ZRANK', KEYS[4], process) or redis.call('ZCARD', KEYS[4])

local delays, retry = {}, 0
local count = (#ARGV - 15) / 3
for number = 1, count do
    local base = 15 + (number - 1) * 3
    local id = ARGV[base + 1]
    if redis.call('ZSCORE', KEYS[2], id) then
        delays[#delays + 1] = '0' -- a repeated command: it was granted already
    else
        local input, output = tonumber(ARGV[base + 2]), tonumber(ARGV[base + 3])
        local costs = {[0] = 1, [1] = input, [2] = output, [3] = input + output}
        local wait = math.max(paused - now, 0)
        if wait > 0 then wait = wait + horizon end
        for _, tier in ipairs(tiers) do
            local cost = math.min(costs[tier.arg], tier.capacity)
            if tier.arg == 0 then cost = cost + ahead end
            if tier.level < cost then
                wait = math.max(wait, (cost - tier.level) / tier.rate)
            end
        end
        if concurrent > 0 and in_use >= concurrent then
            wait = math.max(wait, horizon + POLL_MS)
        end
        if window_limit > 0 and in_window >= window_limit then
            local oldest = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')
            wait = math.max(wait, horizon + oldest[2] + MINUTE - now)
        end
        if wait > horizon then
            retry = wait - horizon
            break
        end
        for _, tier in ipairs(tiers) do tier.level = tier.level - costs[tier.arg] end
        redis.call('ZADD', KEYS[2], now + wait + ttl, id)
        in_use = in_use + 1
        if window_limit > 0 then
            redis.call('ZADD', KEYS[3], now + wait, id)
            in_window = in_window + 1
        end
        delays[#delays + 1] = tostring(wait)
    end
end

local changes = {}
for _, tier in ipairs(tiers) do
    changes[#changes + 1] = tier.name .. ':l'
    changes[#changes + 1] = string.format('%.6f', tier.level)
    changes[#changes + 1] = tier.name .. ':t'
    changes[#changes + 1] = string.format('%.3f', now)
end
if #changes > 0 then
    redis.call('HSET', KEYS[1], unpack(changes))
    redis.call('PEXPIRE', KEYS[1], 2 * DAY)
end
if #delays == count then
    redis.call('ZREM', KEYS[4], process)
elseif #delays > 0 or not redis.call('ZSCORE', KEYS[4], process) then
    redis.call('ZADD', KEYS[4], now, process) -- behind those that wait already
end
redis.call('ZADD', KEYS[5], now, process)
for _, key in ipairs({KEYS[2], KEYS[3], KEYS[4], KEYS[5]}) do redis.call('PEXPIRE', key, HOUR) end

local answer = {tostring(#delays), tostring(retry)}
for _, delay in ipairs(delays) do answer[#answer + 1] = delay end
return answer
