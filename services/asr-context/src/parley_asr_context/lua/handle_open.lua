-- ARGV: fence (unused), uid, serial of the handle. A handle is good until a newer one was used.
local gone = missing()
if gone then return gone end
if redis.call('HGET', SESSION, 'uid') ~= ARGV[2] then return {'HANDLE_UNKNOWN'} end
if tonumber(ARGV[3]) < tonumber(redis.call('HGET', SESSION, 'handle_used')) then return {'HANDLE_UNKNOWN'} end
redis.call('HSET', SESSION, 'handle_used', ARGV[3])
touch()
return {'OK', session()}
