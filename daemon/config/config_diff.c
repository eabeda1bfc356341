#include "base/check.h"
#include "config/config_load.h"
#include "config/config_value.h"

/* The same section in another configuration; false: it has none of that name. */
static bool
find_target(const struct config *c, const struct config *other, struct config_target want,
    struct config_target *out)
{
    char name[CONFIG_TARGET_NAME_MAX], have[CONFIG_TARGET_NAME_MAX];
    config_target_name(other, want, name);
    *out = (struct config_target){0};
    while (config_target_next(c, out))
        if (out->sec == want.sec && strcmp(config_target_name(c, *out, have), name) == 0)
            return true;
    return false;
}

/* As it would be written, secrets too: to compare; not of PAIRS. NULL: no memory. */
static char *
text_of(const struct config *c, struct config_target t, const struct config_opt *opt)
{
    struct buf text;
    buf_init(&text, 2 * CONFIG_VALUE_MAX);
    config_value_print(opt, config_target_base_const(c, t), &text);
    char *copy = buf_ok(&text) ? config_strdup(str_n(text.p, text.len)) : NULL;
    buf_fini(&text);
    return copy;
}

static bool
mask(char **text)
{
    if (*text == NULL)
        return true;
    mem_free(*text);
    *text = config_strdup(STR("********"));
    return *text != NULL;
}

/* What is being compared. A configuration that has not the section is NULL. */
struct sides {
    const struct config *now, *next;
    struct config_target now_at, next_at;
};

/* What is compared in it: an option, or one pair of PAIRS, which is NULL where it is not there. */
struct compared {
    const struct config_opt *opt;
    const char *key;
    const struct config_pair *now, *next;
};

/* *out stays NULL: that side has it not. false: no memory. */
static bool
side_text(const struct config *c, struct config_target t, const struct config_opt *opt,
    const struct config_pair *pair, char **out)
{
    if (c == NULL || (opt->type == CONFIG_PAIRS && pair == NULL))
        return true;
    *out = pair != NULL ? config_strdup(str_of(pair->value)) : text_of(c, t, opt);
    return *out != NULL;
}

/* Room for all that could differ was made before. */
static bool
compare(const struct sides *s, const struct compared *it, struct config_changes *out)
{
    char name[CONFIG_TARGET_NAME_MAX];
    struct config_change *ch = &out->item[out->count];
    *ch = (struct config_change){.reloadable = it->opt->reloadable};
    out->count++; /* out owns it */
    if (!side_text(s->now, s->now_at, it->opt, it->now, &ch->before) ||
        !side_text(s->next, s->next_at, it->opt, it->next, &ch->after))
        return false;
    if (ch->before != NULL && ch->after != NULL && strcmp(ch->before, ch->after) == 0) {
        mem_free(ch->before);
        mem_free(ch->after);
        out->count--;
        return true;
    }
    if (s->next != NULL)
        config_target_name(s->next, s->next_at, name);
    else
        config_target_name(s->now, s->now_at, name);
    ch->section = config_strdup(str_of(name));
    ch->key = config_strdup(str_of(it->key));
    bool masked = !config_key_is_secret(str_of(it->key)) || (mask(&ch->before) && mask(&ch->after));
    return ch->section != NULL && ch->key != NULL && masked;
}

static const struct config_pairs *
pairs_of(const struct config *c, struct config_target t, const struct config_opt *opt)
{
    static const struct config_pairs none;
    return c == NULL ? &none
                     : (const void *)((const char *)config_target_base_const(c, t) + opt->offset);
}

/* Those of next, then those that are gone. */
static bool
compare_pairs(const struct sides *s, const struct config_opt *opt, struct config_changes *out)
{
    const struct config_pairs *now = pairs_of(s->now, s->now_at, opt);
    const struct config_pairs *next = pairs_of(s->next, s->next_at, opt);
    struct str prefix = config_pairs_prefix(opt);
    for (size_t i = 0; i < next->count + now->count; i++) {
        bool gone = i >= next->count;
        const struct config_pair *p = gone ? &now->item[i - next->count] : &next->item[i];
        char key[CONFIG_KEY_MAX];
        const struct config_pair *other = config_pairs_find(gone ? next : now, str_of(p->name));
        if (gone && other != NULL)
            continue;
        snprintf(key, sizeof key, STR_FMT "%s", STR_ARG(prefix), p->name);
        struct compared it = {opt, key, gone ? p : other, gone ? NULL : p};
        if (!compare(s, &it, out))
            return false;
    }
    return true;
}

