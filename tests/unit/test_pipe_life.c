/*
 * Pipes when memory is short, and how they and their workers begin and end.
 */
#include "test_pipe.h"

#include <glob.h>
#include <sys/resource.h>

static struct rig rig;

/* ---- memory ---- */

/* Takes the budget but for `left` bytes. */
static size_t
hog_all_but(size_t left)
{
    size_t bytes = mem_limit() - mem_used() - left;
    T_TRUE(mem_take(bytes));
    return bytes;
}

/* With the budget used up a pipe is slow, but moves: its own block goes round. */
static void
test_used_up_budget_stops_no_pipe(void **state)
{
    (void)state;
    thr_check_loop();
    for (size_t threads = 0; threads < 2; threads++) {
        rig_start(&rig, threads);
        int64_t waits = metric_get(M_PIPE_MEMORY_WAITS);
        struct sim s;
        sim_open(&s, &rig, &(struct pipe_spec){.decode = DECODER(CODEC_GZIP)}, bomb(3));
        /* Before the worker has anything to do: it might be done before the budget is used up. */
        size_t hog = hog_all_but(65536);
        T_TRUE(sim_put(&s, s.in.len, false));
        sim_end(&s);
        while (!sim_over(&s)) {
            while (!pipe_has_output(s.p) && !sim_over(&s))
                rig_wait(&rig);
            if (!sim_take(&s))
                continue;
            T_TRUE(mem_used() <= mem_limit());
            /* Chunks that were there before come first; then there is only the own block. */
            while (state_of(s.p) == PS_QUEUED || state_of(s.p) == PS_RUNNING)
                rig_turn(&rig);
            sim_give_back(&s);
        }
        T_EQ(s.got_len, 3000000);
        workers_update_metrics(rig.w);
        T_TRUE(metric_get(M_PIPE_MEMORY_WAITS) > waits);
        sim_close(&s);
        mem_give(hog);
        rig_stop(&rig);
    }
}

/* 200 readers of a megabyte each, that take one block in turn, and a budget that cannot give each
 * of them even one chunk: it is kept (sim_take() looks), and all of them get everything. */
static void
test_many_slow_readers_share_a_small_budget(void **state)
{
    (void)state;
    thr_check_loop();
    static struct sim s[200];
    struct tc_bytes in = bomb(1);
    mem_fini();
    mem_init((size_t)32 << 20, 65536, 64);
    rig_start(&rig, 2);
    for (size_t i = 0; i < COUNT_OF(s); i++) {
        sim_open(
            &s[i], &rig, &(struct pipe_spec){.decode = DECODER(CODEC_GZIP)}, (struct tc_bytes){0});
        s[i].discard = true;
        tc_append(&s[i].in, in.p, in.len);
    }
    for (size_t i = 0; i < COUNT_OF(s); i++) {
        while (!sim_put(&s[i], in.len, false)) /* no block for it: others make room */
            if (sim_take(&s[i / 2]))
                sim_give_back(&s[i / 2]);
        sim_end(&s[i]);
    }
    for (size_t over = 0; over < COUNT_OF(s);) {
        over = 0;
        bool moved = false;
        for (size_t i = 0; i < COUNT_OF(s); i++) {
            if (sim_take(&s[i])) {
                sim_give_back(&s[i]);
                moved = true;
            }
            over += sim_over(&s[i]);
        }
        if (!moved && over < COUNT_OF(s))
            rig_wait(&rig);
    }
    for (size_t i = 0; i < COUNT_OF(s); i++) {
        T_EQ(pipe_status(s[i].p), PIPE_ENDED);
        T_EQ(s[i].got_len, 1000000);
        sim_close(&s[i]);
    }
    tc_drop(&in);
    rig_stop(&rig);
    mem_fini();
    mem_init(RIG_LIMIT, 65536, 64);
}

