-- ARGV: fence, turn, attributes, heard_text, status ('' = as it is). heard_text begins the generated text.
local gone = missing() or fenced_out()
if gone then return gone end
local id = ARGV[2]
if not redis.call('ZSCORE', ORDER, id) then return {'TURN_NOT_FOUND'} end
local generated = redis.call('HGET', TURNS, id .. '/generated_text') or ''
if string.sub(generated, 1, #ARGV[4]) ~= ARGV[4] then return {'HEARD_NOT_GENERATED'} end
local wanted = {heard_text = ARGV[4]}
if ARGV[5] ~= '' then wanted.status = ARGV[5] end
local news = false
for field, value in pairs(wanted) do
  if redis.call('HGET', TURNS, id .. '/' .. field) ~= value then
    redis.call('HSET', TURNS, id .. '/' .. field, value)
    news = true
  end
end
if news then changed() else touch() end
return {'OK', turn(id, ARGV[3])}
