#include "admin/admin_route.h"

#include "clickhouse/ch.h"
#include "net/addr.h"

#include "base/no_block.h"

#define ARG_VALUE_MAX 64

const struct admin_command admin_commands[ADMIN_COMMAND_COUNT] = {
#define X(id, path, method, access, args)                                                          \
    [ADMIN_##id] = {path, HTTP_M_##method, ADMIN_ACCESS_##access, args},
    ADMIN_COMMANDS(X)
#undef X
};

enum admin_access
admin_access_of(int64_t uid, int64_t own_uid)
{
    return uid == 0 || (uid >= 0 && uid == own_uid) ? ADMIN_ACCESS_CONTROL : ADMIN_ACCESS_READ;
}

static bool PRINTF_LIKE(4, 5)
    refuse(struct admin_refusal *no, int status, const char *error, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(no->message, sizeof no->message, fmt, ap);
    va_end(ap);
    no->status = status;
    no->error = error;
    return false;
}

static void PRINTF_LIKE(2, 3) allowed_by(struct admin_refusal *no, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(no->allowed_by, sizeof no->allowed_by, fmt, ap);
    va_end(ap);
}

static struct str
path_of(struct str target)
{
    ssize_t mark = str_find(target, '?');
    return mark < 0 ? target : str_n(target.p, (size_t)mark);
}

static bool
find_command(const struct http_req *r, struct admin_call *call, struct admin_refusal *no)
{
    struct str path = path_of(r->target);
    for (size_t i = 0; i < ADMIN_COMMAND_COUNT; i++) {
        if (!str_eq(path, str_of(admin_commands[i].path)))
            continue;
        call->id = (enum admin_command_id)i;
        return true;
    }
    refuse(no, 404, "not_found", "no such path: " STR_FMT,
        STR_ARG(str_n(path.p, size_min(path.len, 100))));
    allowed_by(no,
        "here are /, /live, /ready, /ready?upstream, /metrics and what GET " ADMIN_API " lists");
    return false;
}

static bool
check_method(const struct http_req *r, const struct admin_command *cmd, struct admin_refusal *no)
{
    bool get = cmd->method == HTTP_M_GET;
    if (r->method == cmd->method || (get && r->method == HTTP_M_HEAD))
        return true;
    no->allow = get ? "GET, HEAD" : "POST";
    return refuse(no, 405, "method", "%s is for %s", cmd->path, get ? "GET and HEAD" : "POST");
}

static bool
is_field(const struct http_field *f, const char *name)
{
    return str_eq_nocase(f->name, str_of(name));
}

static struct str
field_of(const struct http_req *r, const char *name)
{
    for (size_t i = 0; i < r->field_count; i++)
        if (is_field(&r->fields[i], name))
            return r->fields[i].value;
    return STR_NULL;
}

/* Against pages that a browser got from elsewhere. It may come to a unix socket too, through a
 * forwarded port; there other programs put any word into Host, but only a name with a dot can be
 * one that somebody made point here. */
static bool
check_browser(const struct http_req *r, const struct admin_command *cmd, bool is_unix,
    struct admin_refusal *no)
{
    struct str host = field_of(r, "host"), origin = field_of(r, "origin");
    no->denied = true;
    if (!addr_is_own_host(host) && (!is_unix || str_find(host, '.') >= 0)) {
        allowed_by(no, "ask for the IP address, or for localhost");
        return refuse(no, 403, "host",
            "Host is \"" STR_FMT "\", which may be a name of somebody else",
            STR_ARG(str_n(host.p, size_min(host.len, 100))));
    }
    struct str scheme = STR("http://");
    bool own = str_starts_nocase(origin, scheme) &&
               str_eq_nocase(str_n(origin.p + scheme.len, origin.len - scheme.len), host);
    if (origin.p != NULL && !own) {
        allowed_by(no, "no other origin is served");
        return refuse(no, 403, "origin", "the request comes from a page of another origin");
    }
    if (!is_unix && cmd->access == ADMIN_ACCESS_CONTROL &&
        !str_eq(field_of(r, "x-chmux-control"), STR("1"))) {
        allowed_by(no, "send the field X-Chmux-Control: 1");
        return refuse(
            no, 403, "control_field", "over TCP a command needs the field X-Chmux-Control: 1");
    }
    no->denied = false;
    return true;
}

static const char *const access_names[] = {"health", "read", "control"};

void
admin_allowed_by(
    const struct admin_command *cmd, const struct admin_caller *who, char *out, size_t out_len)
{
    out[0] = '\0';
    if (who->access >= cmd->access)
        return;
    if (who->is_unix)
        snprintf(out, out_len, "root and the user that chmuxd runs as, on this socket");
    else
        snprintf(out, out_len, "a unix socket in [admin] address; or [admin] tcp_access = %s%s",
            access_names[cmd->access],
            cmd->access == ADMIN_ACCESS_CONTROL ? ", on a loopback address" : "");
}

static bool
check_access(
    const struct admin_command *cmd, const struct admin_caller *who, struct admin_refusal *no)
{
    if (who->access >= cmd->access)
        return true;
    no->denied = true;
    admin_allowed_by(cmd, who, no->allowed_by, sizeof no->allowed_by);
    if (who->is_unix)
        return refuse(
            no, 403, "permission", "uid %" PRId64 " may look, but not change anything", who->uid);
    return refuse(
        no, 403, "permission", "this TCP address serves %s only", access_names[who->access]);
}

/* ---- arguments ---- */

/* Is name in the command's list? */
static bool
knows_arg(const char *args, const char *name)
{
    struct str list = str_of(args), token;
    while (str_next_token(&list, &token)) {
        if (token.p[0] == '!')
            token = str_n(token.p + 1, token.len - 1);
        if (str_eq(token, str_of(name)))
            return true;
    }
    return false;
}

static bool
bad_value(struct admin_refusal *no, const char *name, struct str value, const char *want)
{
    allowed_by(no, "%s", want);
    return refuse(no, 400, "argument", "%s=" STR_FMT " is not allowed", name, STR_ARG(value));
}

static bool
set_level(struct admin_call *call, struct str value)
{
    static const char *const names[] = {"error", "warn", "info", "debug"};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        if (!str_eq(value, str_of(names[i])))
            continue;
        call->level = (enum log_level)i;
        return true;
    }
    return false;
}

