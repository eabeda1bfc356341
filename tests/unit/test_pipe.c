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
        tc_decodes(&DECODER(to), tc_str(&s.got), tc_str(&plain), (struct tc_cut){0});
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

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_every_codec_in_every_place),
    };
    thr_become(THR_LOOP);
    mem_init(RIG_LIMIT, 65536, 64);
    int failed = TEST_MAIN(tests);
    mem_fini();
    return failed;
}
