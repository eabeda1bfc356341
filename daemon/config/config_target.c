#include "base/check.h"
#include "config/config_load.h"
#include "config/config_value.h"

/*
 * Where a section lies in struct config: the one, or one of those that repeat. What is here goes by
 * the table alone, so a new section that repeats is rows there and nothing else.
 */
#define SECTION_NAME_MAX 32

size_t
config_section_count(const struct config *c, const struct config_section *sec)
{
    size_t count;
    if (!config_section_repeats(sec))
        return 1;
    memcpy(&count, (const char *)c + sec->count_offset, sizeof(count));
    return count;
}

bool
config_target_next(const struct config *c, struct config_target *t)
{
    const struct config_section *end = config_sections + CONFIG_SECTION_COUNT;
    if (t->sec == NULL)
        t->sec = config_sections;
    else
        t->nth++;
    while (t->sec < end && t->nth >= config_section_count(c, t->sec))
        *t = (struct config_target){.sec = t->sec + 1};
    return t->sec < end;
}

const void *
config_target_base_const(const struct config *c, struct config_target t)
{
    return (const char *)c + t.sec->offset + t.nth * t.sec->size;
}

void *
config_target_base(struct config *c, struct config_target t)
{
    return (char *)c + t.sec->offset + t.nth * t.sec->size;
}

const char *
config_target_given_name(const struct config *c, struct config_target t)
{
    const char *name;
    if (!config_section_repeats(t.sec))
        return "";
    memcpy(&name, (const char *)c + t.sec->name_offset + t.nth * sizeof(name), sizeof(name));
    return name;
}

const char *
config_target_name(const struct config *c, struct config_target t, char out[CONFIG_TARGET_NAME_MAX])
{
    bool unnamed = !config_section_repeats(t.sec) || (t.sec->first[0] != '\0' && t.nth == 0);
    if (unnamed)
        snprintf(out, CONFIG_TARGET_NAME_MAX, "%s", t.sec->id);
    else
        snprintf(out, CONFIG_TARGET_NAME_MAX, "%s %s", t.sec->id, config_target_given_name(c, t));
    return out;
}

struct config_origin_entry *
config_origin_of(const struct config *c, struct config_target t, const struct config_opt *opt)
{
    return &c->origin->opt[t.sec->row + t.nth][config_opt_index(t.sec, opt)];
}

struct config_origin_entry *
config_origin_of_name(const struct config *c, struct config_target t)
{
    CHECK(config_section_repeats(t.sec));
    return &c->origin->named[t.sec->row + t.nth];
}

static bool
is_letter_or_digit(char c)
{
    return (ascii_lower(c) >= 'a' && ascii_lower(c) <= 'z') || (c >= '0' && c <= '9');
}

static char
fold(char c)
{
    return is_letter_or_digit(c) ? ascii_lower(c) : '_';
}

static bool
names_fold_equal(struct str a, struct str b)
{
    if (a.len != b.len)
        return false;
    for (size_t i = 0; i < a.len; i++)
        if (fold(a.p[i]) != fold(b.p[i]))
            return false;
    return true;
}

bool
config_target_is_called(const struct config *c, struct config_target t, struct str name)
{
    return names_fold_equal(str_of(config_target_given_name(c, t)), name);
}

static bool
is_name(const struct config_section *sec, struct str name)
{
    for (size_t i = 0; i < name.len; i++) {
        char c = name.p[i];
        if (!is_letter_or_digit(c) && c != '-' && c != '_' &&
            (c == '\0' || strchr(sec->also, c) == NULL))
            return false;
    }
    return name.len > 0 && name.len <= SECTION_NAME_MAX;
}

static bool
set_defaults(struct config_loader *l, struct config_target t)
{
    char why[CONFIG_WHY_MAX];
    size_t count;
    const struct config_opt *opt = t.sec->opts(&count);
    for (size_t i = 0; i < count; i++) {
        enum config_set r =
            config_value_set(t.sec, &opt[i], config_target_base(l->c, t), str_of(opt[i].def), why);
        CHECK(r != CONFIG_SET_BAD); /* a default of options.def that breaks its own rules */
        if (r == CONFIG_SET_NOMEM)
            l->nomem = true;
    }
    return !l->nomem;
}