/* A NAME; or, for /ready, whether any is looked at. */
static void
set_upstream(struct admin_call *call, struct str value)
{
    bool ready = call->id == ADMIN_READY;
    bool flag = ready && (value.len == 0 || str_eq(value, STR("0")) || str_eq(value, STR("1")));
    call->upstream = !str_eq(value, STR("0")) || !flag;
    if (!flag)
        snprintf(call->upstream_name, sizeof call->upstream_name, STR_FMT, STR_ARG(value));
}

static bool
set_arg(struct admin_call *call, const char *name, struct str value, struct admin_refusal *no)
{
    uint64_t n = 0;
    bool flag = value.len == 0 || str_eq(value, STR("1"));
    if (strcmp(name, "limit") == 0) {
        if (!str_to_u64(value, ADMIN_LIMIT_MAX, &n))
            return bad_value(no, name, value, "a number up to 10000");
        call->limit = (size_t)n;
    } else if (strcmp(name, "id") == 0) {
        if (!str_to_u64(value, UINT64_MAX, &call->kill_id))
            return bad_value(no, name, value, "the number that GET " ADMIN_API "exchanges shows");
    } else if (strcmp(name, "level") == 0) {
        if (!set_level(call, value))
            return bad_value(no, name, value, "error, warn, info or debug");
    } else if (strcmp(name, "upstream") == 0) {
        set_upstream(call, value);
    } else if (!flag && !str_eq(value, STR("0"))) {
        return bad_value(no, name, value, "1 or 0");
    } else {
        call->now = flag;
    }
    return true;
}

/* One argument more than those that are known cannot be a repetition of none. */
#define ARGS_MAX 4

static bool
check_args(const struct http_req *r, const struct admin_command *cmd, struct admin_call *call,
    struct admin_refusal *no)
{
    struct str query = ch_target_query(r->target);
    struct ch_param p;
    char seen[ARGS_MAX][ARG_VALUE_MAX];
    size_t count = 0;
    while (ch_param_next(&query, &p)) {
        char name[ARG_VALUE_MAX], value[ARG_VALUE_MAX];
        size_t n = ch_url_decode(p.name, name, sizeof name - 1);
        size_t v = ch_url_decode(p.value, value, sizeof value - 1);
        name[size_min(n, sizeof name - 1)] = '\0';
        if (n >= sizeof name || !knows_arg(cmd->args, name)) {
            allowed_by(no, "%s takes %s%s", cmd->path,
                cmd->args[0] == '!' ? cmd->args + 1 : cmd->args,
                cmd->args[0] == '\0' ? "no argument" : "");
            return refuse(no, 400, "argument", "unknown argument: %s", name);
        }
        for (size_t i = 0; i < count; i++)
            if (strcmp(seen[i], name) == 0)
                return refuse(no, 400, "argument", "%s is there twice", name);
        CHECK(count < ARGS_MAX); /* no command has so many, and none may repeat */
        memcpy(seen[count++], name, sizeof name);
        if (v >= sizeof value)
            return refuse(no, 400, "argument", "%s is too long", name);
        if (!set_arg(call, name, str_n(value, v), no))
            return false;
    }
    if (cmd->args[0] == '!' && count == 0)
        return refuse(no, 400, "argument", "%s needs ?%s=...", cmd->path, cmd->args + 1);
    return true;
}

bool
admin_route(const struct http_req *r, const struct admin_caller *who, struct admin_call *call,
    struct admin_refusal *no)
{
    struct str api = STR(ADMIN_API);
    *call = (struct admin_call){.limit = ADMIN_LIMIT};
    *no = (struct admin_refusal){
        .json = r->target.len >= api.len && str_eq(str_n(r->target.p, api.len), api)};
    if (!find_command(r, call, no))
        return false;
    const struct admin_command *cmd = &admin_commands[call->id];
    if (!check_method(r, cmd, no) || !check_access(cmd, who, no))
        return false;
    if (cmd->access != ADMIN_ACCESS_HEALTH && !check_browser(r, cmd, who->is_unix, no))
        return false;
    bool empty = r->framing == HTTP_BODY_NONE ||
                 (r->framing == HTTP_BODY_LENGTH && r->meta.content_length == 0);
    if (!empty)
        return refuse(no, 400, "body", "no body is read here: arguments are in the URL");
    return check_args(r, cmd, call, no);
}
