#include "codec/city.h"

#include "t.h"

/* Blocks (all behind the checksum) that ClickHouse 26.7 sent, and the checksums it gave them: of
 * every branch of the algorithm, from 11 bytes to 392. */
static const struct {
    const char *in, *sum; /* hexadecimal */
} sent[] = {
    {"820b0000000100000010a5", "ee9b0a56aa01e338b41f79f7e3ea13e0"},
    {"820c0000000200000020310a", "de79cf087fb635049db816df195b016b"},
    {"820f00000005000000504dca182530", "77a63667fca2a0824507031347a1389a"},
    {"82100000000600000060bb1d6d132cde", "030d59df1ca7ea8655b1c663b863ce6a"},
    {"82110000000700000070d6237b2ed91e3f", "388ed8c1adebd3313ecd3c9350e0d538"},
    {"82140000000a000000a0010002ffffffff000000", "a783ac6cd55c7a7cb5ac46bddb86e214"},
    {"82160000000c000000c0010002ffffffff0300000000", "2f52a1ea36f369c4298e958c545f01d8"},
    {"821f00000014000000f005d6493c9d5c3460be31201e69fedaa0eee8b9997f",
        "d33eebda6dee5fbe5c9ce406fa85f0b3"},
    {"822200000017000000f0085c7c2999fdafe593253cd654af4dfad71427a0aeb3fee9",
        "2208d02c6fb3162e4a23bf9111efad49"},
    {"822300000018000000f009232f8af2211f9ee491c5b10becb5563bfc1e6f93427ecbc8",
        "78729bdc003392b3838e3ff2def8dd21"},
    {"82470000003c000000f02dfe2955e5cd8e46dc8ed4b7c2764d2a5a4d767706f85d8690024ad6"
     "bda3401be9c8cbccc935f6cd1f61226ae15338ae1a34004d33ba0d246ac04c81b1",
        "811a6d4536336b66102cfc7e6b5b34a5"},
    {"827b00000070000000f061b5ead7424d09e15d024c5848f23d1fa6f7361d7f618d1532e70e20"
     "e2a6668de7f47e8467e546d53ec8e2a1257bdb256c9b3e4fbb498146ef7030cbf9537252dcce"
     "add764b6a32fbb09adeae109c4a997203975352b878b145c8a42d884cf4cfda72d8e1d5dd925"
     "89082d852a7122873e",
        "da3675ecc93909086e19c3209b8e4ff6"},
    {"828100000076000000f067e805add58942167a385286195c679f9c6994e45b8ab10980120709"
     "61f37de436ddfdc99d6e75af6547cfb11b42072482dc531c2bc3907c9617eb5e5089e40186ba"
     "a8a57d119e6fb65d00abc32af38e667f022e872d49cc15c90b999b772b4fc7a6fd4c914a16db"
     "4708752b0f1544b835c0e719097dfa",
        "4b7269892db5b2122151879c84334c2b"},
    {"828200000077000000f0688701e9232f21f2812687786976ebfcc327f5931765274ba9829b44"
     "06f61ff889326ffa9492edeeee3c669f2bf20894ea27e689c66b6b262e4886b8438f39ba76fe"
     "f8c90c5101fbe6cf9a48d5b0c0a13da900a6adcb3d64069481be21c9c727b8db8c188f341a92"
     "4c7f88dfa161bfdb0ecc682919d2e646",
        "4c9b125ac5639cb3b4b570908d1efd92"},
    {"82890000007e000000f06fbd74fc11add7b9ca6503952269fd669f6376ee71879737fd5f72f8"
     "d51c4ac91b6d0c48d41a1e5ec9e6a0392854a8615eef109fc1bfa9e2563701288f29b3d73f6a"
     "c2b69edd2c19f264bee462a5baf20fd27ecf14c011ed201f836320adb98bab1686a28d980121"
     "0c7736f3eec580dcfc43fe5d049b4d78a7a3ebb92865c8",
        "c9d1a52799553076d81d94bcffd8bb69"},
    {"829000000085000000f076517ed02111f6a652da3524872b6a31d7ffe4587744d5eb783e9696"
     "8f89be828565e07e5f7d784e9060a721ca807d7633ed123402f376e5bf1496773d19616326be"
     "5be5850336b36f13bcae48166882136805a7d1be5e9f276810fdf720d033ca4f2e53cb8ad191"
     "9dd51a9fb6d4d509ba64c8cf6803de50d83a2ecfbaeb5342071a48cb2dbd",
        "d6e60bd436e464093eb0dd4b1282bf40"},
    {"82fb000000f0000000f0e1574ab29152572237c4fb659a4016f7a11bc62c5271cf64f25d6f15"
     "cc50c4b73f4c7e621513a53cc7e99cd79d7fd9c7bce4e05b0b01faee78e4ea5bf2cc362241b7"
     "dcbb2ee21414422aa0281bc1450d21386343fb93547121b38151a58ce94982f56a8679a3be12"
     "655dce528ea7c056873a18b8e73581c9be87c0bc4ab8a929e2755a1897819ea00011714c94dd"
     "d5ba1843fa74170b1b01b59b36b672d39a4468bbf35144077c4ce631204a8acd87051cb3e3fc"
     "7f5400161f0ccf5f79511d35066448d366d4599e209918f403c0dfee29e75973358576133fab"
     "861a88df87976f2b075685786751a762c7a87ac2f0f103",
        "2c90e38276c9142984359166a3978592"},
    {"8206010000fb000000f0ec0ddf779d6cc827574a100d393652b0480e0f154615221721ba6621"
     "c4367e69683911112c93f43343326896a3acd8850ab3839018bca4f3930fd30fdf32b1f0186e"
     "2e9357df0067931b02b2fb30fb5efdb18551916d76ff543829fb35a7b630cdca2cd80cbe699b"
     "86db57c277eb4011b2a74fe6a556ede0837640abec7962889a4f4f7ea7b25278a76084345434"
     "64c44d4b9a98de8c6437368f69c6ed1106ccdf7197ed0b4883cf027cdcd775755c3fe8dda085"
     "32d67ccc5080d8f7e90ad15da705c7fa3613806f5266b233e968f308bdafd2e96b5ec83eb61c"
     "818cc3cc1f0626d6d7b48737729bcd70c8ec6c54422362f0734ab4d3ef9640f0b575",
        "080119eb7a0ff4f6aa8e587b99d44330"},
    {"82880100007c010000f0ff6ec366779e1dcaee698204c5eb2cb52077cb84a4f467606c622f5c"
     "94b9b7ce4c7e16fcbf36beed294fa10fb08f0a301168f86d858fda31e4438213ad665cc12a0e"
     "1a11bdeaf920cb3d2e83a3772dc95de551bd7871581383b41e0e1884f71c334aa2026598e135"
     "f1a5be83c73fbff6c256e17a4906ef6312507027bf47e431c50b26e7ada577f43bbb49a9711d"
     "5ce74ae04c88d6d27e4f0d8a97ab5585fb37a2e9f73a4e1d6cf4923d8367badd857a7931c794"
     "d4531d964908e2ae47e200925fb8de14d16f8d5c465c755964282cfd8c596946629d670521d0"
     "1cb1ab90fc2e07d1f444887f5fbb1253be02b6e4243db67da4c31f9537fde40d440a7c2d725d"
     "55349f800f0931638509ed7ae334b3305b178b3feefc8f383e3ecf4674744beccb5409c7d712"
     "ca1ab9adcd7babdfa4cd1ba64bb47fd805ba375f23a6dd660a7347d7cbe8171411888b123380"
     "3e06de791493399cb1553d1e892bee4be13f4396d0938c7c2c93e871c567bbeb9bf4f09e0f7c"
     "aa7160c4ca06b4537aa5a6fb",
        "88ecbe8806eb2b30c8a84740a889d4c0"},
};

