#include "config/config_value.h"

#include "base/check.h"
#include "base/ip_net.h"
#include "config/config_parse.h"

char *
config_strdup(struct str s)
{
    char *z = mem_alloc(s.len + 1);
    if (z == NULL)
        return NULL;
    if (s.len > 0)
        memcpy(z, s.p, s.len);
    z[s.len] = '\0';
    return z;
}

const char *
config_quote(struct str s, char out[CONFIG_QUOTE_MAX])
{
    static const char dots[] = "...";
    const size_t room = CONFIG_QUOTE_MAX - 3; /* quotes and NUL */
    bool cut = s.len > room;
    size_t n = cut ? room - (sizeof(dots) - 1) : s.len;
    /* Not in the middle of a UTF-8 character. */
    while (cut && n > 0 && ((unsigned char)s.p[n] & 0xc0) == 0x80)
        n--;
    char *w = out;
    *w++ = '"';
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        *w++ = c < 0x20 || c == 0x7f ? '?' : s.p[i];
    }
    if (cut) {
        memcpy(w, dots, sizeof(dots) - 1);
        w += sizeof(dots) - 1;
    }
    *w++ = '"';
    *w = '\0';
    return out;
}

static enum config_set PRINTF_LIKE(2, 3) bad(char why[CONFIG_WHY_MAX], const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, CONFIG_WHY_MAX, fmt, ap);
    va_end(ap);
    return CONFIG_SET_BAD;
}

/* An INT whose default is the word auto may be set to it. */
static bool
takes_auto(const struct config_opt *opt)
{
    return opt->type == CONFIG_INT && strcmp(opt->def, "auto") == 0;
}

void
config_value_allowed(const struct config_opt *opt, char out[CONFIG_WHY_MAX])
{
    out[0] = '\0';
    size_t n = 0;
    switch (opt->type) {
    case CONFIG_BOOL: snprintf(out, CONFIG_WHY_MAX, "yes or no"); break;
    case CONFIG_INT:
    case CONFIG_SIZE:
    case CONFIG_DURATION:
        snprintf(out, CONFIG_WHY_MAX, "%s%s to %s", takes_auto(opt) ? "auto, or " : "", opt->min,
            opt->max);
        break;
    case CONFIG_ENUM:
        for (size_t i = 0; opt->words[i] != NULL; i++) {
            const char *join = i == 0 ? "" : opt->words[i + 1] == NULL ? " or " : ", ";
            int len = snprintf(out + n, CONFIG_WHY_MAX - n, "%s%s", join, opt->words[i]);
            n = size_min(n + (size_t)len, CONFIG_WHY_MAX - 1);
        }
        break;
    case CONFIG_STRING:
    case CONFIG_PATH:
    case CONFIG_LIST:
    case CONFIG_PAIRS: break;
    }
}

/* A number of any of the three types; bounds compare as 64 bits. */
static enum config_unit
read_number(enum config_type type, struct str text, int64_t *out)
{
    uint64_t u = 0;
    size_t bytes = 0;
    enum config_unit r;
    if (type == CONFIG_DURATION)
        return config_read_duration(text, out);
    if (type == CONFIG_SIZE) {
        r = config_read_size(text, &bytes);
        u = bytes;
    } else if (str_to_u64(text, INT64_MAX, &u)) {
        r = CONFIG_UNIT_OK;
    } else {
        size_t digits = 0;
        while (digits < text.len && text.p[digits] >= '0' && text.p[digits] <= '9')
            digits++;
        r = digits > 0 && digits == text.len ? CONFIG_UNIT_TOO_LARGE : CONFIG_UNIT_NO_NUMBER;
    }
    if (r == CONFIG_UNIT_OK)
        *out = (int64_t)u;
    return r;
}

