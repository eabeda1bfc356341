/*
 * Pipes against a model: random operations on several pipes at once, with 0, 1 and 3 workers. What
 * a codec makes of the whole input in one go is the reference for what must come out.
 * CHMUX_SEED=n runs one seed alone.
 */
#include "test_pipe.h"

#define SIMS      5
#define OPS       400
#define PUT_MAX   ((size_t)150000)
#define INPUT_MAX ((size_t)1200000)

struct model {
    struct sim sim;
    struct pipe_spec spec;
    struct tc_bytes plain; /* what comes out in the end, decoded */
    enum pipe_status status;
    struct pipe_error error;
    size_t flushed; /* bytes put before the last flush */
};

static struct rig rig;
static struct model models[SIMS];
static uint64_t seed;
static size_t hog;

static size_t
pick(size_t n)
{
    return (size_t)(tc_random(&seed) % n);
}

static enum codec_id
pick_codec(void)
{
    return (enum codec_id)(CODEC_GZIP + pick(CODEC_COUNT - CODEC_GZIP));
}

static struct tc_bytes
pick_plain(void)
{
    size_t len = pick(4) == 0 ? pick(200) : pick(INPUT_MAX);
    uint64_t of = seed | 1;
    if (pick(8) == 0)
        return (struct tc_bytes){.p = calloc(1, len + 1), .len = len, .cap = len + 1};
    return pick(3) == 0 ? tc_noise(len, of) : tc_text(len, of);
}

/* What comes of the input, and how it ends. */
static void
refer(struct model *m)
{
    struct sim *s = &m->sim;
    m->status = s->cut ? PIPE_CUT : PIPE_ENDED;
    if (m->spec.decode.id == CODEC_IDENTITY) {
        tc_append(&m->plain, s->in.p, s->in.len);
        return;
    }
    struct tc t = tc_new(&m->spec.decode, (struct tc_cut){0});
    if (tc_feed(&t, s->cut ? CODEC_RUN : CODEC_FINISH, tc_str(&s->in)) == CODEC_BAD) {
        m->status = PIPE_FAILED;
        m->error = (struct pipe_error){
            .codec = m->spec.decode.id, .offset = codec_offset(t.c), .why = codec_why(t.c)};
    }
    m->plain = t.out;
    t.out = (struct tc_bytes){0};
    tc_end(&t);
}

static void LOOP_ONLY
model_open(struct model *m)
{
    *m = (struct model){0};
    size_t held = hog; /* the model's own codecs must not starve, nor the pipe be refused */
    mem_give(hog);
    hog = 0;
    enum codec_id from = CODEC_IDENTITY;
    size_t kind = pick(4);
    if (kind != 0)
        m->spec.decode = DECODER(from = pick_codec());
    if (kind < 2)
        m->spec.encode = ENCODER(pick_codec());
    m->spec.check = kind == 3;
    struct tc_bytes in = pick_plain();
    if (from != CODEC_IDENTITY) {
        struct tc_bytes plain = in;
        in = rig_encoded(from, &plain);
        tc_drop(&plain);
        if (pick(4) == 0 && in.len > 0)
            in.p[pick(in.len)] ^= (char)(1 << pick(8));
    }
    if (pick(4) == 0)
        in.len = pick(in.len + 1);
    bool cut = pick(4) == 0;
    sim_open(&m->sim, &rig, &m->spec, in);
    m->sim.cut = cut;
    m->sim.piece = PUT_MAX;
    refer(m);
    if (held > 0 && mem_take(held))
        hog = held;
}

static void LOOP_ONLY
model_check(struct model *m)
{
    struct sim *s = &m->sim;
    struct str got = tc_str(&s->got), want = tc_str(&m->plain);
    T_EQ(pipe_status(s->p), m->status);
    if (m->status == PIPE_FAILED) {
        const struct pipe_error *e = pipe_error(s->p);
        T_EQ(e->codec, m->error.codec);
        T_EQ(e->offset, m->error.offset);
        T_ZEQ(e->why, m->error.why);
        T_FALSE(e->encoder);
    }
    if (m->spec.check) {
        T_TRUE(got.len <= s->in.len);
        tc_equal(got, str_n(s->in.p, got.len));
        bool flushed = m->flushed == s->in.len;
        T_TRUE(m->status == PIPE_FAILED ? flushed || got.len < s->in.len : got.len == s->in.len);
        return;
    }
    enum codec_op op = m->status == PIPE_ENDED ? CODEC_FINISH : CODEC_RUN;
    struct tc_bytes decoded = {0};
    if (m->spec.encode.id != CODEC_IDENTITY) {
        decoded = rig_coded(&DECODER(m->spec.encode.id), got, op);
        got = tc_str(&decoded);
    }
    if (m->status ==
        PIPE_FAILED) { /* how much of the broken block comes out is the codec's affair */
        got.len = size_min(got.len, want.len);
        want.len = got.len;
    }
    tc_equal(got, want);
    tc_drop(&decoded);
}

