#ifndef CHMUX_CONFIG_CONFIG_STRUCTS_H
#define CHMUX_CONFIG_CONFIG_STRUCTS_H
/*
 * config_structs: one struct per [section] of options.def, one field per option.
 *
 * Ownership: strings and lists are owned by the struct config around them and never NULL.
 * Units: sizes in bytes, durations in microseconds.
 */
#include "base/log.h"

enum host_header { HOST_HEADER_AUTO, HOST_HEADER_CLIENT, HOST_HEADER_UPSTREAM };
enum on_disconnect { ON_DISCONNECT_KILL, ON_DISCONNECT_CLOSE };
enum tls_version { TLS_VERSION_1_2, TLS_VERSION_1_3 };
enum tls_client_auth { TLS_CLIENT_AUTH_OFF, TLS_CLIENT_AUTH_OPTIONAL, TLS_CLIENT_AUTH_REQUIRE };

enum compression { COMPRESSION_OFF, COMPRESSION_ZSTD, COMPRESSION_LZ4, COMPRESSION_GZIP };
enum local_encoding { LOCAL_ENCODING_IDENTITY, LOCAL_ENCODING_CLIENT };
enum local_auth { LOCAL_AUTH_UID, LOCAL_AUTH_TRUST };
enum local_blocks { LOCAL_BLOCKS_LZ4, LOCAL_BLOCKS_NONE };

/* What somebody may do at the admin address; each includes those before it. */
enum admin_access { ADMIN_ACCESS_HEALTH, ADMIN_ACCESS_READ, ADMIN_ACCESS_CONTROL };

/* How often a section may be there. */
#define CONFIG_MAX_LISTEN   32
#define CONFIG_MAX_UPSTREAM 16

#define CONFIG_MAX_NETS 64 /* in one list of networks */
#define CONFIG_MAX_USER 256

#define CONFIG_AUTO (-1) /* an INT whose default is the word auto */

struct config_list {
    char **item; /* owned, as are the strings in it; NULL when count is 0 */
    size_t count;
};

/* Keys that are not in the table, of a section: set.NAME = value. */
#define CONFIG_MAX_PAIRS 64
struct config_pair {
    char *name, *value;                 /* owned; name without the "set." */
    struct config_origin_entry *origin; /* owned; config's own */
};
struct config_pairs {
    struct config_pair *item; /* owned; NULL when count is 0; no name twice */
    size_t count;
};

/* Field types by OPT type. */
#define CONFIG_T_BOOL       bool
#define CONFIG_T_INT        int64_t
#define CONFIG_T_SIZE       size_t
#define CONFIG_T_DURATION   int64_t /* microseconds */
#define CONFIG_T_STRING     char *  /* never NULL */
#define CONFIG_T_PATH       char *  /* never NULL */
#define CONFIG_T_LIST       struct config_list
#define CONFIG_T_ENUM(name) enum name
#define CONFIG_T_PAIRS      struct config_pairs

/* Each SECTION or SECTIONS row closes the struct of the row before it and opens its own, so the
 * table needs a struct to close before its first row and a "};" after its last. */
/* clang-format off */
struct config_before_first_section {
    char unused;
#define SECTION(id, name, text) }; struct config_##id {
#define SECTIONS(id, name, text, most, first, also) }; struct config_##id {
#define OPT(id, key, type, def, min, max, reloadable, text) CONFIG_T_##type id;
#include "config/options.def"
#undef SECTION
#undef SECTIONS
#undef OPT
};
/* clang-format on */
#endif
