"""The Lua scripts that the Redis server runs. Each script is atomic.

Counting never creates a sketch or a shadow that is missing. The scripts compute the registers, from hashes that the
client has reduced modulo a common multiple of all sizes (see `sketches.store`). The client cannot compute the
registers: only the stored header knows the size of a sketch, and a shadow may have another size.
"""

from sketches.wire import HEADER_SIZE

_SHAPE = f"""
local call = redis.call
local HEADER = {HEADER_SIZE}

-- Returns tau, N' and the header of the sketch at a key; nil if it is missing, truncated or of another lineage.
local function shape(key, lineage)
  local header = call('GETRANGE', key, 0, HEADER - 1)
  if #header < HEADER or header:sub(1, #lineage) ~= lineage then return nil end
  local tau, n_prime = struct.unpack('<I2I4', header, 19)
  if n_prime < 1 or call('STRLEN', key) ~= HEADER + n_prime then return nil end
  return tau, n_prime, header
end

local function build_of(header) return header:sub(33, 48) end
local function run_id_of(header)
  return (header:sub(49, 68):gsub('.', function(c) return string.format('%02x', c:byte()) end))
end
local function server_run_id() return call('INFO', 'server'):match('run_id:(%x+)') end
"""

_COUNT = """
local function count_up(value, tau) return value < tau and value + 1 or value end
local function count_down(value, tau) return value > 0 and value < tau and value - 1 or value end
local function occupy(value) return value == 0 and 1 or value end

-- Apply a change to the register of each packed hash, one after the other.
local function each(key, tau, n_prime, hashes, change)
  for at = 1, #hashes, 4 do
    local offset = HEADER + struct.unpack('<I4', hashes, at) % n_prime
    local value = call('GETRANGE', key, offset, offset):byte()
    local changed = change(value, tau)
    if changed ~= value then call('SETRANGE', key, offset, string.char(changed)) end
  end
end
"""

# KEYS: sketch and shadow of each node. ARGV: lineage; then, for each node, the build that removals are meant for (an
# empty string means any build) and the removed, added and ensured hashes. Removals go first: the register of every
# added or ensured chunk then ends non-zero, whatever other chunks share it. The answer lists the positions, from 0, of
# the nodes for which a count was lost: the node has neither sketch nor shadow, or one of them is of another lineage or
# truncated. A client that can read a sketch with a lost count must not trust that sketch.
UPDATE = (
    _SHAPE
    + _COUNT
    + """
local missing = {}
for node = 0, #KEYS / 2 - 1 do
  local sketch, shadow = KEYS[2 * node + 1], KEYS[2 * node + 2]
  local build, removed, added, ensured = unpack(ARGV, 4 * node + 2, 4 * node + 5)
  local tau, n_prime, header = shape(sketch, ARGV[1])
  local counts, fails = tau ~= nil, tau == nil and call('EXISTS', sketch) == 1
  if tau then
    if build == '' or build == build_of(header) then each(sketch, tau, n_prime, removed, count_down) end
    each(sketch, tau, n_prime, added, count_up)
    each(sketch, tau, n_prime, ensured, occupy)
  end
  tau, n_prime = shape(shadow, ARGV[1])
  if tau then
    each(shadow, tau, n_prime, added, count_up)
    each(shadow, tau, n_prime, ensured, occupy)
  elseif not counts or call('EXISTS', shadow) == 1 then
    fails = true
  end
  if fails then missing[#missing + 1] = node end
end
return missing
"""
)

# KEYS: sketches. ARGV: lineage, hashes, the largest N' up to which a sketch is read whole. The answer is the run id,
# then the header and registers of each sketch. A sketch of up to that N' is answered with all its registers. A larger
# sketch is answered with the registers of the hashes, in the order of the hashes.
READ = (
    _SHAPE
    + """
local answer = {server_run_id()}
local hashes, whole = ARGV[2], tonumber(ARGV[3])
local batches = {}  -- N' -> looks(N'), because most sketches have the same size

-- Returns arguments of BITFIELD_RO that read the register of each hash, for 2,000 hashes at a time (a Lua limit).
local function looks(n_prime)
  local found, batch, n = {}, nil, 6000
  for at = 1, #hashes, 4 do
    if n == 6000 then
      batch, n = {}, 0
      found[#found + 1] = batch
    end
    batch[n + 1], batch[n + 2], batch[n + 3] = 'GET', 'u8', '#' .. HEADER + struct.unpack('<I4', hashes, at) % n_prime
    n = n + 3
  end
  return found
end

for _, key in ipairs(KEYS) do
  local tau, n_prime, header = shape(key, ARGV[1])
  local registers = ''
  if tau and n_prime <= whole then
    registers = call('GETRANGE', key, HEADER, -1)
  elseif tau then
    batches[n_prime] = batches[n_prime] or looks(n_prime)
    local parts = {}
    for n, batch in ipairs(batches[n_prime]) do
      parts[n] = string.char(unpack(call('BITFIELD_RO', key, unpack(batch))))
    end
    registers = table.concat(parts)
  end
  answer[#answer + 1] = header or ''
  answer[#answer + 1] = registers
end
return answer
"""
)

# KEYS: shadow. ARGV: header, N'.
OPEN = """
local n_prime = tonumber(ARGV[2])
if n_prime <= 4194304 then  -- SETRANGE would reserve up to 1 MB more
  redis.call('SET', KEYS[1], ARGV[1] .. string.rep('\\0', n_prime))
else
  redis.call('SET', KEYS[1], ARGV[1])
  redis.call('SETRANGE', KEYS[1], #ARGV[1] + n_prime - 1, '\\0')
end
"""

# KEYS: shadow. ARGV: lineage, build, hashes. The answer is 1, or 0 if the shadow is not of that build.
FILL = (
    _SHAPE
    + _COUNT
    + """
local tau, n_prime, header = shape(KEYS[1], ARGV[1])
if not tau or build_of(header) ~= ARGV[2] then return 0 end
each(KEYS[1], tau, n_prime, ARGV[3], count_up)
return 1
"""
)

# KEYS: shadow, sketch. ARGV: lineage, build. The answer is 1, or 0 if the shadow is not of that build and server. If
# the sketch is of the build ARGV[2] already, an earlier attempt of this call has made the swap, and its answer was
# lost.
SWAP = (
    _SHAPE
    + """
local tau, _, header = shape(KEYS[1], ARGV[1])
if tau and build_of(header) == ARGV[2] then
  if run_id_of(header) ~= server_run_id() then return 0 end
  call('RENAME', KEYS[1], KEYS[2])
  return 1
end
tau, _, header = shape(KEYS[2], ARGV[1])
return tau and build_of(header) == ARGV[2] and 1 or 0
"""
)

# KEYS: shadow. ARGV: lineage, build.
DISCARD = (
    _SHAPE
    + """
local tau, _, header = shape(KEYS[1], ARGV[1])
if tau and build_of(header) == ARGV[2] then call('DEL', KEYS[1]) end
"""
)
