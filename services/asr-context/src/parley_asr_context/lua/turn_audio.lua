-- ARGV: fence (unused), turn, uid and audio_digest of the job. GONE: nobody waits for this text any more.
local id = ARGV[2]
if redis.call('HGET', SESSION, 'uid') ~= ARGV[3] then return {'GONE'} end
if redis.call('HGET', TURNS, id .. '/audio_digest') ~= ARGV[4] then return {'GONE'} end
if redis.call('HGET', TURNS, id .. '/transcript') ~= 'PENDING' then return {'GONE'} end
local audio = redis.call('HGET', AUDIO, id)
if not audio then return {'AUDIO_EXPIRED'} end
return {'OK', audio}
