#include "t.h"

#include "clickhouse/ch.h"

/* The masked text, good until the next call. */
static const char *
mask(struct str sql, bool whole, size_t max)
{
    static char text[4096];
    struct buf out;
    buf_init(&out, 1 << 20);
    buf_str(&out, STR("before:")); /* what was there stays */
    ch_mask_sql(&out, sql, whole, max);
    T_TRUE(buf_ok(&out) && out.len - 7 <= max && memcmp(out.p, "before:", 7) == 0);
    snprintf(text, sizeof text, "%.*s", (int)out.len - 7, out.p + 7);
    buf_fini(&out);
    return text;
}

struct sql_case {
    const char *sql, *masked;
};

static void
check(const struct sql_case *c, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const char *got = mask(str_of(c[i].sql), true, 1000);
        if (strcmp(got, c[i].masked) != 0)
            fail_msg("%s: got %s, want %s", c[i].sql, got, c[i].masked);
    }
}

static void
test_values_become_question_marks(void **state)
{
    (void)state;
    static const struct sql_case cases[] = {
        {"", ""}, {"SELECT a FROM t WHERE b = 'secret'", "SELECT a FROM t WHERE b = ?"},
        {"SELECT 'it\\'s', 'it''s', '', 'a\\\\' , 'b'", "SELECT ?, ?, ?, ? , ?"},
        {"SELECT 1, -2, 1.5, .5, 1e10, 1.5E-7, 0x1F, 0b101, 0x1.8p+3, 1_000",
            "SELECT ?, -?, ?, ?, ?, ?, ?, ?, ?, ?"},
        {"SELECT x'414243', B'0101', X '41'", "SELECT ?, ?, X ?"},
        {"SELECT 12abc, t1.c2, t.1, a-1", "SELECT ?, t1.c2, t.?, a-?"},
        {"SELECT 1e-5-6", "SELECT ?-?"},
        {"SELECT $$ text $$, $tag$ a $ta$ 'b' $tag$, 1", "SELECT ?, ?, ?"},
        {"SELECT a$b, c$", "SELECT a$b, c$"}, {"SELECT $ 1", "SELECT $ ?"},
        {"SELECT {id:UInt64}", "SELECT {id:UInt64}"},
        {"CREATE USER bob IDENTIFIED BY 'pw' HOST IP '10.0.0.1'",
            "CREATE USER bob IDENTIFIED BY ? HOST IP ?"},
        {"SELECT * FROM mysql('h:3306', 'db', 't', 'u', 'pw')",
            "SELECT * FROM mysql(?, ?, ?, ?, ?)"},
        {"SELECT \u2018secret\u2019, \u201cname\u201d, 1", "SELECT ?, ?, ?"},
        {"SELECT na\u00efve", "SELECT na?ve"}, /* no name has it unquoted */
    };
    check(cases, COUNT_OF(cases));
}

static void
test_names_stay(void **state)
{
    (void)state;
    static const struct sql_case cases[] = {
        {"SELECT `a b`, \"c\"\"d\", `e\\`f`, `1` FROM `na\u00efve`.\"t 1\"",
            "SELECT `a b`, \"c\"\"d\", `e\\`f`, `1` FROM `na\u00efve`.\"t 1\""},
        {"SELECT `a\nb\xff`", "SELECT `a?b?`"}, /* but not what could forge a line */
        {"SELECT toDate(d), x -> x * 2, a ? b : c", "SELECT toDate(d), x -> x * ?, a ? b : c"},
    };
    check(cases, COUNT_OF(cases));
}

static void
test_comments_and_space_go(void **state)
{
    (void)state;
    static const struct sql_case cases[] = {
        {"  SELECT\t\n 1  ", "SELECT ?"},
        {"SELECT -- bob's password\n a", "SELECT a"},
        {"SELECT a--b\n,c # 'x\n,d #! y\n,e#f", "SELECT a ,c ,d ,e"},
        {"/* for 'bob' */ SELECT/**/a /* and */", "SELECT a"},
        {"SELECT a\x01\x7f\x0b b", "SELECT a b"},
        {"SELECT a -- to the end", "SELECT a"},
    };
    check(cases, COUNT_OF(cases));
}