/* The codec wants memory that is not there: STARVED, told once; after a poke all goes on. */
static void
test_starved_codec_goes_on_when_poked(void **state)
{
    (void)state;
    thr_check_loop();
    for (size_t threads = 0; threads < 2; threads++) {
        rig_start(&rig, threads);
        struct tc_bytes plain = tc_text(3000000, 1);
        struct sim s;
        sim_open(&s, &rig, &(struct pipe_spec){.decode = DECODER(CODEC_ZSTD)},
            rig_encoded(CODEC_ZSTD, &plain));
        struct blk *b = blk_get_sized(s.in.len);
        T_TRUE(b != NULL);
        memcpy(b->data, s.in.p, s.in.len);
        b->end = s.put = s.in.len;
        size_t hog = hog_all_but(100);
        pipe_put(s.p, &b, false);
        rig_wait(&rig);
        T_EQ(pipe_status(s.p), PIPE_STARVED);
        T_EQ(s.wakes, 1);
        pipe_poke(s.p); /* in vain */
        rig_wait(&rig);
        T_EQ(pipe_status(s.p), PIPE_STARVED);
        mem_give(hog);
        sim_settle(&s);
        T_EQ(s.wakes, 2);
        pipe_poke(s.p);
        T_EQ(sim_finish(&s), PIPE_ENDED);
        tc_equal(tc_str(&s.got), tc_str(&plain));
        sim_close(&s);
        tc_drop(&plain);
        rig_stop(&rig);
    }
}

/* A new pipe is refused without memory, and counted; codecs kept for the next go first. */
static void
test_new_pipe_is_refused_or_gets_the_cache(void **state)
{
    (void)state;
    thr_check_loop();
    rig_start(&rig, 1);
    struct pipe_spec gzip = {.decode = DECODER(CODEC_GZIP)}, lz4 = {.encode = ENCODER(CODEC_LZ4)};
    int64_t waits = metric_get(M_PIPE_MEMORY_WAITS);
    size_t hog = hog_all_but(10);
    T_TRUE(pipe_new(rig.w, &gzip, sim_on_wake, NULL) == NULL);
    T_EQ(metric_get(M_PIPE_MEMORY_WAITS), waits + 1);
    mem_give(hog);

    struct sim s;
    for (int i = 0; i < 20; i++) {
        size_t used = mem_used();
        sim_open(&s, &rig, &gzip, (struct tc_bytes){0});
        const struct codec *c = s.p->chain.dec.codec;
        T_EQ(rig.w->cache_count, 0);
        sim_close(&s);
        T_EQ(rig.w->cache_count, 1);
        T_TRUE(rig.w->cache[0] == c && rig.w->cache_bytes == codec_memory(c));
        if (i > 0) /* it is charged as long as it is kept */
            T_EQ(mem_used(), used);
    }
    /* 3/4 of the budget is as much as may be held for long. */
    hog = hog_all_but(mem_limit() - mem_long_limit() + PIPE_SPARE);
    T_TRUE(pipe_new(rig.w, &lz4, sim_on_wake, NULL) == NULL || rig.w->cache_count == 0);
    mem_give(hog);
    T_EQ(rig.w->cache_count, 0);
    rig_stop(&rig);
}

/* An inline step or one in a worker that lacks memory for its codec gets what the cache has. */
static void
test_starved_codec_gets_the_cache(void **state)
{
    (void)state;
    thr_check_loop();
    for (size_t threads = 0; threads < 2; threads++) {
        for (size_t limit = 0; limit <= (size_t)1 << 20; limit += (size_t)1 << 20) {
            rig_start_with(&rig, &(struct workers_spec){.threads = threads,
                                     .inline_limit = limit,
                                     .queue_items = 10,
                                     .queue_bytes = 1u << 20});
            struct pipe_spec big = {.encode = ENCODER(CODEC_ZSTD)};
            big.encode.level = 3;
            struct tc_bytes plain = tc_noise(100000, 1);
            struct sim s, other;
            sim_open(&other, &rig, &big, (struct tc_bytes){0});
            sim_open(&s, &rig, &(struct pipe_spec){.decode = DECODER(CODEC_ZSTD)},
                rig_encoded(CODEC_ZSTD, &plain));
            sim_close(&other);
            T_TRUE(rig.w->cache_bytes > 1000000);
            struct blk *b = blk_get_sized(s.in.len);
            T_TRUE(b != NULL);
            memcpy(b->data, s.in.p, s.in.len);
            b->end = s.put = s.in.len;
            /* What the cache has is all there is below the mark of what may be held for long. */
            size_t hog = mem_long_limit() - mem_used() - 100;
            T_TRUE(mem_take(hog));
            pipe_put(s.p, &b, false);
            T_EQ(sim_finish(&s), PIPE_ENDED); /* without a poke */
            T_EQ(rig.w->cache_count, 1);      /* the one that is done now, not the encoder */
            T_FALSE(codec_spec_of(rig.w->cache[0])->encode);
            tc_equal(tc_str(&s.got), tc_str(&plain));
            sim_close(&s);
            mem_give(hog);
            tc_drop(&plain);
            rig_stop(&rig);
        }
    }
}

