-- ARGV: fence (unused), attributes, 'forward' or 'backward', index to go on after (exclusive, '' = from the
-- end), limit, '1' to count as use. One snapshot.
local gone = missing()
if gone then return gone end
local ids
local after = ARGV[4] ~= '' and '(' .. ARGV[4] or nil
if ARGV[3] == 'forward' then
  ids = redis.call('ZRANGEBYSCORE', ORDER, after or '-inf', '+inf', 'LIMIT', 0, ARGV[5])
else
  ids = redis.call('ZREVRANGEBYSCORE', ORDER, after or '+inf', '-inf', 'LIMIT', 0, ARGV[5])
end
local turns = {}
for i, id in ipairs(ids) do turns[i] = turn(id, ARGV[2]) end
if ARGV[6] == '1' then touch() end
return {'OK', turns, session()}
