/*
 * config_pairs: keys that the table knows only by how they begin: set.NAME = value. Each is an
 * option of its own: with its own origin, and given twice by itself.
 */
#include "base/check.h"
#include "config/config_load.h"
#include "config/config_value.h"

#define SETTING_NAME_MAX 128

/* Is it a name of a ClickHouse setting? Neither a parameter of a request that is no setting, nor
 * what is chmuxd's own business. NULL: it is. */
static const char *
why_no_setting(struct str name)
{
    static const char *const parameters[] = {"query", "query_id", "database", "default_format",
        "user", "password", "quota_key", "session_id", "session_timeout", "session_check",
        "close_session", "role", "stacktrace", "client_protocol_version"};
    static const char *const own[] = {"compress", "decompress", "enable_http_compression"};
    bool ok = name.len > 0 && name.len <= SETTING_NAME_MAX;
    for (size_t i = 0; i < name.len && ok; i++) {
        char c = ascii_lower(name.p[i]);
        ok = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '.';
    }
    if (!ok)
        return "a setting's name has 1 to 128 letters, digits, _ and .";
    for (size_t i = 0; i < COUNT_OF(parameters); i++)
        if (str_eq_nocase(name, str_of(parameters[i])))
            return "that is a parameter of a request, not a setting of ClickHouse";
    if (str_starts_nocase(name, STR("param_")))
        return "that is a parameter of a query, not a setting of ClickHouse";
    for (size_t i = 0; i < COUNT_OF(own); i++)
        if (str_eq_nocase(name, str_of(own[i])))
            return "that is for request_compression and response_compression to decide";
    return NULL;
}

struct config_pair *
config_pairs_find(const struct config_pairs *pairs, struct str name)
{
    for (size_t i = 0; i < pairs->count; i++)
        if (str_eq(str_of(pairs->item[i].name), name))
            return &pairs->item[i];
    return NULL;
}

static void
pair_fini(struct config_pair *p)
{
    mem_free(p->name);
    mem_free(p->value);
    if (p->origin != NULL)
        mem_free(p->origin->label);
    mem_free(p->origin);
    *p = (struct config_pair){0};
}

void
config_pairs_fini(struct config_pairs *pairs)
{
    for (size_t i = 0; i < pairs->count; i++)
        pair_fini(&pairs->item[i]);
    mem_free(pairs->item);
    *pairs = (struct config_pairs){0};
}

/* An empty one at the end; NULL: no memory. */
static struct config_pair *
add(struct config_pairs *pairs, struct str name)
{
    if (pairs->item == NULL)
        pairs->item = mem_zalloc(CONFIG_MAX_PAIRS * sizeof(pairs->item[0]));
    if (pairs->item == NULL)
        return NULL;
    struct config_pair *p = &pairs->item[pairs->count];
    p->name = config_strdup(name);
    p->origin = mem_zalloc(sizeof(*p->origin));
    if (p->name == NULL || p->origin == NULL) {
        pair_fini(p);
        return NULL;
    }
    pairs->count++;
    return p;
}

void
config_assign_pair(struct config_loader *l, const struct config_place *place,
    struct config_target t, const struct config_opt *opt, struct str name, struct str text)
{
    char section[CONFIG_TARGET_NAME_MAX], key[CONFIG_KEY_MAX], why[CONFIG_WHY_MAX];
    struct config_pairs *pairs =
        (void *)((char *)config_target_base(l->c, t) + opt->offset); /* of that type by the table */
    const char *no_setting = why_no_setting(name);
    struct str prefix = config_pairs_prefix(opt);
    config_target_name(l->c, t, section);
    snprintf(key, sizeof(key), STR_FMT STR_FMT, STR_ARG(prefix), STR_ARG(name));
    text = str_trim(text);
    if (no_setting != NULL) {
        config_error(l, place, section, key, "%s", no_setting);
        return;
    }
    if (!config_check_text(text, why)) {
        config_error(l, place, section, key, "%s", why);
        return;
    }
    struct config_pair *p = config_pairs_find(pairs, name);
    if (p != NULL && place->kind == CONFIG_FILE && p->origin->kind == CONFIG_FILE) {
        config_error(l, place, section, key, "given twice; line %" PRIu32 " has it already",
            p->origin->line);
        return;
    }
    if (p == NULL && pairs->count == CONFIG_MAX_PAIRS) {
        config_error(
            l, place, section, key, "too many of them; at most %d are allowed", CONFIG_MAX_PAIRS);
        return;
    }
    if (p == NULL)
        p = add(pairs, name);
    char *value = config_strdup(text);
    if (p == NULL || value == NULL || !config_origin_note(p->origin, place, false)) {
        mem_free(value);
        l->nomem = true;
        return;
    }
    mem_free(p->value);
    p->value = value;
}

bool
config_value_nth(const struct config_opt *opt, const void *base, size_t i, struct config_shown *out)
{
    const struct config_pairs *pairs = (const void *)((const char *)base + opt->offset);
    struct str prefix = config_pairs_prefix(opt);
    *out = (struct config_shown){0};
    if (prefix.len == 0) {
        snprintf(out->key, sizeof(out->key), "%s", opt->key);
        return i == 0;
    }
    if (i >= pairs->count)
        return false;
    out->pair = &pairs->item[i];
    snprintf(out->key, sizeof(out->key), STR_FMT "%s", STR_ARG(prefix), out->pair->name);
    return true;
}
