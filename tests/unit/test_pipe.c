#include "test_pipe.h"

static struct rig rig;

/* ---- what comes out ---- */

static void LOOP_ONLY
check_kind(enum codec_id from, enum codec_id to, size_t bytes)
{
    struct tc_bytes plain = tc_text(bytes, 7);
    struct tc_bytes in = from == CODEC_IDENTITY ? tc_text(bytes, 7) : rig_encoded(from, &plain);
    struct pipe_spec spec = {0};
    if (from != CODEC_IDENTITY)
        spec.decode = DECODER(from);
    if (to != CODEC_IDENTITY)
        spec.encode = ENCODER(to);
    struct sim s;
    sim_open(&s, &rig, &spec, in);
    T_EQ(sim_finish(&s), PIPE_ENDED);
    T_EQ(pipe_status(s.p), PIPE_ENDED);
    if (to == CODEC_IDENTITY)
        tc_equal(tc_str(&s.got), tc_str(&plain));
    else
        rig_decodes(to, tc_str(&s.got), CODEC_FINISH, tc_str(&plain));
    sim_close(&s);
    tc_drop(&plain);
}

/* Decode, encode, or both, on the loop and in workers, for every codec. */
static void
test_every_codec_in_every_place(void **state)
{
    (void)state;
    thr_check_loop();
    static const size_t threads[] = {0, 1, 3};
    for (size_t i = 0; i < COUNT_OF(threads); i++) {
        rig_start(&rig, threads[i]);
        for (enum codec_id id = CODEC_GZIP; id < CODEC_COUNT; id++) {
            check_kind(id, CODEC_IDENTITY, 1500000);
            check_kind(CODEC_IDENTITY, id, 1500000);
            check_kind(id, CODEC_ZSTD, 1500000);
            check_kind(id, id, 10);
        }
        rig_stop(&rig);
    }
}

/* ---- bounds ---- */

/* Output full: parked at its bound, however small the input; half of it taken: woken. */
static void
test_bomb_parks_and_moves_in_steps(void **state)
{
    (void)state;
    thr_check_loop();
    rig_start(&rig, 1);
    struct sim s;
    sim_open(&s, &rig, &(struct pipe_spec){.decode = DECODER(CODEC_GZIP)}, bomb(1000));
    s.discard = true;
    size_t before = mem_used();
    while (s.put < s.in.len && pipe_room(s.p) > 0)
        T_TRUE(sim_put(&s, size_min(s.piece, s.in.len - s.put), false));
    wait_for_state(&s, PS_PARKED);
    T_TRUE(steps_of(s.p) >= 4 && steps_of(s.p) <= 6); /* 1 MiB, 256 KiB each */
    /* input, 1 MiB of output in chunks, no more */
    T_TRUE(mem_used() - before <= ((size_t)1 << 20) + 6 * (sizeof(struct blk) + BLK_CHUNK));
    while (state_of(s.p) == PS_PARKED) { /* so nobody else touches it */
        T_TRUE(s.p->out.bytes > (size_t)1 << 19);
        T_TRUE(sim_take(&s));
        sim_give_back(&s);
    }
    T_EQ(sim_finish(&s), PIPE_ENDED);
    T_EQ(s.got_len, 1000 * (size_t)1000000);
    T_TRUE(steps_of(s.p) >= s.got_len / PIPE_STEP);
    sim_close(&s);
    rig_stop(&rig);
}

/* A bomb that becomes next to nothing again: what lies between the codecs counts for a step too. */
static void
test_step_counts_what_is_between_the_codecs(void **state)
{
    (void)state;
    thr_check_loop();
    rig_start(&rig, 0);
    struct sim s;
    sim_open(&s, &rig,
        &(struct pipe_spec){.decode = DECODER(CODEC_GZIP), .encode = ENCODER(CODEC_ZSTD)},
        bomb(20));
    T_EQ(sim_finish(&s), PIPE_ENDED);
    T_TRUE(s.got.len < 20000);
    T_TRUE(steps_of(s.p) >= 20000000 / PIPE_STEP);
    sim_close(&s);
    sim_open(&s, &rig, &(struct pipe_spec){.decode = DECODER(CODEC_GZIP), .check = true}, bomb(20));
    T_EQ(sim_finish(&s), PIPE_ENDED);
    T_TRUE(steps_of(s.p) >= 20000000 / PIPE_STEP);
    sim_close(&s);
    rig_stop(&rig);
}

