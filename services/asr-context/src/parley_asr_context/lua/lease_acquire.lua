-- ARGV: fence (unused), owner, ttl_ms, '1' to take over a lease that another owner holds.
local gone = missing()
if gone then return gone end
local now = now_ms()
local owner = redis.call('HGET', LEASE, 'owner')
local expire = tonumber(redis.call('HGET', LEASE, 'expire_ms') or '0')
if owner and owner ~= ARGV[2] and expire > now and ARGV[4] ~= '1' then
  return {'LEASE_HELD', integer(expire - now)}
end
redis.call('HINCRBY', LEASE, 'fence', 1)
redis.call('HSET', LEASE, 'owner', ARGV[2], 'expire_ms', integer(now + tonumber(ARGV[3])))
redis.call('HINCRBY', SESSION, 'handle_newest', 1)
touch()
return {'OK', redis.call('HMGET', LEASE, 'fence', 'owner', 'expire_ms'), session()}
