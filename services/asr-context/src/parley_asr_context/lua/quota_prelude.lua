-- Common to the scripts of quotas. KEYS is always quotas.tenant_keys(); ARGV[1] is the request as JSON. A bucket is
-- kept as the time (microseconds) at which it is full again, so refilling needs no write and loses no fraction.
local BUCKETS, SLOTS, HOLDERS, REPORT = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local NAMES = {'session_starts', 'audio_in', 'audio_out'}
local FORGET_MS = 3600000
local ask = cjson.decode(ARGV[1])

local function now_us()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end
local now = now_us()

local function integer(value)
  return string.format('%.0f', value)
end

-- The clock was set back: points in time that were kept move with it. Else buckets would stay empty, and places taken,
-- until it comes to where it was.
local ahead = tonumber(redis.call('HGET', BUCKETS, 'now') or '0') - now
if ahead > 0 then
  for _, name in ipairs(NAMES) do
    if redis.call('HEXISTS', BUCKETS, name) == 1 then redis.call('HINCRBY', BUCKETS, name, integer(-ahead)) end
  end
  for _, slot in ipairs(redis.call('ZRANGE', SLOTS, 0, -1)) do
    redis.call('ZINCRBY', SLOTS, integer(-ahead), slot)
  end
end
redis.call('HSET', BUCKETS, 'now', integer(now))

local function full_at(name)
  return math.max(tonumber(redis.call('HGET', BUCKETS, name) or '0'), now)
end

local function level(name)
  local bucket = ask.limits[name]
  return bucket.capacity - (full_at(name) - now) / 1000000 * bucket.refill
end

-- Takes an amount, also one that is not there; below zero gives it back.
local function take(name, amount)
  local bucket = ask.limits[name]
  if not bucket or amount == 0 then return end
  redis.call('HSET', BUCKETS, name, integer(math.ceil(full_at(name) + amount / bucket.refill * 1000000)))
end

local function keep(slot, holder)
  redis.call('ZADD', SLOTS, integer(now + ask.ttl * 1000000), slot)
  redis.call('HSET', HOLDERS, slot, holder)
end

local function drop(slot)
  redis.call('ZREM', SLOTS, slot)
  redis.call('HDEL', HOLDERS, slot)
end

-- Sessions whose gateway has not reported for longer than it said.
for _, slot in ipairs(redis.call('ZRANGEBYSCORE', SLOTS, '-inf', integer(now))) do drop(slot) end

-- Where the tenant stands: levels ('' for what is not limited) and sessions.
local function standing()
  local told, last = {}, now + ask.ttl * 1000000
  for index, name in ipairs(NAMES) do
    if ask.limits[name] then
      told[index] = string.format('%.9f', level(name))
      last = math.max(last, full_at(name))
    else
      told[index] = ''
    end
  end
  for _, key in ipairs({BUCKETS, SLOTS, HOLDERS}) do
    redis.call('PEXPIRE', key, integer((last - now) / 1000 + FORGET_MS))
  end
  told[4] = integer(redis.call('ZCARD', SLOTS))
  return told
end