/* A pipe with much to do does not keep another waiting: they take turns, one step each. */
static void
test_pipes_rotate(void **state)
{
    (void)state;
    thr_check_loop();
    rig_start_with(&rig, &(struct workers_spec){.queue_items = 10000, .queue_bytes = 1u << 30});
    struct sim big[3], small;
    struct pipe_spec spec = {.decode = DECODER(CODEC_GZIP)};
    for (size_t i = 0; i < COUNT_OF(big); i++) {
        sim_open(&big[i], &rig, &spec, bomb(20));
        T_TRUE(sim_put(&big[i], big[i].in.len, false));
        T_EQ(state_of(big[i].p), PS_QUEUED);
    }
    struct tc_bytes plain = tc_text(1000, 3);
    sim_open(&small, &rig, &spec, rig_encoded(CODEC_GZIP, &plain));
    T_TRUE(sim_put(&small, small.in.len, false));
    sim_end(&small);
    while (!pipe_has_output(small.p)) /* the loop is the worker: one step of one pipe per turn */
        rig_turn(&rig);
    for (size_t i = 0; i < COUNT_OF(big); i++)
        T_TRUE(steps_of(big[i].p) >= 1 && steps_of(big[i].p) <= 2);
    T_EQ(sim_finish(&small), PIPE_ENDED);
    for (size_t i = 0; i < COUNT_OF(big); i++)
        T_TRUE(steps_of(big[i].p) <= 4);
    sim_close(&small);
    for (size_t i = 0; i < COUNT_OF(big); i++)
        sim_close(&big[i]);
    tc_drop(&plain);
    rig_stop(&rig);
}

/* Input full: no room until half of it is used up, then one wake-up. */
static void
test_input_has_a_low_mark(void **state)
{
    (void)state;
    thr_check_loop();
    rig_start_with(&rig, &(struct workers_spec){.queue_items = 8, .queue_bytes = 1u << 20});
    struct sim s;
    sim_open(&s, &rig, &(struct pipe_spec){.encode = ENCODER(CODEC_LZ4)}, tc_noise(2000000, 1));
    s.piece = 200000;
    for (int i = 0; i < 6; i++) { /* the sixth is the one that may exceed it */
        T_TRUE(pipe_room(s.p) > 0);
        T_TRUE(sim_put(&s, s.piece, false));
    }
    T_EQ(pipe_room(s.p), 0);
    while (s.wakes == 0) {
        rig_turn(&rig);
        while (sim_take(&s)) /* the output is never what it waits for */
            sim_give_back(&s);
    }
    pipe_lock(s.p);
    size_t left = s.p->in.bytes;
    pipe_unlock(s.p);
    T_TRUE(left > 0 || s.wakes == 1);
    T_EQ(sim_finish(&s), PIPE_ENDED);
    rig_decodes(CODEC_LZ4, tc_str(&s.got), CODEC_FINISH, tc_str(&s.in));
    sim_close(&s);
    /* the same by items */
    sim_open(&s, &rig, &(struct pipe_spec){.encode = ENCODER(CODEC_LZ4)}, tc_noise(100, 1));
    for (int i = 0; i < 8; i++) {
        T_TRUE(pipe_room(s.p) > 0);
        T_TRUE(sim_put(&s, 1, false));
    }
    T_EQ(pipe_room(s.p), 0);
    rig_wait(&rig);
    T_TRUE(pipe_room(s.p) > 0);
    sim_close(&s);
    rig_stop(&rig);
}

/* ---- ends and errors ---- */

