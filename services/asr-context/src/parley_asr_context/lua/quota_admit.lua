-- ARGV[1]: limits, slot, holder, ttl (seconds), take and need (amounts by bucket). Answers {'OK', standing} or
-- {'REFUSED', what, wait in microseconds ('' for never), standing}.
local holder = redis.call('HGET', HOLDERS, ask.slot)
if holder == ask.holder then
  keep(ask.slot, ask.holder)
  return {'OK', standing()}
end

local what, longest = nil, -1
if not holder and ask.limits.max_sessions and redis.call('ZCARD', SLOTS) >= ask.limits.max_sessions then
  local first = redis.call('ZRANGE', SLOTS, 0, 0, 'WITHSCORES')[2]
  what, longest = 'sessions', first and tonumber(first) - now or math.huge
end
for _, name in ipairs(NAMES) do
  local bucket = ask.limits[name]
  if bucket then
    local wanted = math.max(ask.take[name], ask.need[name])
    local short = wanted - level(name)
    if short > 1e-9 then
      local wait = wanted > bucket.capacity and math.huge or math.ceil(short / bucket.refill * 1000000)
      if wait > longest then what, longest = name, wait end
    end
  end
end
if what then
  return {'REFUSED', what, longest == math.huge and '' or integer(longest), standing()}
end

for _, name in ipairs(NAMES) do take(name, ask.take[name]) end
keep(ask.slot, ask.holder)
return {'OK', standing()}