static bool
add_target(struct config_loader *l, const struct config_place *place, struct str name,
    struct config_target *t)
{
    const struct config_section *sec = t->sec;
    size_t count = config_section_count(l->c, sec);
    if (count == sec->most) {
        config_error(l, place, NULL, NULL, "too many [%s NAME] sections; at most %zu are allowed",
            sec->id, sec->most);
        return false;
    }
    char *copy = config_strdup(name);
    if (copy == NULL) {
        l->nomem = true;
        return false;
    }
    for (char *p = copy; place->kind == CONFIG_ENVIRONMENT && *p != '\0'; p++)
        *p = ascii_lower(*p);
    t->nth = count++;
    char *c = (char *)l->c;
    memcpy(c + sec->name_offset + t->nth * sizeof(copy), &copy, sizeof(copy)); /* given */
    memcpy(c + sec->count_offset, &count, sizeof(count));
    if (!config_origin_note(config_origin_of_name(l->c, *t), place, false))
        l->nomem = true;
    return set_defaults(l, *t);
}

bool
config_name_target(struct config_loader *l, const struct config_place *place,
    const struct config_section *sec, struct str name, struct config_target *out)
{
    char q[CONFIG_QUOTE_MAX], also[32] = "";
    *out = (struct config_target){.sec = sec};
    if (name.len == 0 && sec->first[0] != '\0')
        return true;
    if (!is_name(sec, name)) {
        for (size_t i = 0; sec->also[i] != '\0'; i++)
            snprintf(also + 3 * i, sizeof(also) - 3 * i, " %c,", sec->also[i]);
        config_error(l, place, NULL, NULL,
            "%s is not a name for [%s NAME]; 1 to %d letters, digits,%s - and _ are allowed",
            config_quote(name, q), sec->id, SECTION_NAME_MAX, also);
        return false;
    }
    size_t count = config_section_count(l->c, sec);
    for (; out->nth < count; out->nth++) {
        struct str have = str_of(config_target_given_name(l->c, *out));
        if (!names_fold_equal(have, name))
            continue;
        if (place->kind != CONFIG_ENVIRONMENT && !str_eq(have, name)) {
            config_error(l, place, NULL, NULL,
                "%s and \"" STR_FMT "\" of [%s NAME] are one name in the environment; rename one",
                config_quote(name, q), STR_ARG(have), sec->id);
            return false;
        }
        return true;
    }
    return add_target(l, place, name, out);
}

void
config_set_defaults(struct config_loader *l)
{
    const struct config_place place = {.kind = CONFIG_DEFAULT};
    for (size_t i = 0; i < CONFIG_SECTION_COUNT && !l->nomem; i++) {
        struct config_target t = {.sec = &config_sections[i]};
        if (!config_section_repeats(t.sec))
            (void)set_defaults(l, t);
        else if (t.sec->first[0] != '\0')
            (void)add_target(l, &place, str_of(t.sec->first), &t);
    }
}

static void
free_target(struct config *c, struct config_target t)
{
    size_t count;
    const struct config_opt *opt = t.sec->opts(&count);
    for (size_t i = 0; i < count; i++) {
        config_value_fini(&opt[i], config_target_base(c, t));
        mem_free(config_origin_of(c, t, &opt[i])->label);
    }
    if (!config_section_repeats(t.sec))
        return;
    char *name;
    memcpy(&name, (char *)c + t.sec->name_offset + t.nth * sizeof(name), sizeof(name));
    mem_free(name);
    mem_free(config_origin_of_name(c, t)->label);
}

void
config_free_targets(struct config *c)
{
    for (size_t i = 0; i < CONFIG_SECTION_COUNT; i++) {
        struct config_target t = {.sec = &config_sections[i]};
        size_t count = config_section_count(c, t.sec);
        for (; t.nth < count; t.nth++)
            free_target(c, t);
    }
}
