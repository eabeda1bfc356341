"""ClickHouse's compressed blocks (compress=1, decompress=1) in Python: 16 bytes CityHash128 v1.0.2, one
byte of method, u32 size of the rest with these nine bytes, u32 plain size, payload. An implementation of
its own, so that chmux is not judged by itself. Hashing is slow here (about 2 MB/s): give large bodies
that compress well, or decode() them without verify."""
import struct

import lz4.block
import zstandard

NONE, LZ4, ZSTD = 0x02, 0x82, 0x90
METHODS = {"none": NONE, "lz4": LZ4, "zstd": ZSTD}
MASK = (1 << 64) - 1
K0, K1, K2, K3 = 0xC3A5C85C97CB3127, 0xB492B66FBE98F273, 0x9AE16A3B2F90404F, 0xC949D7C7509E6557
MUL = 0x9DDFEA08EB382D69


def _u64(s, at):
    return int.from_bytes(s[at : at + 8], "little")


def _u32(s, at):
    return int.from_bytes(s[at : at + 4], "little")


def _rot(v, n):
    v &= MASK
    return ((v >> n) | (v << (64 - n))) & MASK


def _mix(v):
    v &= MASK
    return v ^ (v >> 47)


def _join(lo, hi):
    """Two 64-bit halves to one word."""
    a = _mix(((lo ^ hi) & MASK) * MUL)
    return _mix(((hi & MASK) ^ a) * MUL) * MUL & MASK


def _short(s):
    """A word of at most 16 bytes."""
    n = len(s)
    if n > 8:
        b = _u64(s, n - 8)
        return _join(_u64(s, 0), _rot(b + n, n)) ^ b
    if n >= 4:
        return _join(n + (_u32(s, 0) << 3), _u32(s, n - 4))
    if n:
        return _mix((s[0] + (s[n >> 1] << 8)) * K2 ^ (n + (s[-1] << 2)) * K3) * K2 & MASK
    return K2


def _weak(s, at, a, b):
    """32 bytes at `at`, mixed into a pair."""
    w, x, y, z = (_u64(s, at + i) for i in (0, 8, 16, 24))
    a += w
    b = _rot(b + a + z, 21)
    c = a
    a += x + y
    return (a + z) & MASK, (b + _rot(a, 44) + c) & MASK


def _murmur(s, a, b):
    n = len(s)
    if n <= 16:
        a = _mix(a * K1) * K1 & MASK
        c = (b * K1 + _short(s)) & MASK
        d = _mix(a + (_u64(s, 0) if n >= 8 else c))
    else:
        c = _join(_u64(s, n - 8) + K1, a)
        d = _join(b + n, c + _u64(s, n - 16))
        a = (a + d) & MASK
        for at in range(0, n - 16, 16):
            a = (a ^ _mix(_u64(s, at) * K1) * K1) * K1 & MASK
            b ^= a
            c = (c ^ _mix(_u64(s, at + 8) * K1) * K1) * K1 & MASK
            d ^= c
    a, b = _join(a, c), _join(d, b)
    return a ^ b, _join(b, a)


def _seeded(s, x, y):
    n = len(s)
    if n < 128:
        return _murmur(s, x, y)
    z = n * K1 & MASK
    v0 = (_rot(y ^ K1, 49) * K1 + _u64(s, 0)) & MASK
    v1 = (_rot(v0, 42) * K1 + _u64(s, 8)) & MASK
    w0 = (_rot(y + z, 35) * K1 + x) & MASK
    w1 = _rot(x + _u64(s, 88), 53) * K1 & MASK
    at = 0
    while n - at >= 128:
        for _ in range(2):
            x = _rot(x + y + v0 + _u64(s, at + 16), 37) * K1 & MASK
            y = _rot(y + v1 + _u64(s, at + 48), 42) * K1 & MASK
            x ^= w1
            y ^= v0
            z = _rot(z ^ w0, 33)
            v0, v1 = _weak(s, at, v1 * K1, x + w0)
            w0, w1 = _weak(s, at + 32, z + w1, y)
            z, x = x, z
            at += 64
    y = (y + _rot(w0, 37) * K0 + z) & MASK
    x = (x + _rot(v0 + z, 49) * K0) & MASK
    for done in range(32, n - at + 32, 32):
        tail = n - done
        y = (_rot(y - x, 42) * K0 + v1) & MASK
        w0 = (w0 + _u64(s, tail + 16)) & MASK
        x = (_rot(x, 49) * K0 + w0) & MASK
        w0 = (w0 + v0) & MASK
        v0, v1 = _weak(s, tail, v0, v1)
    x, y = _join(x, v0), _join(y, w0)
    return (_join(x + v1, w1) + y) & MASK, _join(x + w1, y + v1)


def cityhash128(s):
    """The 16 bytes as they stand on the wire."""
    n = len(s)
    if n >= 16:
        lo, hi = _seeded(s[16:], _u64(s, 0) ^ K3, _u64(s, 8))
    elif n >= 8:
        lo, hi = _seeded(b"", _u64(s, 0) ^ (n * K0 & MASK), _u64(s, n - 8) ^ K1)
    else:
        lo, hi = _seeded(s, K0, K1)
    return struct.pack("<QQ", lo, hi)


def block(plain, method=LZ4):
    """One block."""
    if method == LZ4:
        payload = lz4.block.compress(plain, store_size=False)
    elif method == ZSTD:
        payload = zstandard.ZstdCompressor(level=1).compress(plain)
    else:
        payload = plain
    rest = struct.pack("<BII", method, len(payload) + 9, len(plain)) + payload
    return cityhash128(rest) + rest


def encode(plain, method=LZ4, size=1 << 20):
    """A body of blocks of at most size plain bytes."""
    return b"".join(block(plain[i : i + size], method) for i in range(0, len(plain), size))


def split(body):
    """[(checksum, method, plain size, the bytes hashed, payload)] of a whole body; ValueError when it is cut."""
    out, at = [], 0
    while at < len(body):
        if len(body) - at < 25:
            raise ValueError(f"{len(body) - at} bytes where a block's header should be")
        method, size, plain = struct.unpack_from("<BII", body, at + 16)
        if size < 9 or at + 16 + size > len(body):
            raise ValueError(f"the block at {at} is cut: it says {size} bytes")
        rest = body[at + 16 : at + 16 + size]
        out.append((body[at : at + 16], method, plain, rest, rest[9:]))
        at += 16 + size
    return out


def decode(body, verify=True):
    """The plain bytes of a body; ValueError when anything is wrong with it."""
    out = []
    for checksum, method, size, rest, payload in split(body):
        if verify and cityhash128(rest) != checksum:
            raise ValueError("checksum mismatch")
        if method == LZ4:
            plain = lz4.block.decompress(payload, uncompressed_size=size)
        elif method == ZSTD:
            plain = zstandard.ZstdDecompressor().decompress(payload)
        elif method == NONE:
            plain = payload
        else:
            raise ValueError(f"block method 0x{method:02x}")
        if len(plain) != size:
            raise ValueError(f"a block of {size} bytes has {len(plain)}")
        out.append(plain)
    return b"".join(out)
