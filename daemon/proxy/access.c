/*
 * access: one line per request, when asked for. Secrets in the URL are masked; bodies never appear.
 */
#include "proxy/proxy_impl.h"

#include "base/no_block.h"

#define TARGET_MAX 1024

static int64_t
since_us(struct mono from, struct mono to)
{
    return from.us == 0 ? -1 : mono_diff_us(to, from);
}

/* Method and target out of the first line of what ClickHouse got. */
static void
split_line(struct str head, struct str *method, struct str *target)
{
    ssize_t sp = str_find(head, ' ');
    *method = str_n(head.p, sp < 0 ? 0 : (size_t)sp);
    struct str rest = str_n(head.p + method->len, head.len - method->len);
    if (rest.len > 0)
        rest = str_n(rest.p + 1, rest.len - 1);
    sp = str_find(rest, ' ');
    *target = str_n(rest.p, sp < 0 ? 0 : (size_t)sp);
}

void
ex_access_log(const struct exchange *ex, bool complete)
{
    const struct proxy *px = ex->px;
    if (!px->cfg->log.access)
        return;
    struct str method, target;
    split_line(str_n(ex->head.p, ex->head.len), &method, &target);
    struct buf masked;
    buf_init(&masked, TARGET_MAX * 4);
    ch_mask_target(&masked, target, TARGET_MAX);
    struct mono now = loop_now(px->loop);
    const struct tls_peer *cert = ex->client->cert;
    const char *error = ex->err != ERR_OK ? err_info(ex->err)->token : "";
    struct log_field f[] = {
        {.key = "id", .kind = LOG_NUM, .n = (int64_t)ex->id},
        {.key = "client", .kind = LOG_NUM, .n = (int64_t)ex->client->id},
        {.key = "user", .kind = LOG_STR, .s = str_n(ex->ch.user, ex->ch.user_len)},
        {.key = "query_id", .kind = LOG_STR, .s = str_n(ex->ch.query_id, ex->ch.query_id_len)},
        {.key = "method", .kind = LOG_STR, .s = method},
        {.key = "target", .kind = LOG_STR, .s = str_n(masked.p, masked.len)},
        {.key = "status", .kind = LOG_NUM, .n = ex->down_bytes > 0 ? ex->status.code : 0},
        {.key = "exception", .kind = LOG_NUM, .n = ex->exception_code},
        {.key = "complete", .kind = LOG_NUM, .n = complete},
        {.key = "bytes_in", .kind = LOG_NUM, .n = (int64_t)ex->up_bytes},
        {.key = "bytes_out", .kind = LOG_NUM, .n = (int64_t)ex->down_bytes},
        {.key = "queue_us",
            .kind = LOG_NUM,
            .n = since_us(ex->start, ex->leased.us == 0 ? now : ex->leased)},
        {.key = "upstream_us",
            .kind = LOG_NUM,
            .n = ex->first.us == 0 ? -1 : since_us(ex->leased, ex->first)},
        {.key = "total_us", .kind = LOG_NUM, .n = since_us(ex->start, now)},
        {.key = "reused", .kind = LOG_NUM, .n = ex->reused},
        {.key = "retried", .kind = LOG_NUM, .n = ex->retried},
        {.key = "error", .kind = LOG_STR, .s = str_of(error)},
        {.key = "cert", .kind = LOG_STR, .s = str_of(cert == NULL ? "" : cert->subject)},
    };
    /* Most have none, and need not be told so in every line. */
    size_t count = COUNT_OF(f) - (cert == NULL);
    log_fields(LOG_INFO, "access", f, count);
    buf_fini(&masked);
}
