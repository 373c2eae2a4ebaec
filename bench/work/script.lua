-- Lua's and LuaJIT's share of the bench: tables, strings, a matrix, closures.
local t = {}
for i = 1, 50000 do
  local k = "k" .. (i * 7 % 997)
  t[k] = (t[k] or 0) + i % 13
end
local sum = 0
for i = 0, 996 do sum = sum + (t["k" .. i] or 0) end
print(sum)
local n, m = 40, {}
for i = 1, n do m[i] = {} for j = 1, n do m[i][j] = i * j % 7 end end
local trace = 0
for i = 1, n do for j = 1, n do
  local s = 0
  for k = 1, n do s = s + m[i][k] * m[k][j] end
  if i == j then trace = trace + s end
end end
print(trace)
local function counter() local c = 0 return function(d) c = c + d return c end end
local f = counter()
for i = 1, 100000 do f(i % 3) end
print(f(0))