static size_t
from_hex(const char *hex, unsigned char *out)
{
    size_t n = strlen(hex) / 2;
    for (size_t i = 0; i < n; i++) {
        char two[3] = {hex[2 * i], hex[2 * i + 1], '\0'};
        out[i] = (unsigned char)strtoul(two, NULL, 16);
    }
    return n;
}

static void
test_agrees_with_clickhouse(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(sent); i++) {
        unsigned char in[512], want[16], got[16];
        T_TRUE(strlen(sent[i].in) / 2 <= sizeof(in));
        size_t len = from_hex(sent[i].in, in);
        T_EQ(from_hex(sent[i].sum, want), 16);
        city_hash128(in, len, got);
        assert_memory_equal(got, want, 16);
    }
}

/* The byte that follows is never read (ASan judges), the alignment does not matter, and each length
 * has its own sum. */
static void
test_reads_exactly_its_bytes_at_any_alignment(void **state)
{
    (void)state;
    enum { LONGEST = 700 };
    static unsigned char sums[LONGEST + 1][16];
    for (size_t len = 0; len <= LONGEST; len++) {
        for (size_t shift = 0; shift < 9; shift += 3) {
            unsigned char got[16], *block = malloc(shift + len + (shift + len == 0));
            T_TRUE(block != NULL);
            for (size_t i = 0; i < len; i++)
                block[shift + i] = (unsigned char)(i * 7 + (i >> 8));
            city_hash128(block + shift, len, got);
            if (shift == 0)
                memcpy(sums[len], got, 16);
            assert_memory_equal(got, sums[len], 16);
            free(block);
        }
        for (size_t shorter = 0; shorter < len; shorter++)
            assert_memory_not_equal(sums[shorter], sums[len], 16);
    }
}

/* One bit, anywhere, changes both halves: a flipped bit on the wire is seen. */
static void
test_every_bit_counts(void **state)
{
    (void)state;
    static const size_t lengths[] = {1, 3, 7, 8, 15, 16, 17, 33, 143, 144, 160, 271, 272, 300};
    for (size_t i = 0; i < COUNT_OF(lengths); i++) {
        unsigned char in[300] = {0}, plain[16], got[16];
        city_hash128(in, lengths[i], plain);
        for (size_t bit = 0; bit < lengths[i] * 8; bit++) {
            in[bit / 8] ^= (unsigned char)(1u << bit % 8);
            city_hash128(in, lengths[i], got);
            assert_memory_not_equal(got, plain, 8);
            assert_memory_not_equal(got + 8, plain + 8, 8);
            in[bit / 8] ^= (unsigned char)(1u << bit % 8);
        }
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_agrees_with_clickhouse),
        TEST(test_reads_exactly_its_bytes_at_any_alignment),
        TEST(test_every_bit_counts),
    };
    return TEST_MAIN(tests);
}
