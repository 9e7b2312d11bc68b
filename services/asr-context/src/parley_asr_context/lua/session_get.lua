-- ARGV: fence, '1' to count as use.
local gone = missing() or fenced_out()
if gone then return gone end
if ARGV[2] == '1' then touch() end
return {'OK', session()}
