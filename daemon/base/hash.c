#include "base/hash.h"

#include <sys/random.h>

static uint64_t seed_value = 0x9e3779b97f4a7c15u;
static uint64_t state[2] = {0x853c49e6748fea9bu, 0xda3e39cb94b95bdbu};

void
random_init(void)
{
    uint64_t fresh[3];
    if (getrandom(fresh, sizeof fresh, GRND_NONBLOCK) == (ssize_t)sizeof fresh) {
        seed_value = fresh[0];
        state[0] = fresh[1] | 1; /* both zero would be stuck */
        state[1] = fresh[2];
    }
}

uint64_t
hash_seed(void)
{
    return seed_value;
}

uint64_t
hash64(uint64_t seed, struct str s)
{
    uint64_t h = seed ^ 0xcbf29ce484222325u;
    for (size_t i = 0; i < s.len; i++)
        h = (h ^ (unsigned char)s.p[i]) * 0x100000001b3u;
    h ^= s.len;
    h = (h ^ (h >> 33)) * 0xff51afd7ed558ccdu;
    h = (h ^ (h >> 33)) * 0xc4ceb9fe1a85ec53u;
    return h ^ (h >> 33);
}

/* xorshift128+ */
uint64_t
random_u64(void)
{
    uint64_t a = state[0], b = state[1];
    state[0] = b;
    a ^= a << 23;
    state[1] = a ^ b ^ (a >> 18) ^ (b >> 5);
    return state[1] + b;
}

int64_t
random_jitter(int64_t v, int percent)
{
    int64_t span = v / 100 * percent;
    if (span <= 0)
        return v;
    return v - span + (int64_t)(random_u64() % (uint64_t)(2 * span + 1));
}

void
random_uuid(char out[UUID_LEN])
{
    static const char hex[] = "0123456789abcdef";
    uint64_t half[2] = {random_u64(), random_u64()};
    size_t at = 0;
    for (int i = 0; i < 32; i++) {
        if (i == 8 || i == 12 || i == 16 || i == 20)
            out[at++] = '-';
        unsigned digit = (unsigned)(half[i / 16] >> (i % 16 * 4)) & 15;
        if (i == 12)
            digit = 4; /* version */
        if (i == 16)
            digit = 8 | (digit & 3); /* variant */
        out[at++] = hex[digit];
    }
}