static bool
compare_section(const struct sides *s, struct config_changes *out)
{
    const struct config_section *sec = s->next != NULL ? s->next_at.sec : s->now_at.sec;
    size_t count;
    const struct config_opt *opt = sec->opts(&count);
    for (size_t i = 0; i < count; i++) {
        struct compared it = {.opt = &opt[i], .key = opt[i].key};
        if (!(opt[i].type == CONFIG_PAIRS ? compare_pairs(s, &opt[i], out) : compare(s, &it, out)))
            return false;
    }
    return true;
}

/* With one more at the end: the place of what turns out to be the same. */
static size_t
option_count(const struct config *c)
{
    struct config_target t = {0};
    size_t all = 1, count;
    while (config_target_next(c, &t)) {
        const struct config_opt *opt = t.sec->opts(&count);
        for (size_t i = 0; i < count; i++)
            all += opt[i].type == CONFIG_PAIRS ? pairs_of(c, t, &opt[i])->count : 1;
    }
    return all;
}

bool
config_diff(const struct config *now, const struct config *next, struct config_changes *out)
{
    *out = (struct config_changes){0};
    out->item = mem_zalloc((option_count(now) + option_count(next)) * sizeof *out->item);
    if (out->item == NULL)
        return false;
    struct sides s = {.next = next};
    while (config_target_next(next, &s.next_at)) {
        s.now = find_target(now, next, s.next_at, &s.now_at) ? now : NULL;
        if (!compare_section(&s, out))
            return false;
    }
    s = (struct sides){.now = now};
    while (config_target_next(now, &s.now_at))
        if (!find_target(next, now, s.now_at, &s.next_at) && !compare_section(&s, out))
            return false;
    return true;
}

void
config_changes_fini(struct config_changes *ch)
{
    for (size_t i = 0; i < ch->count; i++) {
        mem_free(ch->item[i].section);
        mem_free(ch->item[i].key);
        mem_free(ch->item[i].before);
        mem_free(ch->item[i].after);
    }
    mem_free(ch->item);
    *ch = (struct config_changes){0};
}

/* The value of `now`, and where that came from. */
static bool
hold_one(struct config *next, struct config_target next_at, const struct config *now,
    struct config_target now_at, const struct config_opt *opt)
{
    char why[CONFIG_WHY_MAX];
    struct config_place place = config_place_of(config_origin_of(now, now_at, opt));
    char *text = text_of(now, now_at, opt);
    if (text == NULL)
        return false;
    enum config_set r =
        config_value_set(next_at.sec, opt, config_target_base(next, next_at), str_of(text), why);
    CHECK(r != CONFIG_SET_BAD); /* it was good enough for now */
    mem_free(text);
    return r == CONFIG_SET_OK &&
           config_origin_note(config_origin_of(next, next_at, opt), &place, false);
}

static bool
hold_all(struct config *next, const struct config *now)
{
    struct config_target at = {0}, now_at;
    while (config_target_next(next, &at)) {
        size_t count;
        const struct config_opt *opt = at.sec->opts(&count);
        if (!find_target(now, next, at, &now_at))
            continue;
        for (size_t i = 0; i < count; i++)
            if (!opt[i].reloadable && !hold_one(next, at, now, now_at, &opt[i]))
                return false;
    }
    return true;
}

bool
config_hold(struct config *next, const struct config *now, const struct config_source *src,
    struct buf *errors)
{
    struct buf said;
    buf_init(&said, 1 << 20);
    struct config_loader l = {.src = src, .c = next, .errors = &said};
    l.nomem = !hold_all(next, now);
    if (l.nomem) {
        buf_str(errors, STR("out of memory while reading the configuration\n"));
    } else {
        config_cross_check(&l); /* its warnings were given when next was read */
        if (l.error_count > 0) {
            buf_str(errors, STR("valid only after a restart, because some of it cannot be changed "
                                "by a reload:\n"));
            buf_str(errors, str_n(said.p, said.len));
        }
    }
    buf_fini(&said);
    return !l.nomem && l.error_count == 0;
}
