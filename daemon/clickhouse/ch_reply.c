#include "clickhouse/ch.h"

#include "base/check.h"

#define NATIVE_EXCEPTION 2 /* server packet */

/* The one wording, used once to measure and once to write. */
#define BODY_FMT "Code: %d. DB::Exception: chmux: %s%s%s. (%s)\n"
#define BODY_ARGS(i, detail)                                                                       \
    (i)->code, (i)->text, detail[0] != '\0' ? ": " : "", detail, (i)->code_name

void
ch_error_body(struct buf *out, enum err e, const char *detail)
{
    const struct err_info *i = err_info(e);
    const char *more = detail == NULL ? "" : detail;
    buf_addf(out, BODY_FMT, BODY_ARGS(i, more));
}

static int
error_body_len(const struct err_info *i, const char *detail)
{
    const char *more = detail == NULL ? "" : detail;
    return snprintf(NULL, 0, BODY_FMT, BODY_ARGS(i, more));
}

void
ch_error_response(
    struct buf *out, enum err e, const char *detail, int minor, bool keep_alive, bool head)
{
    const struct err_info *i = err_info(e);
    buf_addf(out,
        "HTTP/1.%d %d %s\r\n"
        "Content-Type: text/plain; charset=UTF-8\r\n"
        "X-ClickHouse-Exception-Code: %d\r\n"
        "X-Chmux-Error: %s\r\n",
        minor == 0 ? 0 : 1, i->status, http_reason(i->status), i->code, i->token);
    if (i->retry_after_s > 0)
        buf_addf(out, "Retry-After: %d\r\n", i->retry_after_s);
    buf_addf(out, "Content-Length: %d\r\nConnection: %s\r\n\r\n", error_body_len(i, detail),
        keep_alive ? "Keep-Alive" : "close");
    if (!head)
        ch_error_body(out, e, detail);
}

static void
add_native_text(struct buf *out, struct str prefix, struct str s)
{
    for (size_t len = prefix.len + s.len;; len >>= 7) {
        unsigned char c = (unsigned char)((len & 0x7f) | (len > 0x7f ? 0x80 : 0));
        buf_add(out, &c, 1);
        if (len <= 0x7f)
            break;
    }
    buf_str(out, prefix);
    buf_str(out, s);
}

void
ch_native_exception(struct buf *out, int code, const char *message)
{
    uint32_t n = (uint32_t)code;
    const unsigned char head[] = {NATIVE_EXCEPTION, (unsigned char)(n & 0xff),
        (unsigned char)(n >> 8 & 0xff), (unsigned char)(n >> 16 & 0xff), (unsigned char)(n >> 24)};
    buf_add(out, head, sizeof(head));
    add_native_text(out, STR_NULL, STR("DB::Exception"));
    add_native_text(out, STR("DB::Exception: "), str_of(message));
    add_native_text(out, STR_NULL, STR_NULL); /* no stack trace */
    buf_add(out, "", 1);                      /* no nested exception */
}
