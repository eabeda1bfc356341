#include "config/config.h"

#include "base/check.h"
#include "config/config_load.h"
#include "config/config_value.h"

/* A file with more mistakes than this is the wrong file; the rest is only counted. */
#define ERRORS_MAX 50

struct config_place
config_place_of(const struct config_origin_entry *e)
{
    return (struct config_place){
        .kind = e->kind,
        .line = e->line,
        .label = e->label == NULL ? STR_NULL : str_of(e->label),
    };
}

/* Control characters in a file name or label would break the one-line rule. */
static void
print_clean(struct buf *out, struct str s)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.p[i];
        buf_add(out, c < 0x20 || c == 0x7f ? "?" : &s.p[i], 1);
    }
}

static void
print_place(const char *file_name, const struct config_place *place, struct buf *out)
{
    switch (place->kind) {
    case CONFIG_DEFAULT: buf_str(out, STR("default")); break;
    case CONFIG_FILE:
        print_clean(out, str_of(file_name == NULL ? "(file)" : file_name));
        if (place->line > 0)
            buf_addf(out, ":%" PRIu32, place->line);
        break;
    case CONFIG_ENVIRONMENT:
        buf_str(out, STR("environment "));
        print_clean(out, place->label);
        break;
    case CONFIG_FLAG: print_clean(out, place->label); break;
    }
}

void
config_origin_print(const struct config *c, const struct config_origin_entry *e, struct buf *out)
{
    struct config_place place = config_place_of(e);
    print_place(c->origin->file_name, &place, out);
}

static void PRINTF_LIKE(5, 0) complain(struct config_loader *l, const struct config_place *place,
    const char *section, const char *key, const char *fmt, va_list ap)
{
    if (place->kind != CONFIG_DEFAULT) {
        print_place(l->src->file_name, place, l->errors);
        buf_str(l->errors, STR(": "));
    }
    if (section != NULL && (place->kind == CONFIG_FILE || place->kind == CONFIG_DEFAULT)) {
        buf_str(l->errors, STR("["));
        print_clean(l->errors, str_of(section));
        buf_str(l->errors, key == NULL ? STR("]: ") : STR("] "));
        if (key != NULL) {
            print_clean(l->errors, str_of(key));
            buf_str(l->errors, STR(": "));
        }
    }
    buf_vaddf(l->errors, fmt, ap);
    buf_str(l->errors, STR("\n"));
}

void
config_error(struct config_loader *l, const struct config_place *place, const char *section,
    const char *key, const char *fmt, ...)
{
    if (++l->error_count > ERRORS_MAX)
        return;
    va_list ap;
    va_start(ap, fmt);
    complain(l, place, section, key, fmt, ap);
    va_end(ap);
}

void
config_warn(struct config_loader *l, const struct config_place *place, const char *section,
    const char *key, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    buf_str(l->errors, STR("warning: "));
    complain(l, place, section, key, fmt, ap);
    va_end(ap);
}

void
config_hint_init(struct config_hint *h, struct str word)
{
    *h = (struct config_hint){.word = word, .distance = SIZE_MAX};
}

void
config_hint_offer(struct config_hint *h, struct str candidate, const char *show)
{
    size_t distance = config_word_distance(h->word, candidate);
    if (distance >= h->distance || strlen(show) >= sizeof(h->best))
        return;
    h->distance = distance;
    snprintf(h->best, sizeof(h->best), "%s", show);
}

const char *
config_hint_text(const struct config_hint *h, const char *otherwise, char out[CONFIG_HINT_MAX])
{
    if (h->best[0] == '\0')
        snprintf(out, CONFIG_HINT_MAX, "%s", otherwise);
    else
        snprintf(out, CONFIG_HINT_MAX, "; did you mean %s?", h->best);
    return out;
}

void
config_unknown_key(struct config_loader *l, const struct config_place *place,
    struct config_target t, struct str key)
{
    char q[CONFIG_QUOTE_MAX], show[64], text[CONFIG_HINT_MAX], name[CONFIG_TARGET_NAME_MAX];
    struct config_hint hint;
    size_t count;
    config_hint_init(&hint, key);
    const struct config_opt *opt = t.sec->opts(&count);
    for (size_t i = 0; i < count; i++)
        config_hint_offer(&hint, str_of(opt[i].key), opt[i].key);
    for (size_t s = 0; s < CONFIG_SECTION_COUNT && hint.best[0] == '\0'; s++) {
        opt = config_opt_find(&config_sections[s], key);
        if (opt == NULL)
            continue;
        snprintf(show, sizeof(show), "%s in [%s]", opt->key, config_sections[s].name);
        config_hint_offer(&hint, key, show);
    }
    config_target_name(l->c, t, name);
    config_error(l, place, name, NULL, "unknown key %s%s", config_quote(key, q),
        config_hint_text(&hint, "; docs/CONFIG.md lists them all", text));
}

