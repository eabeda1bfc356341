#include "base/check.h"
#include "config/config_load.h"
#include "config/config_value.h"

/* Comments line up here, values are rarely longer. */
#define COMMENT_COLUMN 44

static void
pad_to(struct buf *out, size_t line_start, size_t column)
{
    do
        buf_str(out, STR(" "));
    while (buf_ok(out) && out->len - line_start < column);
}

static void
print_value(const struct config *c, struct config_target t, const struct config_opt *opt,
    const struct config_shown *v, struct buf *out)
{
    if (config_key_is_secret(str_of(v->key)))
        buf_str(out, STR("********"));
    else if (v->pair != NULL)
        buf_str(out, str_of(v->pair->value));
    else
        config_value_print(opt, config_target_base_const(c, t), out);
}

static void
print_origin(const struct config *c, struct config_target t, const struct config_opt *opt,
    const struct config_shown *v, struct buf *out)
{
    config_origin_print(c, v->pair != NULL ? v->pair->origin : config_origin_of(c, t, opt), out);
}

/* false: enough, or no memory. */
static bool
each_of_section(
    const struct config *c, struct config_target t, config_item_fn fn, void *arg, struct buf *text)
{
    char name[CONFIG_TARGET_NAME_MAX];
    size_t count;
    const struct config_opt *opt = t.sec->opts(&count);
    config_target_name(c, t, name);
    for (size_t i = 0; i < count; i++) {
        struct config_shown v;
        for (size_t k = 0; config_value_nth(&opt[i], config_target_base_const(c, t), k, &v); k++) {
            text->len = 0;
            print_value(c, t, &opt[i], &v, text);
            size_t value_len = text->len;
            print_origin(c, t, &opt[i], &v, text);
            if (!buf_ok(text))
                return false;
            struct config_item it = {.section = name,
                .key = v.key,
                .value = str_n(text->p, value_len),
                .source = str_n(text->p + value_len, text->len - value_len),
                .reloadable = opt[i].reloadable};
            if (!fn(arg, &it))
                return false;
        }
    }
    return true;
}

bool
config_each(const struct config *c, config_item_fn fn, void *arg)
{
    struct buf text;
    bool more = true;
    buf_init(&text, 64 << 10);
    for (size_t i = 0; i < CONFIG_SECTION_COUNT && more; i++) {
        struct config_target t = {.sec = &config_sections[i]};
        size_t times = config_section_count(c, t.sec);
        for (; t.nth < times && more; t.nth++)
            more = each_of_section(c, t, fn, arg, &text);
    }
    bool ok = buf_ok(&text);
    buf_fini(&text);
    return ok;
}

void
config_each_path(const struct config *c, config_path_fn fn, void *arg)
{
    struct config_target t = {0};
    while (config_target_next(c, &t)) {
        size_t count;
        const struct config_opt *opt = t.sec->opts(&count);
        for (size_t i = 0; i < count; i++) {
            char *path;
            if (opt[i].type != CONFIG_PATH)
                continue;
            memcpy(
                &path, (const char *)config_target_base_const(c, t) + opt[i].offset, sizeof path);
            if (path[0] != '\0')
                fn(arg, path);
        }
    }
}

static void
print_section(const struct config *c, struct config_target t, const char *prefix, struct buf *out)
{
    char name[CONFIG_TARGET_NAME_MAX];
    size_t count;
    const struct config_opt *opt = t.sec->opts(&count);
    buf_addf(out, "\n%s[%s]\n", prefix, config_target_name(c, t, name));
    for (size_t i = 0; i < count; i++) {
        struct config_shown v;
        for (size_t k = 0; config_value_nth(&opt[i], config_target_base_const(c, t), k, &v); k++) {
            size_t line_start = out->len;
            bool secret = config_key_is_secret(str_of(v.key));
            buf_addf(out, "%s%s = ", secret ? "# " : prefix, v.key);
            print_value(c, t, &opt[i], &v, out);
            pad_to(out, line_start, COMMENT_COLUMN);
            buf_str(out, STR("; "));
            print_origin(c, t, &opt[i], &v, out);
            buf_str(out, STR("\n"));
        }
    }
}

/* The built-in listeners are printed as comments: read back as sections they would be listeners
 * somebody asked for, and a machine without IPv6 could not start with them. */
static bool
listeners_are_built_in(const struct config *c)
{
    return c->listen_count > 0 && config_listen_is_default(c, 0);
}

void
config_print(const struct config *c, struct buf *out)
{
    buf_str(out, STR("# The whole configuration as chmuxd sees it. Behind each value stands where "
                     "it comes from.\n"));
    for (size_t i = 0; i < CONFIG_SECTION_COUNT; i++) {
        struct config_target t = {.sec = &config_sections[i]};
        bool built_in = i == CONFIG_SECTION_listen && listeners_are_built_in(c);
        if (built_in)
            buf_str(out, STR("\n# No listener is named, so these two are used:\n"));
        for (; t.nth < config_section_count(c, t.sec); t.nth++)
            print_section(c, t, built_in ? "# " : "", out);
    }
}

static const char *
type_text(enum config_type type)
{
    switch (type) {
    case CONFIG_BOOL: return "yes or no";
    case CONFIG_INT: return "number";
    case CONFIG_SIZE: return "size";
    case CONFIG_DURATION: return "duration";
    case CONFIG_STRING: return "text";
    case CONFIG_PATH: return "path";
    case CONFIG_LIST: return "list";
    case CONFIG_ENUM: return "word";
    case CONFIG_PAIRS: return "text";
    }
    check_failed(__FILE__, __LINE__, "config_type");
}

