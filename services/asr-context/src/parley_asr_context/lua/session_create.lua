-- ARGV: fence (unused), uid, ttl_ms, field, value, ... A repeat with the same uid is one creation, retried.
local uid = redis.call('HGET', SESSION, 'uid')
if uid and uid ~= ARGV[2] then return {'SESSION_EXISTS'} end
if not uid then
  redis.call('DEL', unpack(KEYS))
  redis.call('HSET', SESSION, 'uid', ARGV[2], 'ttl_ms', ARGV[3], 'create_ms', integer(now_ms()),
             'version', '0', 'next_index', '0', 'last_sequence', '0', 'handle_newest', '0',
             'handle_used', '0', unpack(ARGV, 4))
  touch()
end
return {'OK', session()}