void
config_unknown_section(struct config_loader *l, const struct config_place *place, struct str name)
{
    char q[CONFIG_QUOTE_MAX], show[32], all[CONFIG_HINT_MAX] = ";", text[CONFIG_HINT_MAX];
    struct config_hint hint;
    size_t n = 1;
    config_hint_init(&hint, name);
    for (size_t i = 0; i < CONFIG_SECTION_COUNT; i++) {
        const char *join = i == 0 ? "" : i + 1 < CONFIG_SECTION_COUNT ? "," : " and";
        int len = snprintf(all + n, sizeof(all) - n, "%s [%s]", join, config_sections[i].name);
        n = size_min(n + (size_t)len, sizeof(all) - 1);
        snprintf(show, sizeof(show), "[%s]", config_sections[i].name);
        config_hint_offer(&hint, str_of(config_sections[i].id), show);
    }
    snprintf(all + n, sizeof(all) - n, " are known");
    config_error(l, place, NULL, NULL, "unknown section %s%s", config_quote(name, q),
        config_hint_text(&hint, all, text));
}

bool
config_origin_note(struct config_origin_entry *e, const struct config_place *place, bool bad)
{
    char *label = NULL;
    if (place->label.len > 0) {
        label = config_strdup(place->label);
        if (label == NULL)
            return false;
    }
    mem_free(e->label);
    *e = (struct config_origin_entry){
        .kind = place->kind, .bad = bad, .line = place->line, .label = label};
    return true;
}

void
config_assign(struct config_loader *l, const struct config_place *place, struct config_target t,
    const struct config_opt *opt, struct str key, struct str text)
{
    struct str prefix = config_pairs_prefix(opt);
    if (prefix.len > 0) {
        config_assign_pair(l, place, t, opt, str_n(key.p + prefix.len, key.len - prefix.len), text);
        return;
    }
    char why[CONFIG_WHY_MAX], name[CONFIG_TARGET_NAME_MAX];
    struct config_origin_entry *e = config_origin_of(l->c, t, opt);
    config_target_name(l->c, t, name);
    if (place->kind == CONFIG_FILE && e->kind == CONFIG_FILE) {
        config_error(
            l, place, name, opt->key, "given twice; line %" PRIu32 " has it already", e->line);
        return;
    }
    enum config_set r = config_value_set(t.sec, opt, config_target_base(l->c, t), text, why);
    if (r == CONFIG_SET_BAD)
        config_error(l, place, name, opt->key, "%s",
            config_key_is_secret(str_of(opt->key)) ? "the value is not allowed" : why);
    if (r == CONFIG_SET_NOMEM || !config_origin_note(e, place, r == CONFIG_SET_BAD))
        l->nomem = true;
}

/* --listen makes up names (flag1, flag2, ...); it must not silently take over a listener of that
 * name that a printed and edited file brought along. */
static bool
made_up_name_is_taken(
    struct config_loader *l, const struct config_place *place, const char *flag, struct str name)
{
    char from[CONFIG_QUOTE_MAX];
    struct config_target t = {.sec = &config_sections[CONFIG_SECTION_listen]};
    if (strcmp(flag, "--listen") != 0)
        return false;
    for (; t.nth < l->c->listen_count; t.nth++) {
        if (config_origin_of_name(l->c, t)->kind == CONFIG_FLAG ||
            !config_target_is_called(l->c, t, name))
            continue;
        config_error(l, place, NULL, NULL,
            "the name %s that this flag gives its listener is taken by a section or a "
            "variable; rename that one",
            config_quote(name, from));
        return true;
    }
    return false;
}

/* Splits "NAME.key". The key stands behind the last dot, but for those that have one in them:
 * "NAME.set.key". name.p NULL: there is no NAME. */
static void
split_flag(const struct config_section *sec, struct str both, struct str *name, struct str *key)
{
    size_t count, at = SIZE_MAX;
    const struct config_opt *opt = sec->opts(&count);
    for (size_t i = 0; i < count && at == SIZE_MAX; i++) {
        struct str prefix = config_pairs_prefix(&opt[i]);
        const char *p = prefix.len == 0 ? NULL : memmem(both.p, both.len, prefix.p, prefix.len);
        if (p != NULL && (p == both.p || p[-1] == '.'))
            at = (size_t)(p - both.p);
    }
    const char *last = at == SIZE_MAX ? memrchr(both.p, '.', both.len) : NULL;
    if (last != NULL)
        at = (size_t)(last + 1 - both.p);
    *name = STR_NULL;
    *key = both;
    if (at == SIZE_MAX || at == 0)
        return;
    *name = str_n(both.p, at - 1);
    *key = str_n(both.p + at, both.len - at);
}

