#ifndef CHMUX_BENCH_MSG_H
#define CHMUX_BENCH_MSG_H
/*
 * msg: reads one HTTP/1.1 message, request or response, from bytes as they arrive. Made for speed
 * and for what the bench itself sends; it is no validator, but it never calls a message complete
 * that is not.
 *
 * Ownership  Nothing is kept: the head must be whole in the buffer given to msg_head().
 */
#include "base/base.h"

enum msg_framing { MSG_NONE, MSG_LENGTH, MSG_CHUNKED, MSG_UNTIL_CLOSE };

struct msg {
    int status; /* responses; 0 for a request */
    enum msg_framing framing;
    bool closes;         /* Connection: close */
    bool done;           /* framing says the message is complete */
    bool broken;         /* bad chunk syntax */
    uint64_t left_bytes; /* of the length or of the open chunk */
    uint64_t body_bytes; /* payload seen */
    int chunk_state;     /* private */
};

/* Bytes of the head with its blank line, or 0 while incomplete. response: first line is a status
 * line, and no framing field means until close. */
MUST_USE size_t msg_head(struct msg *m, const char *p, size_t n, bool response);
/* One step over body bytes: consumes some (returned, > 0 while n > 0 and not done or broken) and
 * points *data, *data_len at the payload among them (*data_len 0 for framing bytes). */
MUST_USE size_t msg_body(
    struct msg *m, const char *p, size_t n, const char **data, size_t *data_len);
/* EOF came: true when the message is complete by that or already was. */
MUST_USE bool msg_eof(struct msg *m);
#endif
