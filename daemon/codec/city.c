#include "codec/city.h"

/* The constants and the order of the steps are the algorithm: nothing here may be "improved". Sums
 * and products wrap on purpose; all of it is unsigned. */
#define K0 UINT64_C(0xc3a5c85c97cb3127)
#define K1 UINT64_C(0xb492b66fbe98f273)
#define K2 UINT64_C(0x9ae16a3b2f90404f)
#define K3 UINT64_C(0xc949d7c7509e6557)

struct pair {
    uint64_t a, b;
};

static inline uint64_t
load64(const unsigned char *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof(v));
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap64(v);
#endif
    return v;
}

static inline uint32_t
load32(const unsigned char *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof(v));
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap32(v);
#endif
    return v;
}

static inline void
store64(unsigned char *p, uint64_t v)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap64(v);
#endif
    memcpy(p, &v, sizeof(v));
}

/* 0 < n < 64 */
static inline uint64_t
rotate(uint64_t v, unsigned n)
{
    return v >> n | v << (64 - n);
}

static inline uint64_t
shift_mix(uint64_t v)
{
    return v ^ v >> 47;
}

static inline uint64_t
fold(uint64_t low, uint64_t high)
{
    const uint64_t mul = UINT64_C(0x9ddfea08eb382d69);
    uint64_t a = shift_mix((low ^ high) * mul);
    return shift_mix((high ^ a) * mul) * mul;
}

static uint64_t
hash_0_to_16(const unsigned char *p, size_t len)
{
    if (len > 8) {
        uint64_t end = load64(p + len - 8);
        return fold(load64(p), rotate(end + len, (unsigned)len)) ^ end;
    }
    if (len >= 4)
        return fold(len + ((uint64_t)load32(p) << 3), load32(p + len - 4));
    if (len > 0) {
        uint64_t y = p[0] + ((uint64_t)p[len >> 1] << 8);
        uint64_t z = len + ((uint64_t)p[len - 1] << 2);
        return shift_mix(y * K2 ^ z * K3) * K2;
    }
    return K2;
}

/* 32 bytes at p into the seeds a and b. */
static inline struct pair
mix32(const unsigned char *p, uint64_t a, uint64_t b)
{
    uint64_t last = load64(p + 24);
    a += load64(p);
    b = rotate(b + a + last, 21);
    uint64_t first = a;
    a += load64(p + 8);
    a += load64(p + 16);
    b += rotate(a, 44);
    return (struct pair){a + last, b + first};
}

/* Less than 128 bytes. */
static struct pair
hash_short(const unsigned char *p, size_t len, struct pair seed)
{
    uint64_t a = seed.a, b = seed.b, c, d;
    if (len <= 16) {
        a = shift_mix(a * K1) * K1;
        c = b * K1 + hash_0_to_16(p, len);
        d = shift_mix(a + (len >= 8 ? load64(p) : c));
    } else {
        c = fold(load64(p + len - 8) + K1, a);
        d = fold(b + len, c + load64(p + len - 16));
        a += d;
        /* The last step may overlap the end's 16 bytes, never pass them. */
        for (size_t at = 0; at < len - 16; at += 16) {
            a = (a ^ shift_mix(load64(p + at) * K1) * K1) * K1;
            b ^= a;
            c = (c ^ shift_mix(load64(p + at + 8) * K1) * K1) * K1;
            d ^= c;
        }
    }
    a = fold(a, c);
    b = fold(d, b);
    return (struct pair){a ^ b, fold(b, a)};
}

struct state { /* of the hash of 128 bytes and more */
    struct pair v, w;
    uint64_t x, y, z;
};

static inline void
mix64(struct state *s, const unsigned char *p)
{
    s->x = rotate(s->x + s->y + s->v.a + load64(p + 16), 37) * K1;
    s->y = rotate(s->y + s->v.b + load64(p + 48), 42) * K1;
    s->x ^= s->w.b;
    s->y ^= s->v.a;
    uint64_t z = rotate(s->z ^ s->w.a, 33);
    s->v = mix32(p, s->v.b * K1, s->x + s->w.a);
    s->w = mix32(p + 32, z + s->w.b, s->y);
    s->z = s->x;
    s->x = z;
}

static struct pair
hash_long(const unsigned char *p, size_t len, struct pair seed)
{
    /* A local whose address never leaves the inlined steps: it lives in registers. */
    struct state s = {.x = seed.a, .y = seed.b, .z = len * K1};
    s.v.a = rotate(s.y ^ K1, 49) * K1 + load64(p);
    s.v.b = rotate(s.v.a, 42) * K1 + load64(p + 8);
    s.w.a = rotate(s.y + s.z, 35) * K1 + s.x;
    s.w.b = rotate(s.x + load64(p + 88), 53) * K1;
    for (; len >= 128; len -= 128, p += 128) {
        mix64(&s, p);
        mix64(&s, p + 64);
    }
    s.y += rotate(s.w.a, 37) * K0 + s.z;
    s.x += rotate(s.v.a + s.z, 49) * K0;
    /* What is left, 32 bytes at a time from the end; the last step may reach back into bytes that
     * were mixed already. */
    for (size_t done = 32; done < len + 32; done += 32) {
        const unsigned char *tail = p + len - done;
        s.y = rotate(s.y - s.x, 42) * K0 + s.v.b;
        s.w.a += load64(tail + 16);
        s.x = rotate(s.x, 49) * K0 + s.w.a;
        s.w.a += s.v.a;
        s.v = mix32(tail, s.v.a, s.v.b);
    }
    s.x = fold(s.x, s.v.a);
    s.y = fold(s.y, s.w.a);
    return (struct pair){fold(s.x + s.v.b, s.w.b) + s.y, fold(s.x + s.w.b, s.y + s.v.b)};
}

static struct pair
hash(const unsigned char *p, size_t len)
{
    if (len >= 16) {
        struct pair seed = {load64(p) ^ K3, load64(p + 8)};
        return len - 16 < 128 ? hash_short(p + 16, len - 16, seed)
                              : hash_long(p + 16, len - 16, seed);
    }
    if (len >= 8)
        return hash_short(p, 0, (struct pair){load64(p) ^ len * K0, load64(p + len - 8) ^ K1});
    return hash_short(p, len, (struct pair){K0, K1});
}

void
city_hash128(const void *p, size_t len, unsigned char out[16])
{
    struct pair h = hash(p, len);
    store64(out, h.a);
    store64(out + 8, h.b);
}
