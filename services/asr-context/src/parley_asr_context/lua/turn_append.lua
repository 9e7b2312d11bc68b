-- ARGV: fence, turn, attributes, max_turns, digest of the whole call, state that user_text puts the transcript
-- into ('' = no text given), user_text, audio_digest ('' = no audio given), pcm, audio_ttl_ms,
-- then the other fields that are given (field, value, ...). What is not given stays as it is.
-- Answers the turn and whether its audio has to be queued for transcription: it is new, or this is a repeat
-- and the job may never have been queued.
local gone = missing() or fenced_out()
if gone then return gone end
local id = ARGV[2]
local function get(field) return redis.call('HGET', TURNS, id .. '/' .. field) or '' end
local function set(field, value) redis.call('HSET', TURNS, id .. '/' .. field, value) end

if get('digest') == ARGV[5] then
  touch()
  return {'OK', turn(id, ARGV[3]), get('transcript') == 'PENDING' and 1 or 0, redis.call('HGET', SESSION, 'uid')}
end
local given = {}
for i = 11, #ARGV, 2 do given[ARGV[i]] = ARGV[i + 1] end
local generated = given.generated_text or get('generated_text')
-- Completed means played to its end, whichever call brought the reply.
if given.status == 'COMPLETED' and not given.heard_text then given.heard_text = generated end
local heard = given.heard_text or get('heard_text')
if string.sub(generated, 1, #heard) ~= heard then
  return {'HEARD_NOT_GENERATED'}
end
if not redis.call('ZSCORE', ORDER, id) then
  if redis.call('ZCARD', ORDER) >= tonumber(ARGV[4]) then return {'TURNS_EXHAUSTED', ARGV[4]} end
  local index = redis.call('HINCRBY', SESSION, 'next_index', 1) - 1
  redis.call('ZADD', ORDER, index, id)
  set('turn_id', id)
  set('index', index)
  set('create_ms', integer(now_ms()))
  set('transcript', 'NONE')
  set('status', 'OPEN')
end
set('digest', ARGV[5])
for field, value in pairs(given) do set(field, value) end

local queue = 0
if ARGV[6] ~= '' then
  set('user_text', ARGV[7])
  set('transcript', ARGV[6])
  set('audio_digest', '')
  redis.call('HDEL', AUDIO, id)
elseif ARGV[8] ~= '' and ARGV[8] ~= get('audio_digest') then
  set('user_text', '')
  set('transcript', 'PENDING')
  set('audio_digest', ARGV[8])
  set('queued_ms', integer(now_ms()))
  redis.call('HSET', AUDIO, id, ARGV[9])
  redis.call('PEXPIRE', AUDIO, ARGV[10])
  queue = 1
end
changed()
return {'OK', turn(id, ARGV[3]), queue, redis.call('HGET', SESSION, 'uid')}