/* All data before an error comes out first, then the error, with codec, offset and reason. */
static void
test_error_comes_behind_the_data(void **state)
{
    (void)state;
    thr_check_loop();
    rig_start(&rig, 1);
    struct tc_bytes plain = tc_text(700000, 5);
    for (int kind = 0; kind < 3; kind++) {
        struct tc_bytes in = rig_encoded(CODEC_GZIP, &plain);
        size_t good = in.len;
        tc_append(&in, "this is no gzip", 15);
        struct pipe_spec spec = {.decode = DECODER(CODEC_GZIP), .check = kind == 2};
        if (kind == 1)
            spec.encode = ENCODER(CODEC_ZSTD);
        struct sim s;
        sim_open(&s, &rig, &spec, in);
        T_EQ(sim_finish(&s), PIPE_FAILED);
        const struct pipe_error *e = pipe_error(s.p);
        T_EQ(e->codec, CODEC_GZIP);
        T_FALSE(e->encoder);
        T_EQ(e->offset, good);
        T_TRUE(e->why != NULL && e->why[0] != '\0');
        if (kind == 0)
            tc_equal(tc_str(&s.got), tc_str(&plain));
        else if (kind == 1)
            rig_decodes(CODEC_ZSTD, tc_str(&s.got), CODEC_RUN, tc_str(&plain));
        else
            T_TRUE(s.got.len < good); /* the last block was never proved */
        T_EQ(pipe_room(s.p), 0);
        sim_settle(&s);
        unsigned wakes = s.wakes;
        struct blk *late = blk_get_sized(10);
        T_TRUE(late != NULL);
        late->end = 10;
        if (!s.ended)
            pipe_put(s.p, &late, true); /* is dropped */
        blk_put(&late);
        rig_turn(&rig);
        T_EQ(s.wakes, wakes);
        T_EQ(pipe_status(s.p), PIPE_FAILED);
        sim_close(&s);
    }
    tc_drop(&plain);
    rig_stop(&rig);
}

/* Cut input: what decodes comes out; inside of a frame the encoder's stream stays open, between two
 * it is closed; neither is a whole stream: CUT. */
static void
test_cut_gives_what_there_is(void **state)
{
    (void)state;
    thr_check_loop();
    rig_start(&rig, 1);
    struct tc_bytes plain = tc_text(700000, 5);
    struct pipe_spec both = {.decode = DECODER(CODEC_LZ4), .encode = ENCODER(CODEC_GZIP)};
    struct sim s;
    sim_open(&s, &rig, &both, rig_encoded(CODEC_LZ4, &plain));
    s.cut = true;
    T_EQ(sim_finish(&s), PIPE_CUT);
    rig_decodes(CODEC_GZIP, tc_str(&s.got), CODEC_FINISH, tc_str(&plain));
    sim_close(&s);

    sim_open(&s, &rig, &both, rig_encoded(CODEC_LZ4, &plain));
    s.cut = true;
    s.in.len /= 2;
    T_EQ(sim_finish(&s), PIPE_CUT);
    struct tc_bytes half = rig_coded(&both.decode, tc_str(&s.in), CODEC_RUN);
    T_TRUE(half.len > 0);
    rig_decodes(CODEC_GZIP, tc_str(&s.got), CODEC_RUN, tc_str(&half));
    tc_is_bad(&DECODER(CODEC_GZIP), tc_str(&s.got), (struct tc_cut){0}, NULL, -1);
    tc_drop(&half);
    sim_close(&s);

    sim_open(&s, &rig, &(struct pipe_spec){.encode = ENCODER(CODEC_ZSTD)}, tc_text(1000, 1));
    s.cut = true;
    T_EQ(sim_finish(&s), PIPE_CUT);
    rig_decodes(CODEC_ZSTD, tc_str(&s.got), CODEC_RUN, tc_str(&s.in));
    tc_is_bad(&DECODER(CODEC_ZSTD), tc_str(&s.got), (struct tc_cut){0}, NULL, -1);
    sim_close(&s);

    sim_open(&s, &rig, &(struct pipe_spec){.encode = ENCODER(CODEC_GZIP)}, tc_text(0, 1));
    s.cut = true; /* nothing came: nothing goes out, not even a header */
    T_EQ(sim_finish(&s), PIPE_CUT);
    T_EQ(s.got.len, 0);
    sim_close(&s);
    tc_drop(&plain);
    rig_stop(&rig);
}

