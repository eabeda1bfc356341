#include "t.h"

#include "clickhouse/ch.h"

static void
is(const char *sql, enum ch_class want)
{
    enum ch_class got = ch_classify(str_of(sql), true);
    if (got != want)
        print_error("class %d, not %d: %s\n", (int)got, (int)want, sql);
    T_EQ(got, want);
}

static void
test_reads(void **state)
{
    (void)state;
    static const char *const texts[] = {"select 1", "SELECT", "  \t\r\n\v\fSeLeCt 1", "(select 1)",
        "( ( (SELECT 1) union all select 2))", "-- hello\nselect 1", "--\nselect 1",
        "#!/usr/bin/clickhouse\nselect 1", "# hash\nselect 1", "/* a */ /**/ select 1",
        "/* * / */select 1", "/*/ insert */select 1", "show tables", "describe table t", "desc t",
        "exists table t", "explain insert into t select 1", "explain (select 1)",
        "explain analyze select 1", "from t select *", "select'insert into t'", "select/**/1",
        "select(1)", "select 1 into outfile 'x'", "select * from url('http://x', 'TSV', 'a Int8')",
        "with 1 as a select a", "with x as (select 'insert') select `insert` from x -- insert\n",
        "with x as (select \"insert\" /* insert */) select 1 # insert",
        "with 'it''s' as a select a", "with 'a\\'insert' as a select a",
        "with $$ it's insert $$ as a select a", "with $t$ $$ insert $ t$ $t$ as a select a",
        "with $$$$ as a select 1",
        "WITH inserted AS (SELECT 1) SELECT re_insert, insert1 FROM inserted",
        "with a$insert as (select 1) select 1", "with a - b / c # d\nselect 1"};
    for (size_t i = 0; i < COUNT_OF(texts); i++)
        is(texts[i], CH_READ);
}

static void
test_inserts_with_data(void **state)
{
    (void)state;
    static const char *const texts[] = {"insert into t values (1)", "INSERT INTO t VALUES",
        "insert into t format TSV\n1\t2", "insert into t(a, b) format CSV", "insert into t",
        "insert into db.t format JSONEachRow {\"a\":\"select\"}", "insert t values (1)",
        "insert into table t values (1)", "insert into function null('a Int8') values (1)",
        "insert into table function file('x', 'select') format TSV",
        "insert into select values (1)", "insert into values values (1)",
        "insert into `a select` values (1)", "insert into db.`select` format TSV",
        "insert into db.select format TSV", "insert into t (select, with) values (1)",
        "insert into t (with) values (1)", "insert into t settings async_insert=1 format TSV",
        "insert into t from infile 'x' format TSV",
        "insert into t select * from input('a Int8') format TSV",
        "insert into t select * from INPUT ('a Int8')", "insert into t select 1 format TSV",
        "insert into t (a, b) select a, b from input('a Int8, b Int8') where a > 1 format CSV\n1,2",
        "/* select */ insert into t values (1)", "insert into t values ('it''s select')",
        "insert into t select 'never closed", "insert into t select 1 /* never closed",
        "with 1 as a insert into t values (1)",
        "with a as (select 1) insert into t select 1 format X",
        "insert into t select \xe2\x80\x98 1", "insert into t () values (1)",
        "insert into t (* except(a)) values (1)"};
    for (size_t i = 0; i < COUNT_OF(texts); i++)
        is(texts[i], CH_INSERT);
}

static void
test_insert_selects(void **state)
{
    (void)state;
    static const char *const texts[] = {"insert into t select 1", "INSERT INTO t SELECT * FROM x",
        "insert into t (a, b) select 1, 2", "insert into t with 1 as a select a",
        "insert into db.t(a) select format('{}', 1)", "insert into t select input from x",
        "insert into t (select * from x)", "insert into t ((select 1))",
        "insert into function null('a Int8') select 1",
        "insert into table function f(g(1)) select 1",
        "insert into t settings max_threads=1 select 1", "insert into t select 'format', `input`",
        "insert into t (select) select 1", "insert into t (a, select) select 1",
        "insert into t -- values\nselect 1", "insert into t select 1 -- format x",
        "insert into format select 1", "insert into t select * from values('a Int8', 1)",
        "with a as (select 1) insert into t select * from a", "insert into t watch lv"};
    for (size_t i = 0; i < COUNT_OF(texts); i++)
        is(texts[i], CH_INSERT_SELECT);
}

