-- ARGV: fence (unused), turn, attributes.
local gone = missing()
if gone then return gone end
if not redis.call('ZSCORE', ORDER, ARGV[2]) then return {'TURN_NOT_FOUND'} end
return {'OK', turn(ARGV[2], ARGV[3])}
