-- ARGV: fence (unused), turn, min_age_ms. Claims the right to queue a pending turn whose job may be lost.
local gone = missing()
if gone then return gone end
local id = ARGV[2]
if redis.call('HGET', TURNS, id .. '/transcript') ~= 'PENDING' then return {'OK', 0} end
local now = now_ms()
local age = now - tonumber(redis.call('HGET', TURNS, id .. '/queued_ms'))
-- Queued in the future: the clock was set back, and nobody knows for how long it waits.
if age >= 0 and age < tonumber(ARGV[3]) then return {'OK', 0} end
redis.call('HSET', TURNS, id .. '/queued_ms', integer(now))
return {'OK', 1, redis.call('HGET', SESSION, 'uid'), redis.call('HGET', TURNS, id .. '/audio_digest')}