/* A pipe that is over holds no codec, though it is not closed yet. */
static void
test_a_pipe_that_is_over_gives_its_codecs_up(void **state)
{
    (void)state;
    thr_check_loop();
    for (size_t threads = 0; threads < 2; threads++) {
        rig_start(&rig, threads);
        struct tc_bytes plain = tc_text(1000000, 3);
        struct pipe_spec spec = {.decode = DECODER(CODEC_GZIP), .encode = ENCODER(CODEC_ZSTD)};
        int64_t in = metric_get(M_CODEC_GZIP_DECODE_OUT), out = metric_get(M_CODEC_ZSTD_ENCODE_IN);
        struct sim s;
        sim_open(&s, &rig, &spec, rig_encoded(CODEC_GZIP, &plain));
        T_EQ(sim_finish(&s), PIPE_ENDED);
        T_TRUE(s.p->chain.dec.codec == NULL && s.p->chain.enc.codec == NULL);
        T_EQ(rig.w->cache_count, 2);
        T_EQ(metric_get(M_CODEC_GZIP_DECODE_OUT), in + 1000000);
        T_EQ(metric_get(M_CODEC_ZSTD_ENCODE_IN), out + 1000000);
        sim_close(&s);
        T_EQ(rig.w->cache_count, 2);
        T_EQ(metric_get(M_CODEC_GZIP_DECODE_OUT), in + 1000000);
        tc_drop(&plain);
        rig_stop(&rig);
    }
}

/* Pipes that wait for a window leave room for one, however many there are: all come to their end.
 */
static void
test_many_pipes_and_little_memory(void **state)
{
    (void)state;
    thr_check_loop();
    static struct sim sims[80];
    struct pipe_spec spec = {.decode = DECODER(CODEC_ZSTD), .encode = ENCODER(CODEC_BLOCKS)};
    spec.encode.method = BLOCK_LZ4;
    struct tc_bytes plain = tc_text(1500000, 3), coded = rig_encoded(CODEC_ZSTD, &plain);
    mem_init((size_t)24 << 20, 65536, 0);
    rig_start(&rig, 2);
    for (size_t i = 0; i < COUNT_OF(sims); i++)
        sims[i] = (struct sim){.rig = &rig, .in = coded, .piece = 60000, .discard = true};
    size_t over = 0;
    while (over < COUNT_OF(sims)) {
        for (size_t i = over = 0; i < COUNT_OF(sims); i++) {
            struct sim *s = &sims[i];
            if (s->p == NULL && s->got_len == 0)
                s->p = pipe_new(rig.w, &spec, sim_on_wake, s);
            if (s->p == NULL) {
                over += s->got_len > 0;
                continue;
            }
            pipe_poke(s->p);
            sim_pump(s);
            if (!sim_over(s))
                continue;
            T_EQ(pipe_status(s->p), PIPE_ENDED);
            pipe_close(&s->p);
        }
        rig_turn(&rig);
    }
    rig_stop(&rig);
    mem_init(RIG_LIMIT, 65536, 0);
    tc_drop(&plain);
    tc_drop(&coded);
}

