-- KEYS: the stream of jobs, the dead letters. ARGV: group, entry id, dead letters kept, then the letter (field, value,
-- ...; none: the job is done). Takes a job out of the stream. No transaction would do: a Redis that is full queues no
-- command in one, but lets a script go on that begins by freeing memory.
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
redis.call('XDEL', KEYS[1], ARGV[2])
if #ARGV > 3 then redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', unpack(ARGV, 4)) end
return {'OK'}
