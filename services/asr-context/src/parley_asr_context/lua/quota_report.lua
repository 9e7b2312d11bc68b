-- ARGV[1]: limits, ttl (seconds), serial, used (amounts by bucket), kept and ended (lists of {slot, holder}).
if ask.serial > tonumber(redis.call('GET', REPORT) or '0') then
  for _, name in ipairs(NAMES) do take(name, ask.used[name]) end
  redis.call('SET', REPORT, integer(ask.serial), 'PX', integer(FORGET_MS))
end
for _, place in ipairs(ask.kept) do
  -- Another holder has taken the session over; a slot that is gone was forgotten by Redis, not by its gateway.
  local holder = redis.call('HGET', HOLDERS, place[1])
  if not holder or holder == place[2] then keep(place[1], place[2]) end
end
for _, place in ipairs(ask.ended) do
  if redis.call('HGET', HOLDERS, place[1]) == place[2] then drop(place[1]) end
end
return {'OK', standing()}