/* The cache has two caps, and only holds codecs that are not broken. */
static void
test_cache_is_bounded(void **state)
{
    (void)state;
    thr_check_loop();
    rig_start(&rig, 0);
    struct sim s[CACHE_CODECS + 3];
    for (size_t i = 0; i < COUNT_OF(s); i++) {
        struct pipe_spec spec = {.encode = ENCODER(CODEC_ZSTD)};
        spec.encode.level = (int)i + 1;
        sim_open(&s[i], &rig, &spec, (struct tc_bytes){0});
    }
    for (size_t i = 0; i < COUNT_OF(s); i++) {
        sim_close(&s[i]);
        T_TRUE(rig.w->cache_count <= CACHE_CODECS && rig.w->cache_bytes <= CACHE_BYTES);
    }
    T_TRUE(rig.w->cache_count > 0);
    T_TRUE(cache_drop(rig.w));
    T_FALSE(cache_drop(rig.w));
    T_EQ(rig.w->cache_bytes, 0);
    sim_open(&s[0], &rig, &(struct pipe_spec){.decode = DECODER(CODEC_GZIP)}, tc_noise(100, 3));
    T_EQ(sim_finish(&s[0]), PIPE_FAILED);
    sim_close(&s[0]);
    T_EQ(rig.w->cache_count, 0);
    rig_stop(&rig);
}

/* Queues shrink with the memory that is left, down to one chunk. */
static void
test_queues_shrink_with_memory(void **state)
{
    (void)state;
    thr_check_loop();
    rig_start_with(&rig, &(struct workers_spec){.queue_items = 10, .queue_bytes = 10u << 20});
    struct sim s[2];
    for (size_t i = 0; i < COUNT_OF(s); i++)
        sim_open(
            &s[i], &rig, &(struct pipe_spec){.encode = ENCODER(CODEC_LZ4)}, (struct tc_bytes){0});
    T_EQ(pipe_room(s[0].p), 10u << 20);
    size_t hog = hog_all_but((size_t)16 << 20);
    T_EQ(pipe_room(s[0].p), 2u << 20);
    mem_give(hog);
    hog = hog_all_but(1000);
    T_EQ(pipe_room(s[0].p), PIPE_STEP);
    mem_give(hog);
    for (size_t i = 0; i < COUNT_OF(s); i++)
        sim_close(&s[i]);
    rig_stop(&rig);
}

/* Each allocation fails once: the pipe is refused, or it works all the same. */
static void
test_every_allocation_may_fail(void **state)
{
    (void)state;
    thr_check_loop();
    struct tc_bytes plain = tc_text(400000, 1), in = rig_encoded(CODEC_ZSTD, &plain);
    struct workers_spec spec = {.queue_items = 10, .queue_bytes = 1u << 20};
    unsigned works = 0, refused = 0;
    for (uint64_t n = 1; n < 60; n++) {
        rig_start(&rig, 0);
        workers_free(&rig.w);
        mem_fail_at(n);
        rig.w = workers_new(rig.loop, &spec);
        struct sim s = {.rig = &rig, .piece = 30000};
        if (rig.w != NULL) {
            s.p = pipe_new(rig.w,
                &(struct pipe_spec){.decode = DECODER(CODEC_ZSTD), .encode = ENCODER(CODEC_LZ4)},
                sim_on_wake, &s);
        }
        if (s.p == NULL) {
            refused++;
        } else {
            works++;
            tc_append(&s.in, in.p, in.len);
            for (;;) {
                sim_pump(&s);
                if (sim_over(&s))
                    break;
                pipe_poke(s.p);
                rig_turn(&rig); /* it is the worker too */
            }
            T_EQ(pipe_status(s.p), PIPE_ENDED);
            mem_fail_at(0);
            rig_decodes(CODEC_LZ4, tc_str(&s.got), CODEC_FINISH, tc_str(&plain));
            sim_close(&s);
        }
        mem_fail_at(0);
        rig_stop(&rig);
    }
    T_TRUE(works > 10 && refused >= 6);
    tc_drop(&plain);
    tc_drop(&in);
}

/* ---- life and death ---- */

