#include "config/config_table.h"

#include "base/check.h"
#include "config/config.h"

/* Words of the ENUM types, by value. */
static const char *const words_host_header[] = {"auto", "client", "upstream", NULL};
static const char *const words_on_disconnect[] = {"kill", "close", NULL};
static const char *const words_tls_version[] = {"1.2", "1.3", NULL};
static const char *const words_tls_client_auth[] = {"off", "optional", "require", NULL};
static const char *const words_compression[] = {"off", "zstd", "lz4", "gzip", NULL};
static const char *const words_local_encoding[] = {"identity", "client", NULL};
static const char *const words_local_auth[] = {"uid", "trust", NULL};
static const char *const words_local_blocks[] = {"lz4", "none", NULL};
static const char *const words_admin_access[] = {"health", "read", "control", NULL};
static const char *const words_log_level[] = {"error", "warn", "info", "debug", NULL};
static const char *const words_log_format[] = {"text", "json", NULL};

_Static_assert(ON_DISCONNECT_KILL == 0 && ON_DISCONNECT_CLOSE == 1, "order of the words");
_Static_assert(TLS_VERSION_1_2 == 0 && TLS_VERSION_1_3 == 1, "order of the words");
_Static_assert(TLS_CLIENT_AUTH_OFF == 0 && TLS_CLIENT_AUTH_OPTIONAL == 1, "order of the words");
_Static_assert(TLS_CLIENT_AUTH_REQUIRE == 2, "order of the words");
_Static_assert(COMPRESSION_OFF == 0 && COMPRESSION_ZSTD == 1, "order of the words");
_Static_assert(COMPRESSION_LZ4 == 2 && COMPRESSION_GZIP == 3, "order of the words");
_Static_assert(LOCAL_ENCODING_IDENTITY == 0 && LOCAL_ENCODING_CLIENT == 1, "order of the words");
_Static_assert(LOCAL_AUTH_UID == 0 && LOCAL_AUTH_TRUST == 1, "order of the words");
_Static_assert(LOCAL_BLOCKS_LZ4 == 0 && LOCAL_BLOCKS_NONE == 1, "order of the words");
_Static_assert(ADMIN_ACCESS_HEALTH == 0 && ADMIN_ACCESS_READ == 1, "order of the words");
_Static_assert(ADMIN_ACCESS_CONTROL == 2, "order of the words");
_Static_assert(LOG_ERROR == 0 && LOG_WARN == 1 && LOG_INFO == 2 && LOG_DEBUG == 3, "order");
_Static_assert(LOG_TEXT == 0 && LOG_JSON == 1, "order of the words");

/* A type becomes two initialisers, the type and the words: CONFIG_INIT_##type. */
#define CONFIG_INIT_BOOL       CONFIG_BOOL, NULL
#define CONFIG_INIT_INT        CONFIG_INT, NULL
#define CONFIG_INIT_SIZE       CONFIG_SIZE, NULL
#define CONFIG_INIT_DURATION   CONFIG_DURATION, NULL
#define CONFIG_INIT_STRING     CONFIG_STRING, NULL
#define CONFIG_INIT_PATH       CONFIG_PATH, NULL
#define CONFIG_INIT_LIST       CONFIG_LIST, NULL
#define CONFIG_INIT_ENUM(name) CONFIG_ENUM, words_##name
#define CONFIG_INIT_PAIRS      CONFIG_PAIRS, NULL

/* One function per section, so that `self` can name a different struct in each: an OPT row does
 * not know its section, and offsetof() needs it. Each SECTION row ends the function before it, so
 * the table needs a function to end before its first row, and an end after its last. */
/* clang-format off */
#define ROWS_BEGIN(id)                                                                             \
    static const struct config_opt *opts_##id(size_t *count)                                       \
    {                                                                                              \
        typedef struct config_##id self;                                                           \
        static const struct config_opt rows[] = {
#define ROWS_END                                                                                   \
        };                                                                                         \
        _Static_assert(COUNT_OF(rows) <= CONFIG_OPTS_MAX, "raise CONFIG_OPTS_MAX");                \
        *count = COUNT_OF(rows);                                                                   \
        return rows;                                                                               \
    }
