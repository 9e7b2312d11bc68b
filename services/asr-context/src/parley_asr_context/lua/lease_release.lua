-- ARGV: fence. The counter moves on, so that what the former owner still writes is refused.
local gone = missing() or fenced_out()
if gone then return gone end
redis.call('HINCRBY', LEASE, 'fence', 1)
redis.call('HDEL', LEASE, 'owner', 'expire_ms', 'ttl_ms')
touch()
return {'OK'}