/* Checked: the same bytes, the last block only with the proof or on a flush; not at all if it
 * fails. */
static void
test_check_withholds_the_last_block(void **state)
{
    (void)state;
    thr_check_loop();
    rig_start(&rig, 0);
    struct tc_bytes plain = tc_noise(300000, 5);
    struct pipe_spec spec = {.decode = DECODER(CODEC_ZSTD), .check = true};
    struct sim s;
    sim_open(&s, &rig, &spec, rig_encoded(CODEC_ZSTD, &plain));
    s.piece = 50000;
    size_t last = s.in.len - (s.in.len - 1) / s.piece * s.piece;
    while (s.put < s.in.len - last)
        T_TRUE(sim_put(&s, s.piece, false));
    while (state_of(s.p) != PS_RESTING)
        rig_turn(&rig);
    while (sim_take(&s))
        sim_give_back(&s);
    T_EQ(s.got.len, s.put - s.piece); /* one behind */
    s.cut = false;
    s.in.len = s.put; /* and there it ends, too early */
    T_EQ(sim_finish(&s), PIPE_FAILED);
    T_EQ(s.got.len, s.put - s.piece);
    sim_close(&s);

    /* Blocks that end where a frame ends wait for nothing. */
    sim_open(&s, &rig, &spec, rig_encoded(CODEC_ZSTD, &plain));
    T_TRUE(sim_put(&s, s.in.len, false));
    while (s.got.len < s.in.len) {
        rig_wait(&rig);
        while (sim_take(&s))
            sim_give_back(&s);
    }
    tc_equal(tc_str(&s.got), tc_str(&s.in));
    T_EQ(pipe_status(s.p), PIPE_OPEN);
    sim_close(&s);
    tc_drop(&plain);
    rig_stop(&rig);
}

/* ---- flush ---- */

static void LOOP_ONLY
take_until(struct sim *s, size_t got)
{
    while (s->got.len < got) {
        if (!pipe_has_output(s->p))
            rig_wait(&rig);
        while (sim_take(s))
            sim_give_back(s);
    }
    T_EQ(s->got.len, got);
}

/* Checked inside one frame: a flush brings out all that was put, with the block or behind it. */
static void
test_check_gives_the_last_block_on_flush(void **state)
{
    (void)state;
    thr_check_loop();
    static const enum codec_id codecs[] = {CODEC_GZIP, CODEC_ZSTD, CODEC_LZ4};
    struct tc_bytes plain = tc_noise(200000, 6);
    for (size_t i = 0; i < 2 * COUNT_OF(codecs); i++) {
        enum codec_id id = codecs[i / 2];
        struct pipe_spec spec = {.decode = DECODER(id), .check = true};
        struct sim s;
        rig_start_with(&rig, &(struct workers_spec){.threads = 1,
                                 .inline_limit = i % 2 == 0 ? 0 : 4096,
                                 .queue_items = 10,
                                 .queue_bytes = (size_t)1 << 20});
        sim_open(&s, &rig, &spec, rig_encoded(id, &plain));
        while (s.put < 20000) {
            T_TRUE(sim_put(&s, 1000, true));
            take_until(&s, s.put);
        }
        T_TRUE(sim_put(&s, 1000, false));
        pipe_flush(s.p);
        take_until(&s, s.put);
        s.in.len = s.put; /* too early */
        T_EQ(sim_finish(&s), PIPE_FAILED);
        T_EQ(s.got.len, s.put);
        sim_close(&s);
        rig_stop(&rig);
    }
    tc_drop(&plain);
}

