#ifndef CHMUX_BASE_HASH_H
#define CHMUX_BASE_HASH_H
/*
 * hash: a seeded 64-bit hash (FNV-1a with a final mix) for tables and flow keys, and the process's
 * source of random numbers for jitter and identifiers. Not for secrets.
 * Threads: hash64 any; random_* loop only once random_init() ran.
 */
#include "base/str.h"

/* Seeds both from the kernel. Call once at boot. */
void random_init(void);
uint64_t hash64(uint64_t seed, struct str s);
uint64_t hash_seed(void); /* different in each process */
uint64_t random_u64(void);
/* v +- percent. */
int64_t random_jitter(int64_t v, int percent);
#define UUID_LEN 36
/* A version 4 UUID, not terminated. */
void random_uuid(char out[UUID_LEN]);
#endif