/* What does not end hides all behind it. */
static void
test_in_doubt_nothing(void **state)
{
    (void)state;
    static const struct sql_case cases[] = {
        {"SELECT 'open AND secret", "SELECT ?..."},
        {"SELECT 'open\\", "SELECT ?..."},
        {"SELECT `open AND secret", "SELECT ?..."},
        {"SELECT \"open", "SELECT ?..."},
        {"SELECT $t$ open secret", "SELECT ?..."},
        {"SELECT $a b$ secret $a b$", "SELECT ?..."}, /* a tag of another server? */
        {"SELECT x'41", "SELECT ?..."},
        {"SELECT a /* secret", "SELECT a..."},
        {"SELECT a /* 1 /* 2 */ secret */", "SELECT a..."}, /* nested: servers differ */
        {"SELECT \u2018open", "SELECT ?..."},
    };
    check(cases, COUNT_OF(cases));
}

static void
test_insert_data_is_hidden(void **state)
{
    (void)state;
    static const struct sql_case cases[] = {
        {"INSERT INTO t FORMAT TSV\nalice\tsecret", "INSERT INTO t FORMAT TSV..."},
        {"insert into t (a, b) values (1, alice)", "insert into t (a, b) values..."},
        {"INSERT INTO t FORMAT /* x */ JSONEachRow {\"a\": alice}",
            "INSERT INTO t FORMAT JSONEachRow..."},
        {"INSERT INTO t FORMAT TSV", "INSERT INTO t FORMAT TSV"},
        {"INSERT INTO t (format, x) SELECT a, b FROM u",
            "INSERT INTO t (format, x) SELECT a, b FROM u"},
        {"SELECT format, values FROM t FORMAT JSON SETTINGS a = 1",
            "SELECT format, values FROM t FORMAT JSON SETTINGS a = ?"},
    };
    check(cases, COUNT_OF(cases));
}

/* Bound: max bytes with the dots, cut between characters; an end that is not the query's shows. */
static void
test_bounds(void **state)
{
    (void)state;
    T_ZEQ(mask(STR("SELECT abc"), true, 10), "SELECT abc");
    T_ZEQ(mask(STR("SELECT abcd"), true, 10), "SELECT ...");
    T_ZEQ(mask(STR("SELECT abc"), false, 13), "SELECT abc...");
    T_ZEQ(mask(STR("SELECT abc"), false, 12), "SELECT ab...");
    T_ZEQ(mask(STR("`\u00e4\u00e4\u00e4\u00e4`"), true, 8), "`\u00e4\u00e4...");
    T_ZEQ(mask(STR("`\u00e4\u00e4\u00e4\u00e4`"), true, 7), "`\u00e4...");
    T_ZEQ(mask(STR("SELECT"), true, 3), "...");
    T_ZEQ(mask(STR("SELECT"), true, 2), "..");
    T_ZEQ(mask(STR("SELECT"), true, 0), "");
}

/* Wherever the text is cut, as a body's first bytes are, no value shows. */
static void
test_every_cut(void **state)
{
    (void)state;
    static const char sql[] = "SELECT a, 'SECRET', $x$SECRET$x$, x'SECRET', 12345, /* SECRET */ "
                              "\u2018SECRET\u2019 -- SECRET\n"
                              "FROM t WHERE b = 'SE\\'CRET' AND c IN (12345, 'SE''CRET')";
    for (size_t len = 0; len < sizeof sql; len++) {
        const char *got = mask(str_n(sql, len), false, 1000);
        T_TRUE(
            strstr(got, "SE") == NULL || strncmp(strstr(got, "SE"), "SELECT", 6) == 0 || len < 6);
        T_TRUE(strstr(got + size_min(strlen(got), 6), "SECR") == NULL);
        T_TRUE(strstr(got, "CRET") == NULL && strpbrk(got, "12345") == NULL);
    }
}

static void
test_no_memory(void **state)
{
    (void)state;
    struct buf out;
    buf_init(&out, 4);
    ch_mask_sql(&out, STR("SELECT a, b, c FROM t"), true, 100);
    T_FALSE(buf_ok(&out));
    buf_fini(&out);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_values_become_question_marks),
        TEST(test_names_stay),
        TEST(test_comments_and_space_go),
        TEST(test_in_doubt_nothing),
        TEST(test_insert_data_is_hidden),
        TEST(test_bounds),
        TEST(test_every_cut),
        TEST(test_no_memory),
    };
    return TEST_MAIN(tests);
}
