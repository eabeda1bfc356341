#ifndef CHMUX_TESTS_TEST_HTTP_H
#define CHMUX_TESTS_TEST_HTTP_H
/*
 * test_http: what the http tests share. Inputs are copied to heap blocks of their exact size, so
 * that a sanitizer sees the first byte read past the end.
 */
#include "t.h"

#include "http/http.h"

/* For tables: names the row that failed. */
#define T_ROW(cond, name)                                                                          \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            print_error("row \"%s\": %s\n", (name), #cond);                                        \
            _fail(__FILE__, __LINE__);                                                             \
        }                                                                                          \
    } while (0)

/* Owned by the caller: free((void *)s.p). */
static inline struct str
tight_copy(struct str s)
{
    char *p = malloc(s.len > 0 ? s.len : 1);
    assert_non_null(p);
    if (s.len > 0)
        memcpy(p, s.p, s.len);
    return str_n(p, s.len);
}

static inline void
tight_free(struct str s)
{
    free((void *)(uintptr_t)s.p);
}

static inline bool
z_eq(const char *a, const char *b)
{
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

/* n bytes of c, owned by the caller. */
static inline char *
fill(char c, size_t n)
{
    char *p = malloc(n + 1);
    assert_non_null(p);
    memset(p, c, n);
    p[n] = '\0';
    return p;
}
#endif
