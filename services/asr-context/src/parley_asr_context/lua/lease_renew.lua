-- ARGV: fence, ttl_ms. An expired lease that nobody took since is still the newest, so it may go on.
local gone = missing() or fenced_out()
if gone then return gone end
if not redis.call('HGET', LEASE, 'owner') then
  return {'FENCE_STALE', redis.call('HGET', LEASE, 'fence') or '0'}
end
redis.call('HSET', LEASE, 'ttl_ms', ARGV[2], 'expire_ms', integer(now_ms() + tonumber(ARGV[2])))
touch()
return {'OK', redis.call('HMGET', LEASE, 'fence', 'owner', 'expire_ms'), session()}
