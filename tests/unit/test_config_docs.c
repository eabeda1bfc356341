/*
 * docs/CONFIG.md and the files in conf/ against the table. To write docs/CONFIG.md anew, run this
 * test with CONFIG_DOCS_WRITE=1 in the environment (`make docs`).
 */
#include <stdio.h>

#include "config/config.h"
#include "config/config_table.h"
#include "t.h"

#define FILE_BYTES ((size_t)256 << 10)

/* The path of a file of the tree. Not from __FILE__, which ccache may make relative. */
static const char *
tree_path(const char *name, char out[PATH_MAX])
{
    snprintf(out, PATH_MAX, "%s/%s", TREE, name);
    return out;
}

static struct buf
tree_file(const char *name)
{
    char path[PATH_MAX], chunk[4096];
    struct buf b;
    buf_init(&b, FILE_BYTES);
    FILE *f = fopen(tree_path(name, path), "rb");
    if (f == NULL)
        print_error("%s: %s\n", path, strerror(errno));
    T_TRUE(f != NULL);
    for (size_t n; (n = fread(chunk, 1, sizeof(chunk), f)) > 0;)
        buf_add(&b, chunk, n);
    fclose(f);
    T_TRUE(buf_ok(&b) && b.len > 0);
    return b;
}

static void
test_reference_in_the_tree_is_up_to_date(void **state)
{
    (void)state;
    char path[PATH_MAX];
    struct buf want;
    buf_init(&want, FILE_BYTES);
    config_reference(&want);
    T_TRUE(buf_ok(&want) && want.len > 0);
    if (getenv("CONFIG_DOCS_WRITE") != NULL) {
        FILE *f = fopen(tree_path("docs/CONFIG.md", path), "wb");
        T_TRUE(f != NULL && fwrite(want.p, 1, want.len, f) == want.len && fclose(f) == 0);
    }
    struct buf have = tree_file("docs/CONFIG.md");
    if (!str_eq(str_n(have.p, have.len), str_n(want.p, want.len)))
        print_error("docs/CONFIG.md is not what the table says: run make docs\n");
    T_TRUE(str_eq(str_n(have.p, have.len), str_n(want.p, want.len)));
    buf_fini(&have);
    buf_fini(&want);
}

static void
test_reference_has_every_option(void **state)
{
    (void)state;
    struct buf b;
    char row[128];
    buf_init(&b, FILE_BYTES);
    config_reference(&b);
    for (size_t s = 0; s < CONFIG_SECTION_COUNT; s++) {
        size_t count;
        const struct config_opt *opt = config_sections[s].opts(&count);
        for (size_t i = 0; i < count; i++) {
            snprintf(row, sizeof(row), "\n| `%s` | ", opt[i].key);
            T_TRUE(memmem(b.p, b.len, row, strlen(row)) != NULL);
        }
    }
    buf_fini(&b);
}

static struct config *
load(const char *name, struct str text)
{
    struct config_source src = {.file_name = name, .file_text = text};
    struct buf errors;
    buf_init(&errors, FILE_BYTES);
    struct config *c = config_load(&src, &errors);
    T_STR(str_n(errors.p, errors.len), "");
    T_TRUE(c != NULL);
    buf_fini(&errors);
    return c;
}

/* The printed form, without where the values come from. */
static struct buf
values(struct config *c)
{
    struct buf b, out;
    buf_init(&b, FILE_BYTES);
    buf_init(&out, FILE_BYTES);
    config_print(c, &b);
    struct str rest = str_n(b.p, b.len);
    while (rest.len > 0) {
        ssize_t lf = str_find(rest, '\n');
        T_TRUE(lf >= 0);
        struct str line = str_n(rest.p, (size_t)lf);
        const char *comment = memmem(line.p, line.len, " ; ", 3);
        buf_add(&out, line.p, comment == NULL ? line.len : (size_t)(comment - line.p));
        buf_add(&out, "\n", 1);
        rest = str_n(rest.p + lf + 1, rest.len - (size_t)lf - 1);
    }
    buf_fini(&b);
    return out;
}

static void
loads_to_the_defaults(const char *name, struct str text)
{
    struct config *none = load(NULL, STR(""));
    struct config *c = load(name, text);
    struct buf want = values(none), have = values(c);
    T_TRUE(str_eq(str_n(have.p, have.len), str_n(want.p, want.len)));
    buf_fini(&want);
    buf_fini(&have);
    config_free(&none);
    config_free(&c);
}

static void
test_files_in_conf_load_to_the_defaults(void **state)
{
    (void)state;
    static const char *const names[] = {"conf/chmux.conf", "conf/chmux-minimal.conf"};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        struct buf b = tree_file(names[i]);
        loads_to_the_defaults(names[i], str_n(b.p, b.len));
        buf_fini(&b);
    }
}

