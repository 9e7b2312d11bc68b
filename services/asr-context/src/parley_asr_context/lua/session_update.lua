-- ARGV: fence, last_sequence ('' = as it is), field, value, ... Reporting a sequence number changes nothing
-- that a prompt is built from, so it leaves the version.
local gone = missing() or fenced_out()
if gone then return gone end
if ARGV[2] ~= '' then
  local last = tonumber(redis.call('HGET', SESSION, 'last_sequence'))
  if tonumber(ARGV[2]) > last then redis.call('HSET', SESSION, 'last_sequence', ARGV[2]) end
end
if #ARGV > 2 then
  redis.call('HSET', SESSION, unpack(ARGV, 3))
  changed()
else
  touch()
end
return {'OK', session()}
