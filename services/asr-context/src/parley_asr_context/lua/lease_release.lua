-- ARGV: fence. The counter moves on, so that what the former owner still writes is refused.
-- A repeat after a lost answer is known by the counter: it stands one on, and nobody holds the lease.
local gone = missing()
if gone then return gone end
if not redis.call('HGET', LEASE, 'owner')
   and redis.call('HGET', LEASE, 'fence') == integer(tonumber(ARGV[1]) + 1) then return {'OK'} end
gone = fenced_out()
if gone then return gone end
redis.call('HINCRBY', LEASE, 'fence', 1)
redis.call('HDEL', LEASE, 'owner', 'expire_ms', 'ttl_ms')
touch()
return {'OK'}
