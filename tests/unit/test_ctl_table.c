/* table: aligned columns. */
#include "ctl/table.h"
#include "t.h"

static void
check_table(struct table *t, const char *want)
{
    struct buf b;
    buf_init(&b, 1 << 20);
    table_print(t, &b);
    T_TRUE(buf_ok(&b));
    T_STR(str_n(b.p, b.len), want);
    buf_fini(&b);
    table_fini(t);
}

static void
cells(struct table *t, const char *const *texts, size_t count)
{
    for (size_t i = 0; i < count; i++)
        table_cell(t, str_of(texts[i]));
}
#define CELLS(t, ...)                                                                              \
    cells(t, (const char *const[]){__VA_ARGS__}, COUNT_OF(((const char *const[]){__VA_ARGS__})))

static void
test_columns_are_aligned_and_lines_end_without_spaces(void **state)
{
    (void)state;
    struct table t;
    table_init(&t);
    table_column(&t, STR("NAME"), false);
    table_column(&t, STR("SIZE"), true);
    table_column(&t, STR("NOTE"), false);
    CELLS(&t, "a", "1 B", "x", "longer", "123 MiB", "", "", "", "");
    check_table(&t, "NAME       SIZE  NOTE\n"
                    "a           1 B  x\n"
                    "longer  123 MiB\n"
                    "\n");
}

static void
test_without_headings_there_is_no_line_of_them(void **state)
{
    (void)state;
    struct table t;
    table_init(&t);
    table_column(&t, STR(""), false);
    table_column(&t, STR(""), true);
    CELLS(&t, "a", "1", "bb", "22");
    check_table(&t, "a    1\nbb  22\n");
}

/* Bound: a long cell moves its own row only. */
static void
test_a_long_cell_does_not_widen_the_table(void **state)
{
    (void)state;
    char text[TABLE_PAD_MAX + 2];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    struct table t;
    char want[256];
    table_init(&t);
    table_column(&t, STR("A"), false);
    table_column(&t, STR("B"), false);
    CELLS(&t, "short", "1", text, "2");
    snprintf(want, sizeof want, "A      B\nshort  1\n%s  2\n", text);
    check_table(&t, want);
}

static void
test_text_is_made_harmless(void **state)
{
    (void)state;
    struct table t;
    table_init(&t);
    table_column(&t, STR("A"), false);
    table_column(&t, STR("B"), false);
    CELLS(&t, "a\n\x1b[2J", "b");
    check_table(&t, "A             B\n"
                    "a\\x0a\\x1b[2J  b\n");
}

/* Errors: no memory for the text is no half table. */
static void
test_without_memory_nothing_is_printed(void **state)
{
    (void)state;
    struct table t;
    struct buf b;
    table_init(&t);
    buf_init(&b, 1 << 20);
    table_column(&t, STR("A"), false);
    t.text.max = t.text.len; /* full */
    mem_fail_at(1);
    char big[2048];
    memset(big, 'x', sizeof big);
    table_cell(&t, str_n(big, sizeof big));
    mem_fail_at(0);
    table_cell(&t, STR("later"));
    table_print(&t, &b);
    T_FALSE(buf_ok(&b));
    T_EQ(b.len, 0);
    buf_fini(&b);
    table_fini(&t);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_columns_are_aligned_and_lines_end_without_spaces),
        TEST(test_without_headings_there_is_no_line_of_them),
        TEST(test_a_long_cell_does_not_widen_the_table),
        TEST(test_text_is_made_harmless),
        TEST(test_without_memory_nothing_is_printed),
    };
    return TEST_MAIN(tests);
}