/* Each small put comes out at once, so that it can be decoded, inside one stream. */
static void LOOP_ONLY
drip(const struct pipe_spec *spec, struct tc_bytes lines[], size_t count)
{
    struct sim s;
    struct tc_bytes so_far = {0};
    sim_open(&s, &rig, spec, (struct tc_bytes){0});
    for (size_t i = 0; i < count; i++) {
        size_t before = s.got.len;
        struct tc_bytes in = {0};
        if (spec->decode.id == CODEC_IDENTITY)
            tc_append(&in, lines[i].p, lines[i].len);
        else
            in = rig_encoded(spec->decode.id, &lines[i]);
        tc_append(&s.in, in.p, in.len);
        tc_append(&so_far, lines[i].p, lines[i].len);
        T_TRUE(sim_put(&s, in.len, true));
        while (s.got.len == before || state_of(s.p) != PS_RESTING) {
            if (pipe_has_output(s.p) || s.got.len > before)
                rig_turn(&rig);
            else
                rig_wait(&rig);
            while (sim_take(&s)) {
                T_TRUE(s.held[0]->cap < PIPE_TINY); /* and does not hold a big block for it */
                sim_give_back(&s);
            }
        }
        if (spec->encode.id == CODEC_IDENTITY)
            tc_equal(tc_str(&s.got), tc_str(&so_far));
        else
            rig_decodes(spec->encode.id, tc_str(&s.got), CODEC_RUN, tc_str(&so_far));
        tc_drop(&in);
    }
    T_EQ(sim_finish(&s), PIPE_ENDED);
    if (spec->encode.id != CODEC_IDENTITY)
        rig_decodes(spec->encode.id, tc_str(&s.got), CODEC_FINISH, tc_str(&so_far));
    tc_drop(&so_far);
    sim_close(&s);
}

static void
test_flush_brings_out_each_put(void **state)
{
    (void)state;
    thr_check_loop();
    struct tc_bytes lines[5];
    for (size_t i = 0; i < COUNT_OF(lines); i++)
        lines[i] = tc_text(40 + i, i + 1);
    for (size_t threads = 0; threads < 2; threads++) {
        rig_start(&rig, threads);
        for (enum codec_id id = CODEC_GZIP; id < CODEC_COUNT; id++) {
            drip(&(struct pipe_spec){.encode = ENCODER(id)}, lines, COUNT_OF(lines));
            if (id == CODEC_BROTLI) /* has no second stream */
                continue;
            drip(&(struct pipe_spec){.decode = DECODER(id)}, lines, COUNT_OF(lines));
            drip(&(struct pipe_spec){.decode = DECODER(id), .encode = ENCODER(CODEC_ZSTD)}, lines,
                COUNT_OF(lines));
        }
        rig_stop(&rig);
    }
    for (size_t i = 0; i < COUNT_OF(lines); i++)
        tc_drop(&lines[i]);
}

/* Without the flag the encoder waits for more; several flagged puts in a row need one flush. */
static void
test_flush_only_when_asked_and_once(void **state)
{
    (void)state;
    thr_check_loop();
    rig_start(&rig, 0);
    struct sim s, t;
    struct pipe_spec spec = {.encode = ENCODER(CODEC_ZSTD)};
    sim_open(&s, &rig, &spec, tc_text(2000, 1));
    T_TRUE(sim_put(&s, 1000, false));
    while (state_of(s.p) != PS_RESTING)
        rig_turn(&rig);
    T_FALSE(pipe_has_output(s.p));
    for (int i = 0; i < 10; i++)
        T_TRUE(sim_put(&s, 100, i == 0)); /* the wish is carried to the last */
    while (state_of(s.p) != PS_RESTING)
        rig_turn(&rig);
    T_TRUE(sim_take(&s));
    rig_decodes(CODEC_ZSTD, tc_str(&s.got), CODEC_RUN, tc_str(&s.in));
    sim_open(&t, &rig, &spec, tc_text(2000, 1));
    T_TRUE(sim_put(&t, 2000, true));
    while (state_of(t.p) != PS_RESTING)
        rig_turn(&rig);
    T_TRUE(sim_take(&t));
    T_EQ(t.got.len, s.got.len); /* so it was one flush */
    sim_close(&t);
    /* The source may say so later, too; with nothing new to bring out it is for nothing. */
    sim_open(&t, &rig, &spec, tc_text(2000, 1));
    T_TRUE(sim_put(&t, 2000, false));
    for (int i = 0; i < 3; i++) {
        pipe_flush(t.p);
        while (state_of(t.p) != PS_RESTING)
            rig_turn(&rig);
        T_TRUE(sim_take(&t) == (i == 0));
    }
    T_EQ(t.got.len, s.got.len);
    sim_close(&t);
    sim_close(&s);
    rig_stop(&rig);
}

