#include "msg.h"

#include <strings.h>

enum chunk_state {
    CHUNK_FIRST_DIGIT,
    CHUNK_SIZE,
    CHUNK_EXT,
    CHUNK_DATA,
    CHUNK_END,
    CHUNK_TRAILER,
    CHUNK_TRAILER_LINE
};

static bool
field_is(const char *line, size_t n, const char *name, size_t name_len)
{
    return n > name_len && line[name_len] == ':' && strncasecmp(line, name, name_len) == 0;
}

static bool
value_has(const char *line, size_t n, const char *word, size_t word_len)
{
    for (size_t i = 0; i + word_len <= n; i++)
        if (strncasecmp(line + i, word, word_len) == 0)
            return true;
    return false;
}

#define FIELD(line, n, name) field_is((line), (n), (name), sizeof(name) - 1)
#define HAS(line, n, word)   value_has((line), (n), (word), sizeof(word) - 1)

static void
head_field(struct msg *m, const char *line, size_t n)
{
    char c = (char)(line[0] | 0x20);
    if (c != 'c' && c != 't')
        return; /* the three fields below, and most others are skipped by one byte */
    if (FIELD(line, n, "content-length") && m->framing != MSG_CHUNKED) {
        m->framing = MSG_LENGTH;
        m->left_bytes = strtoull(line + sizeof("content-length"), NULL, 10);
    } else if (FIELD(line, n, "transfer-encoding") && HAS(line, n, "chunked")) {
        m->framing = MSG_CHUNKED;
        m->left_bytes = 0;
    } else if (FIELD(line, n, "connection") && HAS(line, n, "close")) {
        m->closes = true;
    }
}

size_t
msg_head(struct msg *m, const char *p, size_t n, bool response)
{
    const char *end = memmem(p, n, "\r\n\r\n", 4);
    if (end == NULL)
        return 0;
    *m = (struct msg){.framing = response ? MSG_UNTIL_CLOSE : MSG_NONE};
    const char *line = memchr(p, '\n', n);
    if (response)
        m->status = n > 12 ? (int)strtol(p + 9, NULL, 10) : 0;
    for (line++; line < end;) {
        const char *nl = memchr(line, '\n', (size_t)(end + 2 - line));
        head_field(m, line, (size_t)(nl - line));
        line = nl + 1;
    }
    if (m->status == 204 || m->status == 304)
        m->framing = MSG_NONE;
    m->done = m->framing == MSG_NONE || (m->framing == MSG_LENGTH && m->left_bytes == 0);
    return (size_t)(end + 4 - p);
}

static int
hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static void
chunk_size_ended(struct msg *m)
{
    m->chunk_state = m->left_bytes > 0 ? CHUNK_DATA : CHUNK_TRAILER;
}

/* One framing byte. */
static void
chunk_byte(struct msg *m, char c)
{
    int d;
    switch ((enum chunk_state)m->chunk_state) {
    case CHUNK_FIRST_DIGIT:
        d = hex_digit(c);
        m->broken = d < 0;
        m->left_bytes = (uint64_t)d;
        m->chunk_state = CHUNK_SIZE;
        break;
    case CHUNK_SIZE:
        d = hex_digit(c);
        if (d >= 0)
            m->left_bytes = m->left_bytes << 4 | (uint64_t)d;
        else if (c == '\n')
            chunk_size_ended(m);
        else if (c == '\r' || c == ';')
            m->chunk_state = CHUNK_EXT;
        else
            m->broken = true;
        break;
    case CHUNK_EXT:
        if (c == '\n')
            chunk_size_ended(m);
        break;
    case CHUNK_END:
        m->broken = c != '\r' && c != '\n';
        if (c == '\n')
            m->chunk_state = CHUNK_FIRST_DIGIT;
        break;
    case CHUNK_TRAILER:
        if (c == '\n')
            m->done = true;
        else if (c != '\r')
            m->chunk_state = CHUNK_TRAILER_LINE;
        break;
    case CHUNK_TRAILER_LINE:
        if (c == '\n')
            m->chunk_state = CHUNK_TRAILER;
        break;
    case CHUNK_DATA: break; /* taken whole by msg_body() */
    }
}

static size_t
take_payload(struct msg *m, const char *p, size_t n, const char **data, size_t *data_len)
{
    size_t take = m->framing == MSG_UNTIL_CLOSE || n < m->left_bytes ? n : (size_t)m->left_bytes;
    if (m->framing != MSG_UNTIL_CLOSE)
        m->left_bytes -= take;
    m->body_bytes += take;
    *data = p;
    *data_len = take;
    return take;
}

size_t
msg_body(struct msg *m, const char *p, size_t n, const char **data, size_t *data_len)
{
    *data_len = 0;
    if (m->framing == MSG_CHUNKED && m->chunk_state != CHUNK_DATA) {
        size_t used = 0;
        while (used < n && m->chunk_state != CHUNK_DATA && !m->done && !m->broken)
            chunk_byte(m, p[used++]);
        return used;
    }
    size_t take = take_payload(m, p, n, data, data_len);
    if (m->framing == MSG_CHUNKED && m->left_bytes == 0)
        m->chunk_state = CHUNK_END;
    else if (m->framing == MSG_LENGTH && m->left_bytes == 0)
        m->done = true;
    return take;
}

bool
msg_eof(struct msg *m)
{
    if (m->framing == MSG_UNTIL_CLOSE)
        m->done = true;
    return m->done;
}
