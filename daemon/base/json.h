#ifndef CHMUX_BASE_JSON_H
#define CHMUX_BASE_JSON_H
/*
 * json: writes JSON text into a buf, piece by piece: no tree, no memory of its own.
 *
 * Text       One line. Strings are always valid UTF-8: control characters, C1 ones too, are
 * escaped, so that no terminal obeys them; bytes that are no UTF-8 become U+FFFD. Keys       Inside
 * an object every call names its key (a literal that needs no escaping); inside an array and at the
 * top the key is NULL. Bound      The buf's. A long list is written item by item between
 * json_mark() and json_keep(), and is cut where the room ends.
 */
#include "base/buf.h"

#define JSON_DEPTH_MAX 32

struct json { /* fields are the writer's */
    struct buf *out;
    unsigned depth;
    uint32_t is_array; /* one bit per depth */
    bool comma;        /* something stands before the next value */
};

void json_init(struct json *j, struct buf *out);
void json_object(struct json *j, const char *key);
void json_array(struct json *j, const char *key);
/* Closes what was opened last. */
void json_end(struct json *j);
void json_str(struct json *j, const char *key, struct str s);
void json_text(struct json *j, const char *key, const char *z); /* NULL: null */
void json_int(struct json *j, const char *key, int64_t n);
void json_uint(struct json *j, const char *key, uint64_t n);
void json_bool(struct json *j, const char *key, bool b);
void json_null(struct json *j, const char *key);
/* Microseconds, as milliseconds with three decimals. */
void json_ms(struct json *j, const char *key, int64_t us);
/* Everything is closed, and it all fitted. */
bool json_whole(const struct json *j);

/* A place to go back to. */
struct json_place {
    size_t len;
    unsigned depth;
    bool comma;
};
struct json_place json_mark(const struct json *j);
/* true: what was written since the mark fitted, and `room` bytes more would. false: it is taken
 * back, and the buf can be written to again. Where the last mark was kept with some room, that room
 * is there still. */
MUST_USE bool json_keep(struct json *j, const struct json_place *mark, size_t room);
#endif
