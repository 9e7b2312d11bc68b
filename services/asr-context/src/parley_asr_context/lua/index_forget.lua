-- KEYS: a tenant's index of sessions. ARGV: score, id, ... Takes an entry out while it has the score that was read with
-- it: a session that was made again since has another.
for i = 1, #ARGV, 2 do
  local score = redis.call('ZSCORE', KEYS[1], ARGV[i + 1])
  if score and tonumber(score) == tonumber(ARGV[i]) then redis.call('ZREM', KEYS[1], ARGV[i + 1]) end
end
return {'OK'}