static enum config_set
set_number(const struct config_opt *opt, void *field, struct str text, char why[CONFIG_WHY_MAX])
{
    const char *units = opt->type == CONFIG_DURATION ? "us, ms, s, m, h, d" : "b, k, m, g, t";
    char q[CONFIG_QUOTE_MAX], allowed[CONFIG_WHY_MAX];
    int64_t v = 0, min = 0, max = 0;
    CHECK(read_number(opt->type, str_of(opt->min), &min) == CONFIG_UNIT_OK);
    CHECK(read_number(opt->type, str_of(opt->max), &max) == CONFIG_UNIT_OK);
    if (takes_auto(opt) && str_eq_nocase(text, STR("auto"))) {
        v = CONFIG_AUTO;
        memcpy(field, &v, sizeof(v));
        return CONFIG_SET_OK;
    }
    config_quote(text, q);
    config_value_allowed(opt, allowed);
    switch (read_number(opt->type, text, &v)) {
    case CONFIG_UNIT_NO_NUMBER:
        if (opt->type == CONFIG_INT)
            return bad(why, "%s is not a whole number; %s is allowed", q, allowed);
        return bad(why, "%s is not a number with a unit (%s); %s is allowed", q, units, allowed);
    case CONFIG_UNIT_MISSING:
        return bad(why, "%s has no unit (%s); %s is allowed", q, units, allowed);
    case CONFIG_UNIT_UNKNOWN:
        return bad(why, "%s has a unit that is not one of %s; %s is allowed", q, units, allowed);
    case CONFIG_UNIT_TOO_LARGE: return bad(why, "%s is too large; %s is allowed", q, allowed);
    case CONFIG_UNIT_OK: break;
    }
    if (v < min || v > max)
        return bad(why, "%s is too %s; %s is allowed", q, v < min ? "small" : "large", allowed);
    if (opt->type == CONFIG_SIZE) {
        size_t bytes = (size_t)v;
        memcpy(field, &bytes, sizeof(bytes));
    } else {
        memcpy(field, &v, sizeof(v));
    }
    return CONFIG_SET_OK;
}

static enum config_set
set_bool(void *field, struct str text, char why[CONFIG_WHY_MAX])
{
    static const char *const words[] = {"no", "yes", "false", "true", "off", "on", "0", "1"};
    char q[CONFIG_QUOTE_MAX];
    for (size_t i = 0; i < COUNT_OF(words); i++) {
        bool v = i % 2 == 1;
        if (!str_eq_nocase(text, str_of(words[i])))
            continue;
        memcpy(field, &v, sizeof(v));
        return CONFIG_SET_OK;
    }
    return bad(why, "%s is neither yes nor no; yes or no is allowed", config_quote(text, q));
}

static enum config_set
set_enum(const struct config_opt *opt, void *field, struct str text, char why[CONFIG_WHY_MAX])
{
    char q[CONFIG_QUOTE_MAX], allowed[CONFIG_WHY_MAX];
    for (unsigned i = 0; opt->words[i] != NULL; i++) {
        if (!str_eq_nocase(text, str_of(opt->words[i])))
            continue;
        /* Every enum of the table has the width of int; config_structs.h declares no others. */
        memcpy(field, &i, sizeof(i));
        return CONFIG_SET_OK;
    }
    config_value_allowed(opt, allowed);
    return bad(why, "%s is not known; %s is allowed", config_quote(text, q), allowed);
}
_Static_assert(sizeof(enum host_header) == sizeof(unsigned), "set_enum writes an unsigned");
_Static_assert(sizeof(enum on_disconnect) == sizeof(unsigned), "set_enum writes an unsigned");
_Static_assert(sizeof(enum tls_version) == sizeof(unsigned), "set_enum writes an unsigned");
_Static_assert(sizeof(enum local_auth) == sizeof(unsigned), "set_enum writes an unsigned");
_Static_assert(sizeof(enum admin_access) == sizeof(unsigned), "set_enum writes an unsigned");
_Static_assert(sizeof(enum log_level) == sizeof(unsigned), "set_enum writes an unsigned");
_Static_assert(sizeof(enum log_format) == sizeof(unsigned), "set_enum writes an unsigned");

static void
list_fini(struct config_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        mem_free(list->item[i]);
    mem_free(list->item);
    *list = (struct config_list){0};
}

static enum config_set
set_list(void *field, struct str text)
{
    struct config_list list = {0}, old;
    struct str rest = text, token;
    size_t count = 0;
    while (str_next_token(&rest, &token))
        count++;
    if (count > 0) {
        list.item = mem_zalloc(count * sizeof(list.item[0]));
        if (list.item == NULL)
            return CONFIG_SET_NOMEM;
    }
    rest = text;
    while (str_next_token(&rest, &token)) {
        list.item[list.count] = config_strdup(token);
        if (list.item[list.count] == NULL) {
            list_fini(&list);
            return CONFIG_SET_NOMEM;
        }
        list.count++;
    }
    memcpy(&old, field, sizeof(old));
    list_fini(&old);
    memcpy(field, &list, sizeof(list));
    return CONFIG_SET_OK;
}

