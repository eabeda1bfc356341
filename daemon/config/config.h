#ifndef CHMUX_CONFIG_CONFIG_H
#define CHMUX_CONFIG_CONFIG_H
/*
 * config: struct config from options.def, and how it is filled.
 *
 * Precedence: flags beat CHMUX_<SECTION>_<KEY> environment variables beat the file beat defaults.
 * CHMUX_<SECTION>_<NAME>_<KEY> names one of a section that repeats. Unknown sections, keys and
 * variables, values out of bounds and bad units are errors that name the file and line (or the
 * variable, or the flag).
 * Durations: us, ms, s, m, h, d. Sizes: b, k, m, g, t (1024). A bare number is an error except 0.
 * Ownership: struct config owns all its strings; config_free() nulls the pointer.
 * Sans-I/O: the caller reads the file and passes its text; the environment is passed in.
 */
#include "base/buf.h"
#include "config/config_structs.h"

#define CONFIG_MAX_ADMIN 8

/*
 * One field per row of the table. A section X that repeats makes three: X[] and X_name[] (owned),
 * of which the first X_count are in use. Of upstream the first is always there: the default one.
 * A listener may be called "default4", "default6" or "flag1" without having been named so.
 */
/* clang-format off */
struct config {
#define SECTION(id, name, text) struct config_##id id;
#define SECTIONS(id, name, text, most, first, also)                                                \
    struct config_##id id[most];                                                                   \
    char *id##_name[most];                                                                         \
    size_t id##_count;
#define OPT(id, key, type, def, min, max, reloadable, text)
#include "config/options.def"
#undef SECTION
#undef SECTIONS
#undef OPT
    /* Where each value came from: see config_print(). Opaque to others. */
    struct config_origin *origin;
};
/* clang-format on */

/* One command-line setting, in order: --set section.key=value, or a named flag turned into one. */
struct config_flag {
    const char *flag; /* as typed, for messages: "--pool-size" */
    const char *path; /* "chmux.workers", "listen.NAME.address" */
    const char *value;
};

struct config_source {
    const char *file_name; /* for messages; NULL: no file */
    struct str file_text;
    const char *const *environ_list; /* NULL-terminated "K=V"; NULL: none */
    const struct config_flag *flags;
    size_t flag_count;
    /* Names of the listening sockets that the service manager passed. A listener of such a name
     * needs no address; any but "admin" means that the built-in listeners are not wanted. */
    const char *const *passed_names;
    size_t passed_count;
};

/* Owned by the caller; NULL on error, then *errors holds one line per error (all of them, not only
 * the first). Lines that begin with "warning: " are no errors: they stand there on success too, for
 * the caller to log. Lists of URLs and addresses have passed config_parse_url() and the like.
 * Threads: any, but one call at a time (inih keeps a global). When no [listen] section, no flag
 * and no passed socket names a listener, the two defaults 127.0.0.1:8123 and [::1]:8123 are filled
 * in, as "default4" and "default6". */
MUST_USE struct config *config_load(const struct config_source *src, struct buf *errors);
void config_free(struct config **cp);
/* Every option as an INI file that would give the same configuration, each followed by a comment
 * that says where its value came from (default, FILE:LINE, environment, flag). Secrets masked. */
void config_print(const struct config *c, struct buf *out);
/* Every option in the order of the table. Good for the call; a callback that says false ends it. */
struct config_item {
    const char *section, *key; /* "upstream", "listen NAME" */
    struct str value;          /* as it would be written; "********" for a secret */
    struct str source;         /* "default", "FILE:LINE", "environment CHMUX_X", "--pool-size" */
    bool reloadable;
};
typedef bool (*config_item_fn)(void *arg, const struct config_item *it);
/* false: no memory. */
MUST_USE bool config_each(const struct config *c, config_item_fn fn, void *arg);

/* Every file or folder that an option names. */
typedef void (*config_path_fn)(void *arg, const char *path);
void config_each_path(const struct config *c, config_path_fn fn, void *arg);

/* What a reload changes: options whose value differs, and those of sections that come or go. */
struct config_change {
    char *section, *key;  /* owned; "listen web", "address" */
    char *before, *after; /* owned; NULL: there is no such section; "********" for a secret */
    bool reloadable;
};
struct config_changes {
    struct config_change *item; /* owned */
    size_t count;
};
/* In the order of the table, then what is gone. *out ends in config_changes_fini() in any case.
 * false: no memory. */
MUST_USE bool config_diff(
    const struct config *now, const struct config *next, struct config_changes *out);
void config_changes_fini(struct config_changes *ch);
/* Puts into next what now has for every option that only a restart changes, so that next is what
 * can be in force. false: the mixture is not valid, or no memory; *errors says so. Threads: as
 * config_load(). */
MUST_USE bool config_hold(struct config *next, const struct config *now,
    const struct config_source *src, struct buf *errors);
/* The reference page docs/CONFIG.md. */
void config_reference(struct buf *out);
/* The built-in listeners were not asked for: one that cannot be bound is a warning when the
 * other one can (a machine without IPv6). */
bool config_listen_is_default(const struct config *c, size_t i);

/* scheme://host:port of an upstream. Errors say what is wrong and show the URL with any userinfo
 * masked; userinfo, path, query and fragment are refused. Default ports 8123 and 8443. */
struct config_url {
    bool tls;
    char host[256]; /* without brackets */
    uint16_t port;
};
MUST_USE bool config_parse_url(struct str text, struct config_url *out, char *why, size_t why_len);

/* Textual values, also used by tests and the control tool. */
MUST_USE bool config_parse_duration(struct str text, int64_t *us);
MUST_USE bool config_parse_size(struct str text, size_t *bytes);
/* Permission bits in octal, 3 to 5 digits, at most 0777. */
MUST_USE bool config_parse_mode(struct str text, unsigned *mode);
void config_format_duration(int64_t us, char out[32]);
void config_format_size(size_t bytes, char out[32]);
#endif
