#include "http/http.h"

#include "http/http_scan.h"

#define KEEP_ALIVE_MAX_S 86400

void
http_meta_init(struct http_meta *m)
{
    *m = (struct http_meta){.keep_alive_max = UINT64_MAX};
}

static void
add_connection(struct http_meta *m, struct str value)
{
    if (LIKELY(http_eq_lower(value, STR("keep-alive")))) { /* what nearly every peer says */
        m->conn_keep_alive = true;
        return;
    }
    struct str token;
    while (str_next_token(&value, &token)) {
        if (http_eq_lower(token, STR("close")))
            m->conn_close = true;
        else if (http_eq_lower(token, STR("keep-alive")))
            m->conn_keep_alive = true;
        else if (http_eq_lower(token, STR("upgrade")))
            m->conn_upgrade = true;
        else
            m->conn_other = true;
    }
}

/* Advice, not framing: what cannot be read counts as not said. */
static void
add_keep_alive(struct http_meta *m, struct str value)
{
    struct str param;
    while (str_next_token(&value, &param)) {
        ssize_t eq = str_find(param, '=');
        if (eq < 0)
            continue;
        struct str name = str_trim(str_n(param.p, (size_t)eq));
        struct str number = str_trim(str_n(param.p + eq + 1, param.len - (size_t)eq - 1));
        uint64_t v;
        if (!str_to_u64(number, INT64_MAX, &v))
            continue;
        if (http_eq_lower(name, STR("max"))) {
            m->keep_alive_max = v;
        } else if (http_eq_lower(name, STR("timeout"))) {
            m->keep_alive_timeout_s = v < KEEP_ALIVE_MAX_S ? v : KEEP_ALIVE_MAX_S;
            if (v == 0)
                m->keep_alive_max = 0;
        }
    }
}

/* A tab beside the value is legal, but parsers differ over it, and these lines pass as they are. */
static bool
has_tab(const struct http_field *f)
{
    return str_find(f->line, '\t') >= 0;
}

static enum err
add_content_length(struct http_meta *m, const struct http_field *f)
{
    if (m->has_length || has_tab(f) || !str_to_u64(f->value, INT64_MAX, &m->content_length))
        return ERR_BAD_REQUEST;
    m->has_length = true;
    return ERR_OK;
}

static void
add_upgrade(struct http_meta *m, struct str value)
{
    struct str token;
    while (str_next_token(&value, &token))
        if (http_eq_lower(token, STR("websocket")))
            m->upgrade_websocket = true;
}

enum err
http_meta_add(struct http_meta *m, const struct http_field *f)
{
    switch (f->id) {
    case HTTP_F_CONTENT_LENGTH: return add_content_length(m, f);
    case HTTP_F_TRANSFER_ENCODING:
        /* Two fields are one list, and a list is not exactly "chunked". */
        m->te_chunked = !m->has_te && !has_tab(f) && http_eq_lower(f->value, STR("chunked"));
        m->has_te = true;
        break;
    case HTTP_F_CONNECTION: add_connection(m, f->value); break;
    case HTTP_F_KEEP_ALIVE: add_keep_alive(m, f->value); break;
    case HTTP_F_UPGRADE: add_upgrade(m, f->value); break;
    case HTTP_F_EXPECT:
        if (http_eq_lower(f->value, STR("100-continue")))
            m->expect_continue = true;
        else
            m->expect_other = true;
        break;
    case HTTP_F_OTHER:
    case HTTP_F_PROXY_CONNECTION:
    case HTTP_F_PROXY_AUTHENTICATE:
    case HTTP_F_PROXY_AUTHORIZATION:
    case HTTP_F_TE:
    case HTTP_F_TRAILER:
    case HTTP_F_CONTENT_TYPE:
    case HTTP_F_CONTENT_ENCODING:
    case HTTP_F_ACCEPT_ENCODING:
    case HTTP_F_HOST:
    case HTTP_F_AUTHORIZATION:
    case HTTP_F_CH_USER:
    case HTTP_F_CH_KEY:
    case HTTP_F_CH_QUERY_ID:
    case HTTP_F_CH_QUOTA:
    case HTTP_F_CH_DATABASE:
    case HTTP_F_CH_CERT_AUTH:
    case HTTP_F_CH_PROGRESS:
    case HTTP_F_CH_EXCEPTION:
    case HTTP_F_CHMUX_COMPRESSION:
    case HTTP_F_COUNT: break;
    }
    return ERR_OK;
}

bool
http_is_hop_by_hop(enum http_field_id id)
{
    const uint32_t set = 1u << HTTP_F_CONNECTION | 1u << HTTP_F_KEEP_ALIVE |
                         1u << HTTP_F_PROXY_CONNECTION | 1u << HTTP_F_PROXY_AUTHENTICATE |
                         1u << HTTP_F_PROXY_AUTHORIZATION | 1u << HTTP_F_TE |
                         1u << HTTP_F_TRANSFER_ENCODING | 1u << HTTP_F_UPGRADE |
                         1u << HTTP_F_CHMUX_COMPRESSION; /* said to us alone */
    return (set >> id & 1) != 0;
}

bool
http_conn_lists(struct str connection_value, struct str name)
{
    enum http_field_id id = http_field_lookup(name);
    if (id == HTTP_F_CONTENT_LENGTH || id == HTTP_F_TRANSFER_ENCODING)
        return false;
    struct str token;
    while (str_next_token(&connection_value, &token))
        if (str_eq_nocase(token, name))
            return true;
    return false;
}
