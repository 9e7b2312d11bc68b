-- ARGV: fence.
local gone = missing() or fenced_out()
if gone then return gone end
redis.call('DEL', unpack(KEYS))
return {'OK'}