#define SECTION(id, name, text) ROWS_END ROWS_BEGIN(id)
#define SECTIONS(id, name, text, most, first, also) ROWS_END ROWS_BEGIN(id)
#define OPT(id, key, type, def, min, max, reloadable, text)                                        \
    {key, CONFIG_INIT_##type, def, min, max, reloadable, text, offsetof(self, id)},

__attribute__((unused))
ROWS_BEGIN(before_first_section)
    {"", CONFIG_INIT_BOOL, "", "", "", 0, "", offsetof(self, unused)},
#include "config/options.def"
ROWS_END
#undef SECTION
#undef SECTIONS
#undef OPT

const struct config_section config_sections[CONFIG_SECTION_COUNT] = {
#define SECTION_INIT(sec_id, sec_name, sec_text)                                                   \
    .id = #sec_id, .name = sec_name, .text = sec_text, .opts = opts_##sec_id,                      \
    .offset = offsetof(struct config, sec_id), .size = sizeof(struct config_##sec_id),             \
    .row = CONFIG_ROW_##sec_id
#define SECTION(id, name, text) {SECTION_INIT(id, name, text)},
#define SECTIONS(sec_id, name, text, sec_most, sec_first, sec_also)                                \
    {SECTION_INIT(sec_id, name, text), .most = sec_most, .first = sec_first, .also = sec_also,     \
    .name_offset = offsetof(struct config, sec_id##_name),                                         \
    .count_offset = offsetof(struct config, sec_id##_count)},
#define OPT(id, key, type, def, min, max, reloadable, text)
#include "config/options.def"
#undef SECTION
#undef SECTIONS
#undef OPT
};
/* clang-format on */

const struct config_section *
config_section_find(struct str id)
{
    for (size_t i = 0; i < CONFIG_SECTION_COUNT; i++)
        if (str_eq(str_of(config_sections[i].id), id))
            return &config_sections[i];
    return NULL;
}

const struct config_opt *
config_opt_find(const struct config_section *sec, struct str key)
{
    size_t count;
    const struct config_opt *opt = sec->opts(&count);
    for (size_t i = 0; i < count; i++)
        if (str_eq(str_of(opt[i].key), key))
            return &opt[i];
    for (size_t i = 0; i < count; i++) {
        struct str prefix = config_pairs_prefix(&opt[i]);
        if (prefix.len > 0 && key.len > prefix.len && memcmp(key.p, prefix.p, prefix.len) == 0)
            return &opt[i];
    }
    return NULL;
}

struct str
config_pairs_prefix(const struct config_opt *opt)
{
    const char *dot = opt->type == CONFIG_PAIRS ? strchr(opt->key, '.') : NULL;
    return dot == NULL ? STR_NULL : str_n(opt->key, (size_t)(dot + 1 - opt->key));
}

size_t
config_opt_index(const struct config_section *sec, const struct config_opt *opt)
{
    size_t count;
    const struct config_opt *first = sec->opts(&count);
    CHECK(opt >= first && opt < first + count);
    return (size_t)(opt - first);
}

static bool
ends_with(struct str s, struct str tail)
{
    return s.len >= tail.len && str_eq(str_n(s.p + s.len - tail.len, tail.len), tail);
}

bool
config_key_is_secret(struct str key)
{
    return ends_with(key, STR("password")) || ends_with(key, STR("secret")) ||
           ends_with(key, STR("token")) || ends_with(key, STR("_key"));
}

#define WORD_MAX 63

size_t
config_word_distance(struct str a, struct str b)
{
    if (a.len == 0 || a.len > WORD_MAX || b.len == 0 || b.len > WORD_MAX)
        return SIZE_MAX;
    /* Three rows of the edit matrix are enough: a swap looks two back. */
    size_t rows[3][WORD_MAX + 1];
    size_t *before = rows[0], *last = rows[1], *now = rows[2];
    for (size_t j = 0; j <= b.len; j++)
        before[j] = last[j] = j;
    for (size_t i = 1; i <= a.len; i++) {
        now[0] = i;
        for (size_t j = 1; j <= b.len; j++) {
            char x = ascii_lower(a.p[i - 1]), y = ascii_lower(b.p[j - 1]);
            now[j] = size_min(last[j - 1] + (x != y), size_min(last[j], now[j - 1]) + 1);
            if (i > 1 && j > 1 && x == ascii_lower(b.p[j - 2]) && ascii_lower(a.p[i - 2]) == y)
                now[j] = size_min(now[j], before[j - 2] + 1);
        }
        size_t *oldest = before;
        before = last;
        last = now;
        now = oldest;
    }
    size_t longer = size_max(a.len, b.len);
    size_t most = size_min(3, size_max(1, longer / 3));
    return last[b.len] <= most ? last[b.len] : SIZE_MAX;
}