static void LOOP_ONLY
model_close(struct model *m)
{
    sim_close(&m->sim);
    tc_drop(&m->plain);
}

/* The budget is short for a while: blocks and codecs' memory are refused. */
static void
grab_or_release(void)
{
    mem_give(hog);
    hog = pick(2) * (mem_limit() - mem_used() - pick(500000));
    if (!mem_take(hog)) /* workers take some meanwhile */
        hog = 0;
}

static void LOOP_ONLY
model_put(struct model *m, size_t bytes, bool flush)
{
    struct sim *s = &m->sim;
    if (sim_put(s, size_min(bytes, s->in.len - s->put), flush) && flush)
        m->flushed = s->put;
}

static void LOOP_ONLY
model_op(struct model *m)
{
    struct sim *s = &m->sim;
    switch (pick(16)) {
    case 0:
    case 1:
    case 2:
    case 3:
        if (s->put < s->in.len && !s->ended && pipe_room(s->p) > 0)
            model_put(m, 1 + pick(pick(2) ? 500 : PUT_MAX - 1), pick(3) == 0);
        break;
    case 4:
    case 5:
    case 6:
        if (s->held_count < COUNT_OF(s->held))
            (void)sim_take(s);
        break;
    case 7:
    case 8:
        if (s->held_count > 0)
            sim_give_back(s);
        break;
    case 9:
        pipe_poke(s->p);
        if (!s->ended) {
            pipe_flush(s->p);
            m->flushed = s->put;
        }
        break;
    case 10:
        if (s->put == s->in.len && !s->ended)
            sim_end(s);
        break;
    case 11:
        if (pick(10) == 0) {
            model_close(m);
            model_open(m);
        }
        break;
    case 12:
        if (pick(8) == 0)
            grab_or_release();
        break;
    case 13: workers_update_metrics(rig.w); break;
    default: rig_turn(&rig); break;
    }
    sim_check_bounds(s);
}

/* Only wake-ups tell when to go on; memory that came back is told by hand. */
static void LOOP_ONLY
finish_all(void)
{
    mem_give(hog);
    hog = 0;
    for (;;) {
        size_t over = 0;
        for (size_t i = 0; i < SIMS; i++) {
            pipe_poke(models[i].sim.p);
            sim_pump(&models[i].sim);
            over += sim_over(&models[i].sim);
        }
        if (over == SIMS)
            return;
        rig_wait(&rig);
    }
}

static void LOOP_ONLY
run_seed(uint64_t n, size_t threads)
{
    print_message("seed %" PRIu64 ", %zu workers\n", n, threads);
    seed = n * 0x9e3779b97f4a7c15u;
    rig_start_with(&rig, &(struct workers_spec){.threads = threads,
                             .inline_limit = pick(2) * pick(20000),
                             .queue_items = 1 + pick(10),
                             .queue_bytes = 1000 + pick((size_t)1 << 20)});
    for (size_t i = 0; i < SIMS; i++)
        model_open(&models[i]);
    for (int i = 0; i < OPS; i++)
        model_op(&models[pick(SIMS)]);
    finish_all();
    rig_turn(&rig);
    for (size_t i = 0; i < SIMS; i++) {
        struct sim *s = &models[i].sim;
        sim_settle(s);
        unsigned wakes = s->wakes;
        rig_turn(&rig);
        T_EQ(s->wakes, wakes); /* all has been told */
        model_check(&models[i]);
        model_close(&models[i]);
    }
    rig_stop(&rig);
}

static void
test_random_operations_match_the_model(void **state)
{
    (void)state;
    thr_check_loop();
    static const size_t threads[] = {0, 1, 3};
    const char *one = getenv("CHMUX_SEED");
    uint64_t first = one == NULL ? 1 : strtoull(one, NULL, 10), count = one == NULL ? 8 : 1;
    for (uint64_t n = first; n < first + count; n++)
        for (size_t i = 0; i < COUNT_OF(threads); i++)
            run_seed(n, threads[i]);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_random_operations_match_the_model),
    };
    thr_become(THR_LOOP);
    mem_init(RIG_LIMIT, 65536, 64);
    int failed = TEST_MAIN(tests);
    mem_fini();
    return failed;
}
