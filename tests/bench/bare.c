/*
 * bare: what the compression libraries cost by themselves. The input file, repeated, goes through
 * one stream in steps of 256 KiB, from memory to nowhere; CPU time is of that alone. It also makes
 * the compressed bodies of the bench and checks what chmux made of them.
 *
 *   bare encode|decode --coding zstd|lz4|gzip --in FILE [--level N] [--repeat K]
 *        [--out FILE]      what came of it
 *        [--expect FILE]   what must come of it, repeated as often; anything else is an error
 */
#include "coded.h"
#include "util.h"

#include <time.h>

struct job {
    enum coding coding;
    bool encode;
    int level;
    uint64_t repeat;
    struct bytes in, expect;
    FILE *out; /* NULL: nowhere */
    uint64_t bytes_in, bytes_out;
};

static char step[CODED_OUT_MIN];

static int64_t
cpu_now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void
made(struct job *j, size_t n)
{
    if (j->out != NULL && fwrite(step, 1, n, j->out) != n)
        die("bare: cannot write");
    if (j->expect.len > 0 && !bytes_match(&j->expect, step, n, j->bytes_out))
        die("bare: what came is not what was expected, before byte %" PRIu64, j->bytes_out + n);
    j->bytes_out += n;
}

static void
run_once(struct job *j, struct coded *c)
{
    struct coded_io io = {.in = (const char *)j->in.p, .in_len = j->in.len, .out = step};
    do {
        size_t at = j->in.len - io.in_len;
        if (!coded_step(c, &io))
            die("bare: broken input at about %zu", at);
        made(j, io.made);
    } while (io.in_len > 0 || (!j->encode && io.made == CODED_STEP));
    j->bytes_in += j->in.len;
}

static void
run(struct job *j)
{
    struct coded *c = coded_new(j->coding, j->encode, j->level);
    struct coded_io io = {.out = step};
    bool done;
    for (uint64_t i = 0; i < j->repeat; i++)
        run_once(j, c);
    if (j->encode) {
        do {
            done = coded_finish(c, &io);
            made(j, io.made);
        } while (!done);
    } else if (!coded_whole(c)) {
        die("bare: the input ends inside a frame");
    }
    coded_free(&c);
    if (j->expect.len > 0 && j->bytes_out != j->expect.len * j->repeat)
        die("bare: %" PRIu64 " bytes came", j->bytes_out);
}

int
main(int argc, char **argv)
{
    struct job j = {.level = 1, .repeat = 1};
    if (argc < 4 || argc % 2 != 0)
        die("usage: bare encode|decode --coding C --in FILE [--level N] [--repeat K] "
            "[--out FILE] [--expect FILE]");
    j.encode = strcmp(argv[1], "encode") == 0;
    for (int i = 2; i < argc; i += 2) {
        const char *value = argv[i + 1];
        if (strcmp(argv[i], "--coding") == 0)
            j.coding = coding_by_name(value, strlen(value));
        else if (strcmp(argv[i], "--in") == 0)
            j.in = bytes_of_file(value);
        else if (strcmp(argv[i], "--expect") == 0)
            j.expect = bytes_of_file(value);
        else if (strcmp(argv[i], "--level") == 0)
            j.level = (int)parse_size(value, argv[i]);
        else if (strcmp(argv[i], "--repeat") == 0)
            j.repeat = parse_size(value, argv[i]);
        else if (strcmp(argv[i], "--out") == 0)
            j.out = fopen(value, "wbe");
        else
            die("bare: no option %s", argv[i]);
    }
    if (j.in.len == 0)
        die("bare: nothing to read");
    int64_t from = cpu_now_ns(), wall = now_ns();
    run(&j);
    from = cpu_now_ns() - from;
    wall = now_ns() - wall;
    if (j.out != NULL && fclose(j.out) != 0)
        die("bare: cannot write");
    printf("{\"bytes_in\":%" PRIu64 ",\"bytes_out\":%" PRIu64 ",\"cpu_ns\":%" PRId64
           ",\"wall_ns\":%" PRId64 "}\n",
        j.bytes_in, j.bytes_out, from, wall);
    bytes_free(&j.in);
    bytes_free(&j.expect);
    return 0;
}
