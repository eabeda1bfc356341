/*
 * rowgen: the bench's rows, the same in every format: a log of events as web shops keep them. No
 * clock and no luck: the same rows in every run.
 *
 *   rowgen json|tsv|rowbinary ROWS      to stdout
 *
 * The table: id UInt64, time DateTime, user UInt32, session UInt64, kind String, country String,
 * page String, took_ms UInt32, amount Float64.
 */
#include "util.h"

#include <time.h>

static const char *const KINDS[] = {
    "view", "view", "view", "view", "click", "click", "search", "add_to_cart", "buy", "login"};
static const char *const COUNTRIES[] = {
    "DE", "FR", "US", "GB", "NL", "PL", "ES", "IT", "BR", "IN", "JP", "SE"};
static const char *const SECTIONS[] = {
    "books", "garden", "kitchen", "music", "toys", "sports", "computers", "outlet"};

struct row {
    uint64_t id, session;
    uint32_t time, user, took_ms, cents;
    const char *kind, *country;
    char page[64];
};

static uint64_t state = 88172645463325252u;

static uint64_t
next_random(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state >> 11;
}

/* Few are met often, most seldom. */
static uint64_t
skewed(uint64_t bound)
{
    uint64_t r = next_random() % bound;
    return r * (next_random() % bound) / bound * (next_random() % bound) / bound;
}

static void
next_row(struct row *r)
{
    r->id++;
    r->time += next_random() % 8 == 0;
    r->user = (uint32_t)(1000 + skewed(50000));
    /* A user keeps a session for a while. */
    r->session = (r->user * 2654435761u) ^ ((uint64_t)(r->time / 600) << 40);
    r->kind = KINDS[next_random() % COUNT_OF(KINDS)];
    r->country = COUNTRIES[r->user % COUNT_OF(COUNTRIES)];
    r->took_ms = (uint32_t)(2 + skewed(4000));
    uint64_t item = skewed(20000);
    r->cents = strcmp(r->kind, "buy") == 0 ? (uint32_t)(item * 7919 % 30000 + 99) : 0;
    snprintf(
        r->page, sizeof(r->page), "/%s/item-%05" PRIu64, SECTIONS[item % COUNT_OF(SECTIONS)], item);
}

/* As ClickHouse writes it: "12.5", "12", no trailing zeros. */
static void
amount_text(char out[16], uint32_t cents)
{
    int n = snprintf(out, 16, "%u.%02u", cents / 100, cents % 100);
    while (out[n - 1] == '0')
        out[--n] = '\0';
    if (out[n - 1] == '.')
        out[n - 1] = '\0';
}

static void
time_text(char out[20], uint32_t t)
{
    struct tm tm;
    time_t at = (time_t)t;
    gmtime_r(&at, &tm);
    strftime(out, 20, "%Y-%m-%d %H:%M:%S", &tm);
}

static void
put_text(const struct row *r, bool json)
{
    char amount[16], at[20];
    amount_text(amount, r->cents);
    time_text(at, r->time);
    const char *format =
        json ? "{\"id\":%" PRIu64 ",\"time\":\"%s\",\"user\":%u,\"session\":%" PRIu64
               ",\"kind\":\"%s\",\"country\":\"%s\",\"page\":\"%s\",\"took_ms\":%u,\"amount\":%s}\n"
             : "%" PRIu64 "\t%s\t%u\t%" PRIu64 "\t%s\t%s\t%s\t%u\t%s\n";
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral" /* one of two, right above */
    printf(
        format, r->id, at, r->user, r->session, r->kind, r->country, r->page, r->took_ms, amount);
#pragma GCC diagnostic pop
}

static void
put_string(const char *s)
{
    size_t n = strlen(s); /* under 128: one byte of length */
    putchar((int)n);
    fwrite(s, 1, n, stdout);
}

static void
put_binary(const struct row *r)
{
    double amount = r->cents / 100.0;
    fwrite(&r->id, sizeof(r->id), 1, stdout);
    fwrite(&r->time, sizeof(r->time), 1, stdout);
    fwrite(&r->user, sizeof(r->user), 1, stdout);
    fwrite(&r->session, sizeof(r->session), 1, stdout);
    put_string(r->kind);
    put_string(r->country);
    put_string(r->page);
    fwrite(&r->took_ms, sizeof(r->took_ms), 1, stdout);
    fwrite(&amount, sizeof(amount), 1, stdout);
}

int
main(int argc, char **argv)
{
    if (argc != 3)
        die("usage: rowgen json|tsv|rowbinary ROWS");
    bool json = strcmp(argv[1], "json") == 0, binary = strcmp(argv[1], "rowbinary") == 0;
    if (!json && !binary && strcmp(argv[1], "tsv") != 0)
        die("rowgen: no format %s", argv[1]);
    uint64_t rows = parse_size(argv[2], "rows");
    struct row r = {.id = 7000000000, .time = 1790000000};
    for (uint64_t i = 0; i < rows; i++) {
        next_row(&r);
        if (binary)
            put_binary(&r);
        else
            put_text(&r, json);
    }
    if (fflush(stdout) != 0 || ferror(stdout))
        die("rowgen: cannot write");
    return 0;
}
