#ifndef CHMUX_BASE_CHECK_H
#define CHMUX_BASE_CHECK_H
/*
 * check: assertions that are on in every build, the shipped one included.
 *
 * CHECK   an invariant of our own. Never for what a peer, a file or memory does.
 * DCHECK  the same where checking costs O(n): only with CHMUX_DEBUG.
 * NEVER   marks a branch kept as defence only; debug builds trap in it.
 * OBJ_CAST turns a void * back into an object and checks its magic number first.
 *
 * A failed check prints file, line, expression, thread and what check_set_dump() prints, then
 * aborts.
 */
#include "base/base.h"

#define CHECK(x) ((void)(LIKELY(x) || (check_failed(__FILE__, __LINE__, #x), 0)))
#ifdef CHMUX_DEBUG
#define DCHECK(x) CHECK(x)
#define NEVER(x)  (UNLIKELY(x) ? (check_failed(__FILE__, __LINE__, "NEVER: " #x), 1) : 0)
#else
#define DCHECK(x) ((void)0)
#define NEVER(x)  UNLIKELY(x)
#endif

/* Objects that travel through void * have `uint32_t magic` as a field. */
#define OBJ_INIT(p, m)  ((p)->magic = (m))
#define OBJ_CHECK(p, m) CHECK((p) != NULL && (p)->magic == (m))
#define OBJ_POISON(p)   ((p)->magic = 0xdeadbeefu)
#define OBJ_CAST(type, ptr, m)                                                                     \
    ((type *)check_magic(ptr, offsetof(type, magic), (m), __FILE__, __LINE__))

NO_RETURN void check_failed(const char *file, int line, const char *expr);
/* fn is called once, from the failing thread, before the abort; it may only write to stderr. */
void check_set_dump(void (*fn)(void));

static inline void *
check_magic(void *p, size_t at, uint32_t want, const char *file, int line)
{
    if (UNLIKELY(p == NULL || *(uint32_t *)(void *)((char *)p + at) != want))
        check_failed(file, line, "object magic");
    return p;
}
#endif