/* "section.key", "section.NAME.key". */
static void
apply_flag(struct config_loader *l, const struct config_flag *f, const struct config_place *place)
{
    struct str path = str_of(f->path), name = STR(""), key = STR("");
    ssize_t dot = str_find(path, '.');
    struct str id = str_n(path.p, dot < 0 ? path.len : (size_t)dot);
    const struct config_section *sec = config_section_find(id);
    if (sec == NULL) {
        config_unknown_section(l, place, id);
        return;
    }
    struct config_target t = {.sec = sec};
    if (dot >= 0)
        key = str_n(path.p + dot + 1, path.len - (size_t)dot - 1);
    if (config_section_repeats(sec)) {
        split_flag(sec, key, &name, &key);
        if (name.p == NULL && sec->first[0] == '\0') {
            config_error(l, place, NULL, NULL, "write %s.NAME.key=value", sec->id);
            return;
        }
        if (name.p != NULL && (made_up_name_is_taken(l, place, f->flag, name) ||
                                  !config_name_target(l, place, sec, name, &t)))
            return;
    }
    const struct config_opt *opt = config_opt_find(sec, key);
    if (opt != NULL)
        config_assign(l, place, t, opt, key, str_of(f->value));
    else if (key.len == 0)
        config_error(l, place, NULL, NULL, "write section.key=value");
    else
        config_unknown_key(l, place, t, key);
}

static void
read_flags(struct config_loader *l)
{
    for (size_t i = 0; i < l->src->flag_count && !l->nomem; i++) {
        const struct config_flag *f = &l->src->flags[i];
        struct buf label;
        buf_init(&label, CONFIG_VALUE_MAX);
        buf_str(&label, str_of(f->flag));
        if (strcmp(f->flag, "--set") == 0)
            buf_addf(&label, " " STR_FMT, STR_ARG(str_n(f->path, strnlen(f->path, 256))));
        struct config_place place = {.kind = CONFIG_FLAG, .label = str_n(label.p, label.len)};
        if (buf_ok(&label))
            apply_flag(l, f, &place);
        else
            l->nomem = true;
        buf_fini(&label);
    }
}

/* Other than for the admin listener, which is no place for clients. */
static bool
sockets_were_passed(const struct config_source *src)
{
    for (size_t i = 0; i < src->passed_count; i++)
        if (strcmp(src->passed_names[i], "admin") != 0)
            return true;
    return false;
}

/* Both loopback families, so that "localhost" works whichever way it resolves. */
static void
add_default_listeners(struct config_loader *l)
{
    static const struct {
        struct str name, address;
    } built_in[] = {
        {STR("default4"), STR("127.0.0.1:8123")},
        {STR("default6"), STR("[::1]:8123")},
    };
    const struct config_place place = {.kind = CONFIG_DEFAULT};
    struct config_target t;
    const struct config_section *sec = &config_sections[CONFIG_SECTION_listen];
    const struct config_opt *address = config_opt_find(sec, STR("address"));
    for (size_t i = 0; i < COUNT_OF(built_in) && !l->nomem; i++)
        if (config_name_target(l, &place, sec, built_in[i].name, &t))
            config_assign(l, &place, t, address, STR("address"), built_in[i].address);
}

static void
load(struct config_loader *l)
{
    config_set_defaults(l);
    if (l->src->file_name != NULL && !l->nomem) {
        l->c->origin->file_name = config_strdup(str_of(l->src->file_name));
        l->nomem = l->c->origin->file_name == NULL;
    }
    if (!l->nomem)
        config_read_file(l);
    if (!l->nomem)
        config_read_environment(l);
    if (!l->nomem)
        read_flags(l);
    if (!l->nomem && l->c->listen_count == 0 && !sockets_were_passed(l->src))
        add_default_listeners(l);
    if (!l->nomem)
        config_cross_check(l);
}

struct config *
config_load(const struct config_source *src, struct buf *errors)
{
    struct config_loader l = {.src = src, .errors = errors, .c = mem_zalloc(sizeof(*l.c))};
    if (l.c != NULL)
        l.c->origin = mem_zalloc(sizeof(*l.c->origin));
    if (l.c == NULL || l.c->origin == NULL)
        l.nomem = true;
    else
        load(&l);
    if (l.error_count > ERRORS_MAX)
        buf_addf(errors, "... and %zu more errors\n", l.error_count - ERRORS_MAX);
    if (l.nomem)
        buf_str(errors, STR("out of memory while reading the configuration\n"));
    if (l.nomem || l.error_count > 0)
        config_free(&l.c);
    return l.c;
}

void
config_free(struct config **cp)
{
    struct config *c = *cp;
    *cp = NULL;
    if (c == NULL)
        return;
    if (c->origin != NULL) {
        config_free_targets(c);
        mem_free(c->origin->file_name);
    }
    mem_free(c->origin);
    mem_free(c);
}

bool
config_listen_is_default(const struct config *c, size_t i)
{
    CHECK(i < c->listen_count);
    struct config_target t = {&config_sections[CONFIG_SECTION_listen], i};
    return config_origin_of_name(c, t)->kind == CONFIG_DEFAULT;
}
