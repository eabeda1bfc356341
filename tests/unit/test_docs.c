/*
 * The documents against the tables they speak of: USAGE.md has a row for every error and metric,
 * README.md shows true defaults and names tests that exist.
 */
#include <glob.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/err.h"
#include "config/config_table.h"
#include "t.h"

#define FILE_BYTES ((size_t)1 << 20)

/* The path of a file of the tree. Not from __FILE__, which ccache may make relative. */
static const char *
tree_path(const char *name, char out[PATH_MAX])
{
    snprintf(out, PATH_MAX, "%s/%s", TREE, name);
    return out;
}

static void
append_file(const char *path, struct buf *b)
{
    char chunk[4096];
    FILE *f = fopen(path, "rb");
    if (f == NULL)
        print_error("%s: %s\n", path, strerror(errno));
    T_TRUE(f != NULL);
    for (size_t n; (n = fread(chunk, 1, sizeof(chunk), f)) > 0;)
        buf_add(b, chunk, n);
    fclose(f);
    T_TRUE(buf_ok(b) && b->len > 0);
}

static struct buf
tree_file(const char *name)
{
    char path[PATH_MAX];
    struct buf b;
    buf_init(&b, FILE_BYTES);
    append_file(tree_path(name, path), &b);
    return b;
}

static bool
has(const struct buf *b, const char *text)
{
    return memmem(b->p, b->len, text, strlen(text)) != NULL;
}

/* The line of b that begins with `start`. */
static struct str
line_of(const struct buf *b, const char *start)
{
    size_t len = strlen(start);
    for (size_t i = 0; i + len <= b->len; i++) {
        if ((i > 0 && b->p[i - 1] != '\n') || memcmp(b->p + i, start, len) != 0)
            continue;
        const char *end = memchr(b->p + i, '\n', b->len - i);
        return str_n(b->p + i, end == NULL ? b->len - i : (size_t)(end - b->p) - i);
    }
    print_error("no line begins with \"%s\"\n", start);
    T_TRUE(false);
    return STR_NULL;
}

static void
test_usage_has_a_row_for_every_error(void **state)
{
    (void)state;
    struct buf b = tree_file("docs/USAGE.md");
    char row[128];
    for (unsigned e = ERR_OK + 1; e < ERR_COUNT; e++) {
        const struct err_info *info = err_info((enum err)e);
        snprintf(row, sizeof(row), "\n| `%s` | %d | %d %s |", info->token, info->status, info->code,
            info->code_name);
        if (!has(&b, row))
            print_error("docs/USAGE.md lacks the row of %s:%s\n", info->name, row);
        T_TRUE(has(&b, row));
    }
    buf_fini(&b);
}

struct metric_row {
    const char *type, *name, *labels, *help;
};

static const struct metric_row metric_rows[] = {
#define COUNTER(id, name, labels, help) {"counter", name, labels, help},
#define GAUGE(id, name, labels, help)   {"gauge", name, labels, help},
#define HISTOGRAM(id, name, help)       {"histogram", name, "", help},
#include "base/metric.def"
#undef COUNTER
#undef GAUGE
#undef HISTOGRAM
};

static void
test_usage_has_a_row_for_every_metric(void **state)
{
    (void)state;
    struct buf b = tree_file("docs/USAGE.md");
    char start[128], label[128];
    for (size_t i = 0; i < COUNT_OF(metric_rows); i++) {
        const struct metric_row *m = &metric_rows[i];
        snprintf(start, sizeof(start), "| `%s` | %s | ", m->name, m->type);
        struct str row = line_of(&b, start);
        snprintf(label, sizeof(label), m->labels[0] == '\0' ? "%s" : "`%s`", m->labels);
        if (memmem(row.p, row.len, label, strlen(label)) == NULL ||
            memmem(row.p, row.len, m->help, strlen(m->help)) == NULL) {
            print_error(
                "docs/USAGE.md: the row of %s lacks %s or \"%s\"\n", m->name, label, m->help);
            T_TRUE(false);
        }
    }
    buf_fini(&b);
}

static void
expect_named(const struct buf *b, const char *kind, struct str name)
{
    char want[128];
    snprintf(want, sizeof(want), "`" STR_FMT "`", STR_ARG(name));
    if (!has(b, want))
        print_error("docs/OPERATIONS.md does not say what to do about %s %s\n", kind, want);
    T_TRUE(has(b, want));
}

static void
test_operations_names_every_metric_and_error(void **state)
{
    (void)state;
    struct buf b = tree_file("docs/OPERATIONS.md");
    for (size_t i = 0; i < COUNT_OF(metric_rows); i++)
        expect_named(&b, "metric", str_of(metric_rows[i].name));
    for (unsigned e = ERR_OK + 1; e < ERR_COUNT; e++)
        expect_named(&b, "error", str_of(err_info((enum err)e)->token));
    buf_fini(&b);
}

