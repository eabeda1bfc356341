#include "config/config_load.h"

#include "config/config_value.h"

#define PREFIX         "CHMUX_"
#define NAME_MAX_BYTES 128

static bool
starts(struct str s, struct str prefix)
{
    return s.len >= prefix.len && memcmp(s.p, prefix.p, prefix.len) == 0;
}

static struct str
skip(struct str s, size_t n)
{
    return str_n(s.p + n, s.len - n);
}

/* s is KEY in upper case. */
static bool
is_upper_of(struct str s, struct str key)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.p[i] >= 'a' && s.p[i] <= 'z')
            return false;
    return str_eq_nocase(s, key);
}

static const struct config_opt *
find_upper(const struct config_section *sec, struct str upper)
{
    size_t count;
    const struct config_opt *opt = sec->opts(&count);
    for (size_t i = 0; i < count; i++)
        if (is_upper_of(upper, str_of(opt[i].key)))
            return &opt[i];
    return NULL;
}

/*
 * Kubernetes gives every pod variables for the services around it; a service named "chmux" or
 * "chmux-x" makes CHMUX_SERVICE_HOST, CHMUX_X_SERVICE_PORT_HTTP, CHMUX_PORT=tcp://...,
 * CHMUX_PORT_8123_TCP_ADDR and so on. They are nobody's mistake and no option has such a name.
 */
static bool
is_service_link(struct str name, struct str value)
{
    static const struct str protocols[] = {STR("TCP"), STR("UDP"), STR("SCTP")};
    for (size_t i = 0; i < name.len; i++) {
        if (i > 0 && name.p[i - 1] != '_')
            continue;
        struct str tail = skip(name, i);
        if (str_eq(tail, STR("SERVICE_HOST")) || str_eq(tail, STR("SERVICE_PORT")) ||
            starts(tail, STR("SERVICE_PORT_")))
            return true;
        if (str_eq(tail, STR("PORT")))
            return memmem(value.p, value.len, "://", 3) != NULL;
        if (!starts(tail, STR("PORT_")))
            continue;
        size_t n = 5;
        while (n < tail.len && tail.p[n] >= '0' && tail.p[n] <= '9')
            n++;
        if (n == 5 || n == tail.len || tail.p[n] != '_')
            continue;
        for (size_t p = 0; p < COUNT_OF(protocols); p++)
            if (starts(skip(tail, n + 1), protocols[p]))
                return true;
    }
    return false;
}

/* PAIRS whose prefix upper begins with: SET_MAX_THREADS is set.max_threads. */
static const struct config_opt *
find_upper_pairs(const struct config_section *sec, struct str upper)
{
    size_t count;
    const struct config_opt *opt = sec->opts(&count);
    for (size_t i = 0; i < count; i++) {
        struct str prefix = config_pairs_prefix(&opt[i]);
        if (prefix.len > 0 && upper.len > prefix.len && upper.p[prefix.len - 1] == '_' &&
            is_upper_of(str_n(upper.p, prefix.len - 1), str_n(prefix.p, prefix.len - 1)))
            return &opt[i];
    }
    return NULL;
}

/* The key as a file has it, for what find_upper() or find_upper_pairs() found. Settings are in
 * lower case nearly all; the others need a file. */
static struct str
key_of(const struct config_opt *opt, struct str upper, char out[NAME_MAX_BYTES])
{
    struct str prefix = config_pairs_prefix(opt);
    if (prefix.len == 0 || upper.len > NAME_MAX_BYTES)
        return prefix.len == 0 ? str_of(opt->key) : upper;
    for (size_t i = 0; i < upper.len; i++)
        out[i] = i < prefix.len ? prefix.p[i] : ascii_lower(upper.p[i]);
    return str_n(out, upper.len);
}

/* NAME_KEY. Both may have a '_' in them: the longest KEY that fits is meant, but a key that is in
 * the table rather than one that only begins so. NULL: none does. */
static const struct config_opt *
split_name(const struct config_section *sec, struct str rest, struct str *name, struct str *key)
{
    const struct config_opt *opt = NULL;
    for (int pairs = 0; pairs < 2 && opt == NULL; pairs++) {
        for (size_t at = 2; at < rest.len && opt == NULL; at++) {
            if (rest.p[at - 1] != '_')
                continue;
            *name = str_n(rest.p, at - 1);
            *key = skip(rest, at);
            opt = pairs == 0 ? find_upper(sec, *key) : find_upper_pairs(sec, *key);
        }
    }
    for (size_t i = 0; opt != NULL && i < name->len; i++)
        if (name->p[i] >= 'a' && name->p[i] <= 'z')
            return NULL;
    return opt;
}