/* A '|' would end the cell, and <NAME> would be taken for HTML. */
static void
print_cell(struct buf *out, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '|' || *text == '<' || *text == '*')
            buf_str(out, STR("\\"));
        buf_add(out, text, 1);
    }
}

static void
reference_row(const struct config_opt *opt, struct buf *out)
{
    char allowed[CONFIG_WHY_MAX];
    config_value_allowed(opt, allowed);
    buf_addf(out, "| `%s` | %s | ", opt->key, type_text(opt->type));
    if (opt->type == CONFIG_PAIRS)
        buf_str(out, STR("(none)"));
    else if (opt->def[0] == '\0')
        buf_str(out, STR("(empty)"));
    else
        buf_addf(out, "`%s`", opt->def);
    buf_str(out, STR(" | "));
    if (opt->type != CONFIG_BOOL)
        print_cell(out, allowed);
    buf_str(out, STR(" | "));
    print_cell(out, opt->text);
    buf_addf(out, " | %s |\n", opt->reloadable ? "reload" : "restart");
}

static void
reference_section(const struct config_section *sec, struct buf *out)
{
    size_t count;
    const struct config_opt *opt = sec->opts(&count);
    buf_addf(out, "\n## [%s]\n\n%s.\n\n", sec->name, sec->text);
    buf_str(out, STR("| key | type | default | allowed | meaning | changed by |\n"
                     "|---|---|---|---|---|---|\n"));
    for (size_t i = 0; i < count; i++)
        reference_row(&opt[i], out);
}

static const char reference_head[] =
    "# Configuration reference\n"
    "\n"
    "<!-- Made from daemon/config/options.def by config_reference(). Do not edit: `make docs`. "
    "-->\n"
    "\n"
    "Every option can be given in three places; later ones win:\n"
    "\n"
    "1. the file named by `--config FILE`: `[section]` lines and `key = value` lines;\n"
    "2. the environment: `CHMUX_<SECTION>_<KEY>`, in upper case, for example\n"
    "   `CHMUX_UPSTREAM_POOL_SIZE=8`; for a section with a name `CHMUX_<SECTION>_<NAME>_<KEY>`, "
    "for\n"
    "   example `CHMUX_LISTEN_WEB_BACKLOG=9`, whatever is neither letter nor digit written `_`;\n"
    "3. flags: `--set section.key=value`, `--set section.NAME.key=value`, and the short forms in\n"
    "   [USAGE.md](USAGE.md).\n"
    "\n"
    "`chmuxd --check` reads all of it, prints every mistake and exits; `chmuxd --print-config`\n"
    "prints each value with the place it comes from. A name that does not exist, a value out of\n"
    "bounds and a key given twice are errors, never ignored.\n"
    "\n"
    "**Lines.** Comments begin with `;` or `#` in front, or with a space and `;` behind a value.\n"
    "Blanks around keys and values do not count. Values are not quoted.\n"
    "**Durations** carry a unit: `us`, `ms`, `s`, `m`, `h`, `d`. **Sizes** do too: `b`, `k`, `m`,\n"
    "`g`, `t` (1k is 1024). Only 0 may stand alone. **Yes or no** may also be written `true` or\n"
    "`false`, `on` or `off`, `1` or `0`. **Lists** are separated by commas.\n"
    "\n"
    "**Listeners.** Each `[listen NAME]` is one; up to 32. Without any, chmuxd listens on\n"
    "`127.0.0.1:8123` and `[::1]:8123`; one of these two may be missing, for example on a machine\n"
    "without IPv6.\n"
    "\n"
    "**Changed by.** `reload`: SIGHUP or `POST /api/v1/reload` puts another value in force, see\n"
    "[USAGE.md](USAGE.md#reload). `restart`: a reload only says that the value waits for one.\n"
    "\n"
    "**Upstreams.** `[upstream]` is the default one, and may be written `[upstream default]`. "
    "Each\n"
    "`[upstream NAME]` is one more, up to 16 in all, with servers, pool, queue, TLS and sessions "
    "of\n"
    "its own; it needs a `url`, and what else is not set in it has the default of the table, not "
    "the\n"
    "value of `[upstream]`. In the environment `CHMUX_UPSTREAM_<KEY>` is the default one's and\n"
    "`CHMUX_UPSTREAM_<NAME>_<KEY>` another's, as flags are `upstream.key` and "
    "`upstream.NAME.key`.\n"
    "Where a request goes, the first that says something decides:\n"
    "\n"
    "1. its listener: `[listen NAME] upstream`;\n"
    "2. its ClickHouse user: `[upstream NAME] users`;\n"
    "3. the database it names (`X-ClickHouse-Database`, else `database=`): `[upstream NAME] "
    "databases`;\n"
    "4. else the default upstream.\n"
    "\n"
    "Names must match byte for byte. A reload changes all of it, but which upstreams there are.\n"
    "\n"
    "**In Kubernetes** the variables it sets for a service named `chmux` (`CHMUX_SERVICE_HOST`,\n"
    "`CHMUX_PORT=tcp://...`) are passed over; any other unknown `CHMUX_` variable is an error.\n";

void
config_reference(struct buf *out)
{
    buf_str(out, str_of(reference_head));
    for (size_t i = 0; i < CONFIG_SECTION_COUNT; i++)
        reference_section(&config_sections[i], out);
}
