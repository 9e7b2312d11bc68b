-- Common to all scripts of a session. KEYS is always SessionName.keys(); ARGV[1] is the caller's fence
-- ('' = unfenced). Every script answers {'OK', ...} or {CODE, ...}; redis_store.py turns codes into errors.
local SESSION, ORDER, TURNS, LEASE = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local AUDIO, KNOWN = KEYS[5], KEYS[6]

local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function integer(value)
  return string.format('%.0f', value)
end

-- Why the session cannot be used, or nil. A tombstone tells an expired session from one never seen.
local function missing()
  if redis.call('EXISTS', SESSION) == 1 then
    -- Turns and their order stand or fall together: a Redis that evicts keys parts them.
    if redis.call('EXISTS', ORDER, TURNS) == 1 then redis.call('DEL', ORDER, TURNS) end
    return nil
  end
  if redis.call('EXISTS', KNOWN) == 1 then return {'SESSION_EXPIRED'} end
  return {'SESSION_NOT_FOUND'}
end

-- Refuses a fence that is not the newest one granted.
local function fenced_out()
  local fence = ARGV[1]
  if fence == '' then return nil end
  local newest = redis.call('HGET', LEASE, 'fence') or '0'
  if tonumber(fence) ~= tonumber(newest) then return {'FENCE_STALE', newest} end
  return nil
end

-- The session was used: its whole life span begins anew, and is no shorter than the lease of who drives it. Audio
-- keeps its own, shorter one.
local function touch()
  local ttl = tonumber(redis.call('HGET', SESSION, 'ttl_ms'))
  local lease = redis.call('HMGET', LEASE, 'expire_ms', 'ttl_ms')
  if lease[1] and lease[2] then
    ttl = math.max(ttl, math.min(tonumber(lease[1]) - now_ms(), tonumber(lease[2])))
  end
  for _, key in ipairs({SESSION, ORDER, TURNS, LEASE}) do
    redis.call('PEXPIRE', key, integer(ttl))
  end
  redis.call('SET', KNOWN, '1', 'PX', integer(ttl + 86400000))
end

local function changed()
  redis.call('HINCRBY', SESSION, 'version', 1)
  touch()
end

local function session()
  return {redis.call('HGETALL', SESSION), redis.call('PTTL', SESSION), redis.call('ZCARD', ORDER)}
end

-- One turn as values in the order of the comma-separated attribute names.
local function turn(id, attributes)
  local fields = {}
  for name in string.gmatch(attributes, '[^,]+') do fields[#fields + 1] = id .. '/' .. name end
  return redis.call('HMGET', TURNS, unpack(fields))
end
