#include "base/thread.h"

struct thr_role loop_thread;
struct thr_role worker_thread;
_Thread_local enum thr_kind thr_self = THR_NONE;

void
thr_become(enum thr_kind kind)
{
    CHECK(thr_self == THR_NONE || thr_self == kind);
    thr_self = kind;
}