/* ---- inline ---- */

/* Small puts of a pipe that rests are coded at once: no worker, no wake-up. */
static void
test_small_puts_are_coded_inline(void **state)
{
    (void)state;
    thr_check_loop();
    rig_start_with(
        &rig, &(struct workers_spec){
                  .threads = 1, .inline_limit = 1000, .queue_items = 10, .queue_bytes = 1u << 20});
    struct sim s;
    sim_open(&s, &rig, &(struct pipe_spec){.encode = ENCODER(CODEC_GZIP)}, tc_text(5000, 1));
    T_TRUE(sim_put(&s, 1000, true));
    T_TRUE(sim_take(&s));
    rig_decodes(CODEC_GZIP, tc_str(&s.got), CODEC_RUN, str_n(s.in.p, 1000));
    sim_give_back(&s);
    T_EQ(state_of(s.p), PS_RESTING);
    T_EQ(s.p->numbers.loop_steps, 1);
    T_TRUE(sim_put(&s, 1001, true)); /* too big for it */
    rig_wait(&rig);
    while (state_of(s.p) != PS_RESTING)
        (void)sched_yield();
    T_EQ(s.p->numbers.loop_steps, 1);
    T_TRUE(s.p->numbers.worker_steps >= 1);
    sim_settle(&s);
    unsigned wakes = s.wakes;
    T_TRUE(sim_put(&s, 999, false));
    s.in.len = s.put;
    sim_end(&s);
    while (sim_take(&s))
        sim_give_back(&s);
    T_EQ(pipe_status(s.p), PIPE_ENDED); /* in the call itself */
    rig_turn(&rig);
    T_EQ(s.wakes, wakes);
    rig_decodes(CODEC_GZIP, tc_str(&s.got), CODEC_FINISH, tc_str(&s.in));
    sim_close(&s);
    rig_stop(&rig);
}

/* What grows beyond PIPE_INLINE_OUT goes on in a worker. */
static void
test_inline_work_is_bounded(void **state)
{
    (void)state;
    thr_check_loop();
    rig_start_with(
        &rig, &(struct workers_spec){
                  .threads = 1, .inline_limit = 20000, .queue_items = 10, .queue_bytes = 1u << 20});
    struct sim s;
    sim_open(&s, &rig, &(struct pipe_spec){.decode = DECODER(CODEC_GZIP)}, bomb(1));
    T_TRUE(sim_put(&s, s.in.len, false));
    T_TRUE(sim_take(&s)); /* the own block, 32 KiB */
    T_TRUE(s.got_len <= PIPE_INLINE_OUT);
    T_EQ(sim_finish(&s), PIPE_ENDED);
    T_TRUE(s.p->numbers.loop_steps <= 2); /* of the put, and of the end if that found it at rest */
    T_TRUE(s.p->numbers.worker_steps >= 1000000 / PIPE_STEP);
    T_EQ(s.got_len, 1000000);
    sim_close(&s);
    rig_stop(&rig);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_every_codec_in_every_place),
        TEST(test_bomb_parks_and_moves_in_steps),
        TEST(test_step_counts_what_is_between_the_codecs),
        TEST(test_pipes_rotate),
        TEST(test_input_has_a_low_mark),
        TEST(test_error_comes_behind_the_data),
        TEST(test_cut_gives_what_there_is),
        TEST(test_check_withholds_the_last_block),
        TEST(test_check_gives_the_last_block_on_flush),
        TEST(test_flush_brings_out_each_put),
        TEST(test_flush_only_when_asked_and_once),
        TEST(test_small_puts_are_coded_inline),
        TEST(test_inline_work_is_bounded),
    };
    thr_become(THR_LOOP);
    mem_init(RIG_LIMIT, 65536, 64);
    int failed = TEST_MAIN(tests);
    mem_fini();
    return failed;
}