/* Closed in any state, while its step runs too: no wake-up comes, and every byte goes back. */
static void
test_close_at_any_time(void **state)
{
    (void)state;
    thr_check_loop();
    static const enum pipe_state when[] = {PS_QUEUED, PS_RUNNING, PS_PARKED, PS_RESTING};
    for (size_t threads = 1; threads <= 2; threads++) {
        rig_start(&rig, threads);
        for (size_t i = 0; i < 40; i++) {
            struct sim s, other;
            struct pipe_spec spec = {.decode = DECODER(CODEC_GZIP)};
            sim_open(&other, &rig, &spec, bomb(3));
            T_TRUE(sim_put(&other, other.in.len, false));
            sim_open(&s, &rig, &spec, bomb(3));
            T_TRUE(sim_put(&s, s.in.len, true));
            enum pipe_state st = when[i % COUNT_OF(when)];
            if (st == PS_PARKED)
                wait_for_state(&s, st);
            for (int tries = 0; tries < 1000 && state_of(s.p) != st; tries++)
                (void)sched_yield(); /* may be missed: then it is closed in another */
            sim_close(&s);
            if (i % 3 == 0)
                rig_turn(&rig);
            sim_close(&other);
        }
        rig_stop(&rig); /* with steps in flight */
    }
}

/* A wake-up may close its own pipe, and others that are told in the same batch. */
static struct sim pair[2];
static void
on_close_both(void *arg)
{
    thr_check_loop();
    (void)arg;
    T_TRUE(pair[0].p != NULL && pair[1].p != NULL); /* so it comes once */
    pipe_close(&pair[0].p);
    pipe_close(&pair[1].p);
    loop_stop(rig.loop);
}
static void
test_close_inside_wake_ups(void **state)
{
    (void)state;
    thr_check_loop();
    rig_start(&rig, 1);
    struct pipe_spec spec = {.encode = ENCODER(CODEC_LZ4)};
    for (int round = 0; round < 20; round++) {
        for (size_t i = 0; i < 2; i++) {
            pair[i] = (struct sim){.rig = &rig, .piece = 100, .in = tc_text(100, 1)};
            pair[i].p = pipe_new(rig.w, &spec, on_close_both, NULL);
            T_TRUE(pair[i].p != NULL);
            T_TRUE(sim_put(&pair[i], 100, true));
        }
        if (round % 2) {
            wait_for_state(&pair[0], PS_RESTING);
            wait_for_state(&pair[1], PS_RESTING);
        }
        rig_wait(&rig);
        rig_turn(&rig);
        tc_drop(&pair[0].in);
        tc_drop(&pair[1].in);
    }
    rig_stop(&rig);
}

/* The niceness in a line of /proc/PID/task/TID/stat: the 17th field behind the name. */
static int
nice_of(const char *line)
{
    const char *at = strrchr(line, ')');
    for (int i = 0; i < 17 && at != NULL; i++)
        at = strchr(at + 1, ' ');
    T_TRUE(at != NULL);
    return (int)strtol(at, NULL, 10);
}

static void
read_text(const char *path, char *text, size_t size)
{
    FILE *f = fopen(path, "r");
    T_TRUE(f != NULL);
    size_t n = fread(text, 1, size - 1, f);
    fclose(f);
    T_TRUE(n > 0);
    text[n] = '\0';
}

/* Threads of this process that are named as workers are; each has SIGTERM and SIGUSR1 blocked and
 * that niceness. */
static unsigned
check_codec_threads(int nice)
{
    unsigned found = 0;
    glob_t tasks;
    T_EQ(glob("/proc/self/task/*/status", 0, NULL, &tasks), 0);
    for (size_t i = 0; i < tasks.gl_pathc; i++) {
        char text[4096], *path = tasks.gl_pathv[i];
        read_text(path, text, sizeof(text));
        if (strstr(text, "Name:\tchmux-codec\n") == NULL)
            continue;
        const char *mask = strstr(text, "SigBlk:\t");
        T_TRUE(mask != NULL);
        uint64_t blocked = strtoull(mask + 8, NULL, 16),
                 want = 1u << (SIGTERM - 1) | 1u << (SIGUSR1 - 1);
        T_EQ(blocked & want, want);
        path[strlen(path) - 2] = '\0'; /* status: stat */
        read_text(path, text, sizeof(text));
        T_EQ(nice_of(text), nice);
        found++;
    }
    globfree(&tasks);
    return found;
}

