#ifndef CHMUX_BASE_BASE_H
#define CHMUX_BASE_BASE_H
/*
 * base: what every file may use: the C library's common headers, attributes, and the functions
 * nobody may call. Own headers come first in every file, so it stands before any other system
 * header.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#define MUST_USE               __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define NO_RETURN              __attribute__((noreturn))
#define FALLTHROUGH            __attribute__((fallthrough)) /* clang does not read comments */
#define COUNT_OF(a)            (sizeof(a) / sizeof((a)[0]))
#define LIKELY(x)              __builtin_expect(!!(x), 1)
#define UNLIKELY(x)            __builtin_expect(!!(x), 0)
/* The struct that holds the member p points at. */
#define CONTAINER_OF(p, type, member) ((type *)(void *)((char *)(p)-offsetof(type, member)))

static inline size_t
size_min(size_t a, size_t b)
{
    return a < b ? a : b;
}

static inline size_t
size_max(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Some are macros under FORTIFY with clang, and a macro cannot be poisoned. */
#undef strcpy
#undef strcat
#undef sprintf
#undef vsprintf
#undef gets
#pragma GCC poison strcpy strcat sprintf vsprintf strtok atoi atol gets
#endif
