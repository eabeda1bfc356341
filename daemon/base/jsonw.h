#ifndef CHMUX_BASE_JSONW_H
#define CHMUX_BASE_JSONW_H
/*
 * jsonw: writes JSON text into a buf, piece by piece: no tree, no memory of its own.
 *
 * Text       One line. Strings are always valid UTF-8: control characters, C1 ones too, are
 * escaped, so that no terminal obeys them; bytes that are no UTF-8 become U+FFFD. Keys       Inside
 * an object every call names its key (a literal that needs no escaping); inside an array and at the
 * top the key is NULL. Bound      The buf's. A long list is written item by item between
 * jsonw_mark() and jsonw_keep(), and is cut where the room ends.
 */
#include "base/buf.h"

#define JSONW_DEPTH_MAX 32

struct jsonw { /* fields are the writer's */
    struct buf *out;
    unsigned depth;
    uint32_t is_array; /* one bit per depth */
    bool comma;        /* something stands before the next value */
};

void jsonw_init(struct jsonw *j, struct buf *out);
void jsonw_object(struct jsonw *j, const char *key);
void jsonw_array(struct jsonw *j, const char *key);
/* Closes what was opened last. */
void jsonw_end(struct jsonw *j);
void jsonw_str(struct jsonw *j, const char *key, struct str s);
void jsonw_text(struct jsonw *j, const char *key, const char *z); /* NULL: null */
void jsonw_int(struct jsonw *j, const char *key, int64_t n);
void jsonw_uint(struct jsonw *j, const char *key, uint64_t n);
void jsonw_bool(struct jsonw *j, const char *key, bool b);
void jsonw_null(struct jsonw *j, const char *key);
/* Microseconds, as milliseconds with three decimals. */
void jsonw_ms(struct jsonw *j, const char *key, int64_t us);
/* Everything is closed, and it all fitted. */
bool jsonw_whole(const struct jsonw *j);

/* A place to go back to. */
struct jsonw_place {
    size_t len;
    unsigned depth;
    bool comma;
};
struct jsonw_place jsonw_mark(const struct jsonw *j);
/* true: what was written since the mark fitted, and `room` bytes more would. false: it is taken
 * back, and the buf can be written to again. Where the last mark was kept with some room, that room
 * is there still. */
MUST_USE bool jsonw_keep(struct jsonw *j, const struct jsonw_place *mark, size_t room);
#endif