static void
test_others_and_unknown(void **state)
{
    (void)state;
    is("create table t (a Int8) engine=Memory", CH_OTHER);
    is("set max_threads=1", CH_OTHER);
    is("kill query where 1", CH_OTHER);
    is("optimize table t", CH_OTHER);
    is("system flush logs", CH_OTHER);
    is("selects", CH_OTHER);
    is("select_ 1", CH_OTHER);
    is("inserts into t", CH_OTHER);
    is("'select'", CH_OTHER);
    is("- select 1", CH_OTHER);
    is("/ select 1", CH_OTHER);
    is("#select\n", CH_OTHER);
    is("a_word_longer_than_any_keyword_of_ours 1", CH_OTHER);
    is("with x as (select 1) delete from t where 1", CH_OTHER);
    is("with x as (select 1) update t set a = 1", CH_OTHER);
    is("", CH_UNKNOWN);
    is("  -- only a comment", CH_UNKNOWN);
    is("((", CH_UNKNOWN);
    is("/* never closed select 1", CH_UNKNOWN);
    is("explain", CH_UNKNOWN);
    is("explain analyze insert into t values (1)", CH_INSERT);
    is("explain analyze create table t", CH_OTHER);
    /* Nested for 26.x, closed for 18.16. */
    is("/* /* */ select 1", CH_UNKNOWN);
    is("/* /* */ select 1 */ insert into t values (1)", CH_UNKNOWN);
    is("with 1 as a /* /* */ select a", CH_UNKNOWN);
    is("insert into t /* /* */ select 1 /* */", CH_INSERT);
    is("\xc2\xa0select 1", CH_UNKNOWN); /* a no-break space, which ClickHouse skips */
    is("with 'never closed", CH_UNKNOWN);
    is("with $a$ never closed $b$", CH_UNKNOWN);
    is("with $0123456789012345678901234567890123456789012345678901234567890123456789$ x",
        CH_UNKNOWN);
    is("with 1 as a select a, $", CH_READ); /* no heredoc: the server will say what it is */
    is("with \xe2\x80\x98 insert", CH_INSERT);
    is("with \xe2\x80\x98 x", CH_UNKNOWN);
}

/* A cut text is never called read-only for what its tail could still be. */
static void
test_cut_text(void **state)
{
    (void)state;
    T_EQ(ch_classify(STR("sel"), false), CH_UNKNOWN);
    T_EQ(ch_classify(STR("select"), false), CH_UNKNOWN);
    T_EQ(ch_classify(STR("select "), false), CH_READ);
    T_EQ(ch_classify(STR("with a as (select 1) select"), false), CH_UNKNOWN);
    T_EQ(ch_classify(STR("insert"), false), CH_UNKNOWN);
    T_EQ(ch_classify(STR("explain analyz"), false), CH_UNKNOWN);
    T_EQ(ch_classify(STR("with 1 as a select delete"), false), CH_UNKNOWN); /* "deleted" */
    T_EQ(ch_classify(STR("insert into t select 1"), false), CH_INSERT);
    T_EQ(ch_classify(STR("insert into t values"), false), CH_INSERT);
    T_EQ(ch_classify(STR(""), false), CH_UNKNOWN);
    T_EQ(ch_classify(STR_NULL, false), CH_UNKNOWN);
}

/* Whatever the cut, the class of a prefix is the careful one, and never a read of an insert. */
static void
test_every_cut_is_careful(void **state)
{
    (void)state;
    static const char *const texts[] = {"with a as (select 'x') insert into t select * from a",
        "/* c */ insert into t (a, b) select a, b from input('a Int8') format CSV\n1,2",
        "-- c\n(select 1)"};
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        struct str whole = str_of(texts[i]);
        enum ch_class all = ch_classify(whole, true);
        for (size_t n = 0; n <= whole.len; n++) {
            enum ch_class part = ch_classify(str_n(whole.p, n), false);
            T_TRUE(part == CH_UNKNOWN || part == all || part == CH_INSERT);
        }
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_reads),
        TEST(test_inserts_with_data),
        TEST(test_insert_selects),
        TEST(test_others_and_unknown),
        TEST(test_cut_text),
        TEST(test_every_cut_is_careful),
    };
    return TEST_MAIN(tests);
}
