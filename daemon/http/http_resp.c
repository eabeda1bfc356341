#include "http/http.h"

#include "http/http_scan.h"

/* "HTTP/1.d ddd": what stands before the reason phrase. */
static enum http_result
parse_code(struct str s)
{
    static const char form[] = "HTTP/1.d ddd";
    for (size_t i = 0; i < sizeof(form) - 1; i++) {
        if (i == s.len)
            return HTTP_MORE;
        bool good = form[i] == 'd' ? s.p[i] >= '0' && s.p[i] <= '9' : s.p[i] == form[i];
        if (!good)
            return HTTP_BAD;
    }
    /* 100 to 599 */
    return s.p[9] >= '1' && s.p[9] <= '5' ? HTTP_OK : HTTP_BAD;
}

enum http_result
http_status_parse(struct str s, struct http_status *out, size_t *used)
{
    enum http_result res = parse_code(s);
    if (res != HTTP_OK)
        return res;
    size_t at = 12;
    if (at < s.len && s.p[at] == ' ') {
        size_t room = size_min(s.len, HTTP_MAX_STATUS_LINE);
        at += http_span_text(s.p + at, room - at);
        if (at == HTTP_MAX_STATUS_LINE)
            return HTTP_BAD;
    }
    /* Some servers leave out the space along with the reason phrase. */
    if (at == s.len)
        return HTTP_MORE;
    if (s.p[at] != '\r')
        return HTTP_BAD;
    if (at + 1 == s.len)
        return HTTP_MORE;
    if (s.p[at + 1] != '\n')
        return HTTP_BAD;
    out->code = (s.p[9] - '0') * 100 + (s.p[10] - '0') * 10 + (s.p[11] - '0');
    out->minor = s.p[7] != '0';
    *used = at + 2;
    out->line = str_n(s.p, *used);
    return HTTP_OK;
}

enum err
http_resp_framing(const struct http_meta *m, const struct http_status *status,
    enum http_method method, enum http_framing *out)
{
    int code = status->code;
    if (m->has_te && (m->has_length || !m->te_chunked || status->minor == 0))
        return ERR_UPSTREAM_BAD;
    if (method == HTTP_M_HEAD || code < 200 || code == 204 || code == 304)
        *out = HTTP_BODY_NONE;
    else if (m->has_te)
        *out = HTTP_BODY_CHUNKED;
    else
        *out = m->has_length ? HTTP_BODY_LENGTH : HTTP_BODY_CLOSE;
    return ERR_OK;
}

bool
http_resp_keep_alive(const struct http_meta *m, int minor, enum http_framing framing)
{
    return minor >= 1 && !m->conn_close && framing != HTTP_BODY_CLOSE;
}

const char *
http_reason(int status)
{
    static const struct {
        int status;
        const char *text;
    } reasons[] = {
        {100, "Continue"},
        {101, "Switching Protocols"},
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {206, "Partial Content"},
        {301, "Moved Permanently"},
        {302, "Found"},
        {303, "See Other"},
        {304, "Not Modified"},
        {307, "Temporary Redirect"},
        {308, "Permanent Redirect"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {406, "Not Acceptable"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {411, "Length Required"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {416, "Range Not Satisfiable"},
        {417, "Expectation Failed"},
        {421, "Misdirected Request"},
        {426, "Upgrade Required"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
    };
    for (size_t i = 0; i < COUNT_OF(reasons); i++)
        if (reasons[i].status == status)
            return reasons[i].text;
    return "Unknown";
}