/* "UPSTREAM_POOL_SIZE"; `name` goes between the two. */
static void
variable_name(
    const struct config_section *sec, const char *name, const char *key, char out[NAME_MAX_BYTES])
{
    snprintf(out, NAME_MAX_BYTES, "%s_%s%s", sec->id, name, key);
    for (char *p = out; *p != '\0'; p++)
        if (*p >= 'a' && *p <= 'z')
            *p = (char)(*p - 'a' + 'A');
}

/* name is without the prefix. Its likely slips: a letter, the section left out, and no NAME. */
static void
report_unknown(struct config_loader *l, const struct config_place *place, struct str name)
{
    struct config_hint hint;
    char near[NAME_MAX_BYTES], full[NAME_MAX_BYTES], show[NAME_MAX_BYTES + sizeof(PREFIX)];
    char text[CONFIG_HINT_MAX];
    config_hint_init(&hint, name);
    for (size_t s = 0; s < CONFIG_SECTION_COUNT; s++) {
        const struct config_section *sec = &config_sections[s];
        size_t count;
        const struct config_opt *opt = sec->opts(&count);
        for (size_t i = 0; i < count; i++) {
            variable_name(sec, "", opt[i].key, near);
            bool named = config_section_repeats(sec) && sec->first[0] == '\0';
            variable_name(sec, named ? "<NAME>_" : "", opt[i].key, full);
            snprintf(show, sizeof(show), PREFIX "%s", full);
            config_hint_offer(&hint, str_of(near), show);
            config_hint_offer(&hint, str_of(opt[i].key), show);
        }
    }
    config_error(l, place, NULL, NULL, "unknown variable%s",
        config_hint_text(&hint,
            "; " PREFIX "<SECTION>_<KEY> and " PREFIX "<SECTION>_<NAME>_<KEY> are allowed", text));
}

/* tail: KEY, or NAME_KEY. false: the section has no such key. */
static bool
assign_in(struct config_loader *l, const struct config_place *place,
    const struct config_section *sec, struct str tail, struct str value)
{
    struct config_target t = {.sec = sec};
    struct str name = STR(""), upper = tail;
    char lower[NAME_MAX_BYTES];
    const struct config_opt *opt = NULL;
    bool repeats = config_section_repeats(sec);
    if (!repeats || sec->first[0] != '\0')
        opt = find_upper(sec, tail);
    if (opt == NULL && repeats)
        opt = split_name(sec, tail, &name, &upper);
    if (opt == NULL)
        return false;
    if (!repeats || config_name_target(l, place, sec, name, &t))
        config_assign(l, place, t, opt, key_of(opt, upper, lower), value);
    return true;
}

static void
read_variable(struct config_loader *l, struct str name, struct str value)
{
    struct config_place place = {.kind = CONFIG_ENVIRONMENT, .label = name};
    struct str rest = skip(name, sizeof(PREFIX) - 1);
    for (size_t s = 0; s < CONFIG_SECTION_COUNT; s++) {
        const struct config_section *sec = &config_sections[s];
        size_t id_len = strlen(sec->id);
        if (rest.len <= id_len || rest.p[id_len] != '_' ||
            !is_upper_of(str_n(rest.p, id_len), str_of(sec->id)))
            continue;
        if (assign_in(l, &place, sec, skip(rest, id_len + 1), value))
            return;
    }
    if (!is_service_link(rest, value))
        report_unknown(l, &place, rest);
}

void
config_read_environment(struct config_loader *l)
{
    const char *const *list = l->src->environ_list;
    for (size_t i = 0; list != NULL && list[i] != NULL && !l->nomem; i++) {
        struct str entry = str_of(list[i]);
        ssize_t equals = str_find(entry, '=');
        if (equals < 0 || !starts(entry, STR(PREFIX)))
            continue;
        read_variable(l, str_n(entry.p, (size_t)equals), skip(entry, (size_t)equals + 1));
    }
}
