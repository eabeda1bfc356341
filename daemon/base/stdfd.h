#ifndef CHMUX_BASE_STDFD_H
#define CHMUX_BASE_STDFD_H
/*
 * stdfd: the descriptors 0, 1 and 2, for main().
 *
 * Threads  While there is one only.
 */
#include "base/base.h"

/* Opens /dev/null on those that are closed, before anything else takes their numbers: what is meant
 * for stderr would be written into a socket. false: that cannot be done. */
MUST_USE bool stdfd_fill(void);
/* Writes what stdout holds. false: it could not all be written, now or before; stderr says so, in
 * the name of `program`. */
MUST_USE bool stdfd_flush(const char *program);
#endif