static enum config_set
set_string(void *field, struct str text)
{
    char *copy = config_strdup(text), *old;
    if (copy == NULL)
        return CONFIG_SET_NOMEM;
    memcpy(&old, field, sizeof(old));
    mem_free(old);
    memcpy(field, &copy, sizeof(copy));
    return CONFIG_SET_OK;
}

/* Rules of single options, beyond their type. */
static bool
check_urls(struct str text, char why[CONFIG_WHY_MAX])
{
    struct config_url url;
    struct str token, rest = text;
    bool any = false;
    while (str_next_token(&rest, &token)) {
        if (!config_parse_url(token, &url, why, CONFIG_WHY_MAX)) {
            /* A password with a comma in it: this piece would show its first half. */
            if (str_find(token, '@') < 0 && str_find(text, '@') >= 0)
                (void)bad(why, "a URL with a user name or password; leave it out, clients send "
                               "their own");
            return false;
        }
        any = true;
    }
    if (!any)
        (void)bad(why, "no URL is given; write http://HOST:PORT or https://HOST:PORT");
    return any;
}

static bool
check_address(struct str text, char why[CONFIG_WHY_MAX])
{
    struct config_address a;
    return text.len == 0 || config_parse_address(text, &a, why, CONFIG_WHY_MAX);
}

static bool
check_admin_addresses(struct str text, char why[CONFIG_WHY_MAX])
{
    struct str token, rest = text;
    size_t count = 0;
    while (str_next_token(&rest, &token)) {
        if (!check_address(token, why))
            return false;
        count++;
    }
    if (count <= CONFIG_MAX_ADMIN)
        return true;
    (void)bad(why, "%zu addresses; at most %d are allowed", count, CONFIG_MAX_ADMIN);
    return false;
}

static bool
check_networks(struct str text, char why[CONFIG_WHY_MAX])
{
    char q[CONFIG_QUOTE_MAX];
    struct str token, rest = text;
    for (size_t count = 0; str_next_token(&rest, &token);) {
        struct ip_net net;
        const char *reason = "is one too many; at most 64 are allowed";
        _Static_assert(CONFIG_MAX_NETS == 64, "as it says");
        if (++count <= CONFIG_MAX_NETS && ip_net_parse(token, &net, &reason))
            continue;
        (void)bad(why, "%s %s", config_quote(token, q), reason);
        return false;
    }
    return true;
}

/* It goes into Authorization: Basic, where a ':' ends it. */
static bool
check_upstream_user(struct str text, char why[CONFIG_WHY_MAX])
{
    if (str_find(text, ':') < 0)
        return true;
    (void)bad(why, "the name holds a ':'; no such name can be sent");
    return false;
}

static bool
check_mode(struct str text, char why[CONFIG_WHY_MAX])
{
    char q[CONFIG_QUOTE_MAX];
    unsigned mode;
    if (config_parse_mode(text, &mode))
        return true;
    (void)bad(
        why, "%s is not octal permission bits; 0000 to 0777 is allowed", config_quote(text, q));
    return false;
}

/* The name goes into SNI and is compared with the certificate: never a URL or HOST:PORT. */
static bool
check_server_name(struct str text, char why[CONFIG_WHY_MAX])
{
    char q[CONFIG_QUOTE_MAX];
    for (size_t i = 0; i < text.len; i++) {
        if (strchr("/@?# \t", text.p[i]) == NULL)
            continue;
        (void)bad(why, "%s is not a host name; a name or an IP address is allowed",
            config_quote(text, q));
        return false;
    }
    return true;
}

static const struct {
    enum config_section_index section;
    const char *key;
    bool (*check)(struct str text, char why[CONFIG_WHY_MAX]);
} rules[] = {
    {CONFIG_SECTION_upstream, "url", check_urls},
    {CONFIG_SECTION_upstream, "tls_server_name", check_server_name},
    {CONFIG_SECTION_listen, "address", check_address},
    {CONFIG_SECTION_listen, "mode", check_mode},
    {CONFIG_SECTION_listen, "allow", check_networks},
    {CONFIG_SECTION_user, "upstream_user", check_upstream_user},
    {CONFIG_SECTION_admin, "address", check_admin_addresses},
    {CONFIG_SECTION_admin, "mode", check_mode},
};

static bool
is_space(char c)
{
    return c == ' ' || c == '\t';
}

/* What a line of a file could not carry is refused from the environment and flags as well, so that
 * --print-config can always write a file that says the same. */
