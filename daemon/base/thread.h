#ifndef CHMUX_BASE_THREAD_H
#define CHMUX_BASE_THREAD_H
/*
 * thread: which thread may call what.
 *
 * Each prototype above layer 1 ends in LOOP_ONLY, WORKER_ONLY or ANY_THREAD. Under clang the first
 * two are capabilities, so -Wthread-safety rejects a loop-only call from a worker at compile time.
 * Function pointers lose the mark: every callback and thread entry begins with thr_check_loop() or
 * thr_check_worker(), which also CHECK the thread-local role at run time.
 */
#include "base/check.h"

#if defined(__clang__)
#define THR_CAP(x)      __attribute__((capability(x)))
#define THR_REQUIRES(x) __attribute__((requires_capability(x)))
#define THR_ASSERTS(x)  __attribute__((assert_capability(x)))
#else
#define THR_CAP(x)
#define THR_REQUIRES(x)
#define THR_ASSERTS(x)
#endif

struct THR_CAP("role") thr_role {
    char unused;
};
extern struct thr_role loop_thread;
extern struct thr_role worker_thread;

#define LOOP_ONLY   THR_REQUIRES(loop_thread)
#define WORKER_ONLY THR_REQUIRES(worker_thread)
#define ANY_THREAD

enum thr_kind { THR_NONE, THR_LOOP, THR_WORKER, THR_LOG };
extern _Thread_local enum thr_kind thr_self;

/* Called once by each thread as it starts. */
void thr_become(enum thr_kind kind);

static inline void
thr_check_loop(void) THR_ASSERTS(loop_thread)
{
    CHECK(thr_self == THR_LOOP);
}

static inline void
thr_check_worker(void) THR_ASSERTS(worker_thread)
{
    CHECK(thr_self == THR_WORKER);
}
#endif
