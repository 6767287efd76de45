-- settle(state, permits, window; pause_ms, number of hints, then tier, limit, remaining for each
--        hint ('' where unknown), then id, returned, tokens, input, output for each permit)
--
-- Gives slots back, and the difference between estimated and real tokens (negative if more were
-- used). A permit that is not known any more changes nothing, so repeating is harmless.
-- KEYS are the first three of acquire.lua.

redis.replicate_commands()
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000

local function add(tier, amount)
    if amount ~= 0 and redis.call('HEXISTS', KEYS[1], tier .. ':l') == 1 then
        redis.call('HINCRBYFLOAT', KEYS[1], tier .. ':l', amount)
    end
end

local hints = tonumber(ARGV[2])
for index = 3 + 3 * hints, #ARGV, 5 do
    if redis.call('ZREM', KEYS[2], ARGV[index]) == 1 then
        add('tpm', tonumber(ARGV[index + 2]))
        add('itpm', tonumber(ARGV[index + 3]))
        add('otpm', tonumber(ARGV[index + 4]))
        if ARGV[index + 1] == '1' then
            add('rpm', 1)
            add('rph', 1)
            add('rpd', 1)
            redis.call('ZREM', KEYS[3], ARGV[index])
        end
    end
end

for index = 3, 2 + 3 * hints, 3 do
    local tier, limit = ARGV[index], tonumber(ARGV[index + 1])
    local remaining = tonumber(ARGV[index + 2])
    local level = tonumber(redis.call('HGET', KEYS[1], tier .. ':l'))
    if limit then redis.call('HSET', KEYS[1], tier .. ':m', limit) end
    if level and remaining and remaining < level then
        redis.call('HSET', KEYS[1], tier .. ':l', remaining)
    end
end

local pause = tonumber(ARGV[1])
if pause > 0 then
    local until_ = now + pause
    if until_ > (tonumber(redis.call('HGET', KEYS[1], 'paused')) or 0) then
        redis.call('HSET', KEYS[1], 'paused', until_)
    end
    -- No burst after a pause: the way back begins with an empty bucket.
    for _, tier in ipairs({'rpm', 'tpm', 'itpm', 'otpm'}) do
        local level = tonumber(redis.call('HGET', KEYS[1], tier .. ':l'))
        if level and level > 0 then
            redis.call('HSET', KEYS[1], tier .. ':l', 0, tier .. ':t', until_)
        end
    end
end
return 1