bool
config_check_text(struct str text, char why[CONFIG_WHY_MAX])
{
    if (text.len > CONFIG_VALUE_MAX) {
        (void)bad(
            why, "the value has %zu bytes; at most %d are allowed", text.len, CONFIG_VALUE_MAX);
        return false;
    }
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.p[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            (void)bad(why, "the value holds a control character (byte 0x%02x)", c);
            return false;
        }
        if ((c == ';' || c == '#') && (i == 0 || is_space(text.p[i - 1]))) {
            (void)bad(why,
                "\"%c\" at the start or after a space is not allowed in a value; a comment behind "
                "a value begins with a space and \";\"",
                c);
            return false;
        }
    }
    return true;
}

enum config_set
config_value_set(const struct config_section *sec, const struct config_opt *opt, void *base,
    struct str text, char why[CONFIG_WHY_MAX])
{
    void *field = (char *)base + opt->offset;
    text = str_trim(text);
    if (!config_check_text(text, why))
        return CONFIG_SET_BAD;
    for (size_t i = 0; i < COUNT_OF(rules); i++)
        if (&config_sections[rules[i].section] == sec && strcmp(rules[i].key, opt->key) == 0 &&
            !rules[i].check(text, why))
            return CONFIG_SET_BAD;
    switch (opt->type) {
    case CONFIG_BOOL: return set_bool(field, text, why);
    case CONFIG_INT:
    case CONFIG_SIZE:
    case CONFIG_DURATION: return set_number(opt, field, text, why);
    case CONFIG_STRING:
    case CONFIG_PATH: return set_string(field, text);
    case CONFIG_LIST: return set_list(field, text);
    case CONFIG_ENUM: return set_enum(opt, field, text, why);
    case CONFIG_PAIRS: return CONFIG_SET_OK; /* each has a name: config_assign_pair() */
    }
    check_failed(__FILE__, __LINE__, "config_type");
}

static void
list_print(const struct config_list *list, struct buf *out)
{
    for (size_t i = 0; i < list->count; i++) {
        buf_str(out, i == 0 ? STR("") : STR(", "));
        buf_str(out, str_of(list->item[i]));
    }
}

void
config_value_print(const struct config_opt *opt, const void *base, struct buf *out)
{
    const void *field = (const char *)base + opt->offset;
    char text[32] = "";
    struct config_list list;
    const char *z;
    int64_t n;
    size_t bytes;
    unsigned word;
    bool yes;
    switch (opt->type) {
    case CONFIG_BOOL:
        memcpy(&yes, field, sizeof(yes));
        buf_str(out, yes ? STR("yes") : STR("no"));
        break;
    case CONFIG_INT:
        memcpy(&n, field, sizeof(n));
        if (n == CONFIG_AUTO && takes_auto(opt))
            buf_str(out, STR("auto"));
        else
            buf_addf(out, "%" PRId64, n);
        break;
    case CONFIG_SIZE:
        memcpy(&bytes, field, sizeof(bytes));
        config_format_size(bytes, text);
        buf_str(out, str_of(text));
        break;
    case CONFIG_DURATION:
        memcpy(&n, field, sizeof(n));
        config_format_duration(n, text);
        buf_str(out, str_of(text));
        break;
    case CONFIG_STRING:
    case CONFIG_PATH:
        memcpy(&z, field, sizeof(z));
        buf_str(out, str_of(z));
        break;
    case CONFIG_LIST:
        memcpy(&list, field, sizeof(list));
        list_print(&list, out);
        break;
    case CONFIG_ENUM:
        memcpy(&word, field, sizeof(word));
        buf_str(out, str_of(opt->words[word]));
        break;
    case CONFIG_PAIRS: break; /* see config_value_nth() */
    }
}

void
config_value_fini(const struct config_opt *opt, void *base)
{
    void *field = (char *)base + opt->offset;
    char *z = NULL;
    struct config_list list;
    if (opt->type == CONFIG_STRING || opt->type == CONFIG_PATH) {
        memcpy(&z, field, sizeof(z));
        mem_free(z);
        memset(field, 0, sizeof(z));
    } else if (opt->type == CONFIG_LIST) {
        memcpy(&list, field, sizeof(list));
        list_fini(&list);
        memcpy(field, &list, sizeof(list));
    } else if (opt->type == CONFIG_PAIRS) {
        config_pairs_fini(field);
    }
}
