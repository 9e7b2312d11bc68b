-- ARGV: fence (unused), owner, ttl_ms, '1' to take over a lease that another owner holds, step of the fence.
-- The step is random: a grant that was lost with its Redis, or one of a deleted session, must not have the fence of
-- the next one that is counted from the same number.
local gone = missing()
if gone then return gone end
local now = now_ms()
local owner = redis.call('HGET', LEASE, 'owner')
local left = tonumber(redis.call('HGET', LEASE, 'expire_ms') or '0') - now
-- Far more than it was granted for: the clock was set back, and nobody knows how much is left.
local granted = tonumber(redis.call('HGET', LEASE, 'ttl_ms') or left)
if owner and owner ~= ARGV[2] and left > 0 and left <= 2 * granted and ARGV[4] ~= '1' then
  return {'LEASE_HELD', integer(left)}
end
redis.call('HINCRBY', LEASE, 'fence', ARGV[5])
redis.call('HSET', LEASE, 'owner', ARGV[2], 'ttl_ms', ARGV[3])
redis.call('HSET', LEASE, 'expire_ms', integer(now + tonumber(ARGV[3])))
redis.call('HINCRBY', SESSION, 'handle_newest', 1)
touch()
return {'OK', redis.call('HMGET', LEASE, 'fence', 'owner', 'expire_ms'), session()}