/* Threads come with the first pipe, named, with signals blocked, nicer than the loop. */
static void
test_threads_start_with_the_first_pipe(void **state)
{
    (void)state;
    thr_check_loop();
    int before = getpriority(PRIO_PROCESS, 0);
    rig_start_with(&rig, &(struct workers_spec){
                             .threads = 3, .nice = 2, .queue_items = 10, .queue_bytes = 1u << 20});
    T_EQ(rig.w->thread_count, 0);
    struct sim s;
    sim_open(&s, &rig, &(struct pipe_spec){.encode = ENCODER(CODEC_LZ4)}, tc_text(100, 1));
    T_EQ(rig.w->thread_count, 3);
    T_EQ(sim_finish(&s), PIPE_ENDED);
    T_TRUE(check_codec_threads(before + 2) > 0); /* one at least has run */
    workers_update_metrics(rig.w);
    T_EQ(metric_get(M_WORKERS), 3);
    T_EQ(metric_get(M_PIPES_RESTING), 1);
    T_EQ(metric_get(M_PIPES_RUNNING) + metric_get(M_PIPES_PARKED), 0);
    sim_close(&s);
    workers_update_metrics(rig.w);
    rig_turn(&rig);
    workers_update_metrics(rig.w);
    T_EQ(metric_get(M_PIPES_RESTING), 0);
    rig_stop(&rig);
    T_EQ(getpriority(PRIO_PROCESS, 0), before); /* of the thread alone */
}

/* The numbers of all pipes, closed ones included, come to the metrics exactly once. */
static void
test_metrics_add_up(void **state)
{
    (void)state;
    thr_check_loop();
    static const enum metric_id ids[] = {
        M_CODEC_LZ4_DECODE_IN,
        M_CODEC_LZ4_DECODE_OUT,
        M_CODEC_BLOCKS_ENCODE_IN,
        M_CODEC_BLOCKS_ENCODE_OUT,
    };
    int64_t before[COUNT_OF(ids)];
    for (size_t i = 0; i < COUNT_OF(ids); i++)
        before[i] = metric_get(ids[i]);
    rig_start(&rig, 2);
    struct tc_bytes plain = tc_text(900000, 1);
    int64_t in = 0, out = 0;
    for (int i = 0; i < 3; i++) {
        struct sim s;
        sim_open(&s, &rig,
            &(struct pipe_spec){.decode = DECODER(CODEC_LZ4), .encode = ENCODER(CODEC_BLOCKS)},
            rig_encoded(CODEC_LZ4, &plain));
        T_EQ(sim_finish(&s), PIPE_ENDED);
        in += (int64_t)s.in.len;
        out += (int64_t)s.got.len;
        if (i == 1)
            workers_update_metrics(rig.w);
        sim_close(&s);
    }
    rig_stop(&rig);
    T_EQ(metric_get(M_CODEC_LZ4_DECODE_IN) - before[0], in);
    T_EQ(metric_get(M_CODEC_LZ4_DECODE_OUT) - before[1], 3 * plain.len);
    T_EQ(metric_get(M_CODEC_BLOCKS_ENCODE_IN) - before[2], 3 * plain.len);
    T_EQ(metric_get(M_CODEC_BLOCKS_ENCODE_OUT) - before[3], out);
    tc_drop(&plain);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_used_up_budget_stops_no_pipe),
        TEST(test_many_slow_readers_share_a_small_budget),
        TEST(test_starved_codec_goes_on_when_poked),
        TEST(test_new_pipe_is_refused_or_gets_the_cache),
        TEST(test_starved_codec_gets_the_cache),
        TEST(test_a_pipe_that_is_over_gives_its_codecs_up),
        TEST(test_many_pipes_and_little_memory),
        TEST(test_cache_is_bounded),
        TEST(test_queues_shrink_with_memory),
        TEST(test_every_allocation_may_fail),
        TEST(test_close_at_any_time),
        TEST(test_close_inside_wake_ups),
        TEST(test_threads_start_with_the_first_pipe),
        TEST(test_metrics_add_up),
    };
    thr_become(THR_LOOP);
    mem_init(RIG_LIMIT, 65536, 64);
    int failed = TEST_MAIN(tests);
    mem_fini();
    return failed;
}
