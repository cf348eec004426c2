-- Fills databases 0 and 1 of the demo's Redis: every type of value, in small and in large encodings; ARGV[1] small keys.
math.randomseed(42)
local call = redis.call
local day = 86400

call('SELECT', 0)
for n = 1, tonumber(ARGV[1]) do
  local key, value = 'session:' .. n, 'user-' .. math.random(90000) .. ':' .. math.random(1000000000)
  if n % 3 == 0 then call('SET', key, value, 'EX', day + math.random(29 * day)) else call('SET', key, value) end
end

call('SELECT', 1)
for n = 1, 2000 do
  call('HSET', 'user:' .. n, 'name', 'User ' .. n, 'mail', 'user' .. n .. '@example.com', 'visits', math.random(500))
  call('RPUSH', 'cart:' .. n % 200, 'sku-' .. math.random(5000))
  call('SADD', 'visitors', 'user-' .. math.random(90000))
  call('SADD', 'stores', n)
  call('ZADD', 'ranking', math.random(), 'user-' .. n)
  call('XADD', 'orders', n .. '-1', 'user', n, 'cents', math.random(100000))
  call('PFADD', 'uniques', math.random(1000000))
  call('SETBIT', 'active:2026-11-21', math.random(100000), 1)
  call('RPUSH', 'feed', string.rep('x', n % 300))
end
call('HSET', 'page:1', 'html', string.rep('<p>tide</p>', 2000))
call('SADD', 'flags', 'beta', 'dark-mode')
call('ZADD', 'small-ranking', 1.5, 'a', 2.5, 'b')
call('GEOADD', 'shops', 13.361389, 38.115556, 'Palermo', 15.087269, 37.502669, 'Catania')
call('XGROUP', 'CREATE', 'orders', 'billing', '0')
call('XREADGROUP', 'GROUP', 'billing', 'worker-1', 'COUNT', 20, 'STREAMS', 'orders', '>')
call('EXPIRE', 'cart:7', 30 * day)
call('SET', 'counter', 12345)
return call('DBSIZE')
