-- ARGV: fence (unused), turn, uid and audio_digest of the job, DONE or FAILED, text. The first outcome stays; a
-- session is not kept alive by its transcription.
local id = ARGV[2]
if redis.call('HGET', SESSION, 'uid') ~= ARGV[3] then return {'GONE'} end
if redis.call('HGET', TURNS, id .. '/audio_digest') ~= ARGV[4] then return {'GONE'} end
if redis.call('HGET', TURNS, id .. '/transcript') ~= 'PENDING' then return {'GONE'} end
-- The audio goes first: a Redis that is full lets a script go on that begins by freeing memory. Otherwise no audio
-- would ever leave it, for there is nothing larger in it.
redis.call('HDEL', AUDIO, id)
redis.call('HSET', TURNS, id .. '/transcript', ARGV[5], id .. '/user_text', ARGV[6])
redis.call('HINCRBY', SESSION, 'version', 1)
return {'OK'}