/* chmux.conf with every '#' before "key = value" or "[section]" taken away. */
static struct buf
uncommented(struct str text)
{
    struct buf out;
    buf_init(&out, FILE_BYTES);
    while (text.len > 0) {
        ssize_t lf = str_find(text, '\n');
        T_TRUE(lf >= 0);
        struct str line = str_n(text.p, (size_t)lf);
        if (line.len > 1 && line.p[0] == '#' && line.p[1] != ' ')
            line = str_n(line.p + 1, line.len - 1);
        buf_str(&out, line);
        buf_add(&out, "\n", 1);
        text = str_n(text.p + lf + 1, text.len - (size_t)lf - 1);
    }
    return out;
}

/* Taken at its word, the file gives the same again; so what it shows as defaults are the defaults,
 * and every name in it exists. */
static void
test_what_chmux_conf_shows_is_the_default(void **state)
{
    (void)state;
    struct buf b = tree_file("conf/chmux.conf");
    struct buf open = uncommented(str_n(b.p, b.len));
    struct config *c, *none = load("x", STR("[user local]\n"));
    struct config_source src = {.file_name = "chmux.conf", .file_text = str_n(open.p, open.len)};
    const struct config_flag address = {"--set", "listen.local.address", "127.0.0.1:8123"};
    struct buf errors;
    buf_init(&errors, FILE_BYTES);
    src.flags = &address; /* the one option whose default cannot be used */
    src.flag_count = 1;
    c = config_load(&src, &errors);
    T_STR(str_n(errors.p, errors.len), "");
    T_TRUE(c != NULL);
    T_EQ(c->listen_count, 1);
    T_ZEQ(c->listen[0].mode, none->listen[0].mode);
    T_ZEQ(c->listen[0].group, none->listen[0].group);
    T_EQ(c->listen[0].backlog, none->listen[0].backlog);
    struct buf want = values(none), have = values(c);
    /* Listeners aside, the printed forms agree. */
    struct str a = str_n(want.p, want.len), z = str_n(have.p, have.len);
    const char *a_up = memmem(a.p, a.len, "[upstream]", 10),
               *z_up = memmem(z.p, z.len, "[upstream]", 10);
    const char *a_no = memmem(a.p, a.len, "\n# No", 5), *z_no = memmem(z.p, z.len, "\n[listen", 8);
    T_TRUE(a_up != NULL && z_up != NULL && a_no != NULL && z_no != NULL);
    T_TRUE(str_eq(str_n(a.p, (size_t)(a_no - a.p)), str_n(z.p, (size_t)(z_no - z.p))));
    T_TRUE(str_eq(
        str_n(a_up, a.len - (size_t)(a_up - a.p)), str_n(z_up, z.len - (size_t)(z_up - z.p))));
    buf_fini(&want);
    buf_fini(&have);
    buf_fini(&errors);
    buf_fini(&open);
    buf_fini(&b);
    config_free(&none);
    config_free(&c);
}

static struct str
next_section(struct str text)
{
    for (size_t i = 1; i < text.len; i++)
        if (text.p[i - 1] == '\n' &&
            (text.p[i] == '[' || (text.p[i] == '#' && i + 1 < text.len && text.p[i + 1] == '[')))
            return str_n(text.p + i, text.len - i);
    return str_n(text.p + text.len, 0);
}

static void
test_chmux_conf_has_every_option_in_its_section(void **state)
{
    (void)state;
    struct buf b = tree_file("conf/chmux.conf");
    struct str rest = next_section(str_n(b.p, b.len));
    for (size_t s = 0; s < CONFIG_SECTION_COUNT; s++) {
        struct str after = next_section(rest);
        struct str part = str_n(rest.p, rest.len - after.len);
        char line[128];
        bool needs_name =
            config_section_repeats(&config_sections[s]) && config_sections[s].first[0] == '\0';
        snprintf(line, sizeof(line), needs_name ? "#[%s local]" : "[%s]", config_sections[s].id);
        T_TRUE(part.len > strlen(line) && memcmp(part.p, line, strlen(line)) == 0);
        size_t count;
        const struct config_opt *opt = config_sections[s].opts(&count);
        for (size_t i = 0; i < count; i++) {
            if (opt[i].type == CONFIG_PAIRS) { /* shown by an example: there is no default */
                T_TRUE(memmem(part.p, part.len, opt[i].key, strlen(opt[i].key)) != NULL);
                continue;
            }
            snprintf(line, sizeof(line), opt[i].def[0] == '\0' ? "\n#%s =%s\n" : "\n#%s = %s\n",
                opt[i].key, opt[i].def);
            if (memmem(part.p, part.len, line, strlen(line)) == NULL)
                print_error("conf/chmux.conf, [%s]: no line%s", config_sections[s].id, line);
            T_TRUE(memmem(part.p, part.len, line, strlen(line)) != NULL);
        }
        rest = after;
    }
    T_EQ(rest.len, 0);
    buf_fini(&b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_reference_in_the_tree_is_up_to_date),
        TEST(test_reference_has_every_option),
        TEST(test_files_in_conf_load_to_the_defaults),
        TEST(test_what_chmux_conf_shows_is_the_default),
        TEST(test_chmux_conf_has_every_option_in_its_section),
    };
    return TEST_MAIN(tests);
}