/* Every source of the daemon, as one text. */
static struct buf
all_sources(void)
{
    char pattern[PATH_MAX];
    struct buf b;
    glob_t found;
    buf_init(&b, 4 * FILE_BYTES);
    T_EQ(glob(tree_path("daemon/*.c", pattern), 0, NULL, &found), 0);
    T_EQ(glob(tree_path("daemon/*/*.c", pattern), GLOB_APPEND, NULL, &found), 0);
    for (size_t i = 0; i < found.gl_pathc; i++)
        append_file(found.gl_pathv[i], &b);
    globfree(&found);
    return b;
}

/* Behind LOG_E(, LOG_W( and LOG_I(: the event is the first word of the text. Behind log_fields( and
 * log_lines( and their level: it is the text, or one of two. NULL: nothing of the kind begins here.
 */
static const char *
event_at(const char *p)
{
    if (memcmp(p, "LOG_", 4) == 0 && strchr("EWI", p[4]) != NULL && p[5] == '(') {
        p += 6 + strspn(p + 6, " \n");
        return *p == '"' ? p + 1 : NULL;
    }
    if (strncmp(p, "log_fields(LOG_", 15) != 0 && strncmp(p, "log_lines(LOG_", 14) != 0)
        return NULL;
    p += strcspn(p, "(") + 5;
    if (strchr("EWI", *p) == NULL) /* nobody has to do anything about what is at debug */
        return NULL;
    p += strcspn(p, ",");
    return p + strcspn(p, "\"") + 1;
}

static void
test_operations_names_every_log_event(void **state)
{
    (void)state;
    struct buf b = tree_file("docs/OPERATIONS.md"), code = all_sources();
    size_t events = 0;
    for (const char *at = code.p, *end = code.p + code.len; end - at > 200; at++) {
        const char *p = event_at(at);
        while (p != NULL) {
            struct str name = str_n(p, strspn(p, "abcdefghijklmnopqrstuvwxyz_"));
            T_TRUE(name.len > 0);
            expect_named(&b, "log event", name);
            events++;
            bool other = memcmp(p + name.len, "\" : \"", 5) == 0;
            p = other ? p + name.len + 5 : NULL;
        }
    }
    T_TRUE(events > 40);
    buf_fini(&b);
    buf_fini(&code);
}

/* README's table: | `[section] key`... | `default` | ... */
static void
test_readme_shows_true_defaults(void **state)
{
    (void)state;
    struct buf b = tree_file("README.md");
    char row[128], def[64];
    size_t shown = 0;
    for (size_t s = 0; s < CONFIG_SECTION_COUNT; s++) {
        size_t count;
        const struct config_opt *opt = config_sections[s].opts(&count);
        for (size_t i = 0; i < count; i++) {
            snprintf(row, sizeof(row), "\n| `[%s] %s`", config_sections[s].name, opt[i].key);
            if (!has(&b, row))
                continue;
            shown++;
            struct str line = line_of(&b, row + 1);
            snprintf(def, sizeof(def), " | `%s` | ", opt[i].def);
            if (opt[i].def[0] != '\0' && memmem(line.p, line.len, def, strlen(def)) == NULL) {
                print_error("README.md: wrong default of %s\n", opt[i].key);
                T_TRUE(false);
            }
        }
    }
    T_EQ(shown, 10);
    buf_fini(&b);
}

/* Every system test and lint, as one text. */
static struct buf
all_tests(void)
{
    char pattern[PATH_MAX];
    struct buf b;
    glob_t found;
    buf_init(&b, FILE_BYTES);
    T_EQ(glob(tree_path("tests/system/test_*.py", pattern), 0, NULL, &found), 0);
    for (size_t i = 0; i < found.gl_pathc; i++)
        append_file(found.gl_pathv[i], &b);
    globfree(&found);
    append_file(tree_path("tests/lint/CMakeLists.txt", pattern), &b);
    return b;
}

static void
test_readme_names_tests_that_exist(void **state)
{
    (void)state;
    struct buf b = tree_file("README.md"), tests = all_tests();
    size_t named = 0;
    for (size_t i = 0; i + 6 < b.len; i++) {
        if (b.p[i] != '`' ||
            (memcmp(b.p + i + 1, "test_", 5) != 0 && memcmp(b.p + i + 1, "lint_", 5) != 0))
            continue;
        const char *end = memchr(b.p + i + 1, '`', b.len - i - 1);
        T_TRUE(end != NULL);
        struct str name = str_n(b.p + i + 1, (size_t)(end - b.p) - i - 1);
        char want[160];
        snprintf(want, sizeof(want), name.p[0] == 't' ? "def " STR_FMT "(" : "(" STR_FMT " ",
            STR_ARG(name));
        if (!has(&tests, want))
            print_error("README.md names " STR_FMT ", which does not exist\n", STR_ARG(name));
        T_TRUE(has(&tests, want));
        named++;
        i += name.len + 1;
    }
    T_TRUE(named >= 9); /* one promise, one test at least */
    buf_fini(&b);
    buf_fini(&tests);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_usage_has_a_row_for_every_error),
        TEST(test_usage_has_a_row_for_every_metric),
        TEST(test_operations_names_every_metric_and_error),
        TEST(test_operations_names_every_log_event),
        TEST(test_readme_shows_true_defaults),
        TEST(test_readme_names_tests_that_exist),
    };
    return TEST_MAIN(tests);
}
