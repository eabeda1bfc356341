#ifndef CHMUX_CONFIG_CONFIG_LOAD_H
#define CHMUX_CONFIG_CONFIG_LOAD_H
/*
 * config_load: what the readers of file, environment and flags share: one value goes in through
 * config_assign(), and every complaint goes out as one line that begins with its place.
 */
#include "config/config.h"
#include "config/config_table.h"

enum config_origin_kind { CONFIG_DEFAULT, CONFIG_FILE, CONFIG_ENVIRONMENT, CONFIG_FLAG };

/* Where a value comes from; label is borrowed from the source. */
struct config_place {
    enum config_origin_kind kind;
    uint32_t line;    /* CONFIG_FILE */
    struct str label; /* the variable, or the flag as typed; --set with its path */
};

struct config_origin_entry {
    enum config_origin_kind kind;
    bool bad; /* the newest value was refused: cross-checks keep quiet about it */
    uint32_t line;
    char *label; /* owned; NULL for default and file */
};

/* The struct config_origin of config.h, by enum config_row. */
struct config_origin {
    char *file_name; /* owned; NULL: no file */
    struct config_origin_entry opt[CONFIG_ROW_COUNT][CONFIG_OPTS_MAX];
    struct config_origin_entry named[CONFIG_ROW_COUNT]; /* what first named one that repeats */
};

/* One section; of those that repeat, the nth. */
struct config_target {
    const struct config_section *sec;
    size_t nth;
};

struct config_loader {
    const struct config_source *src;
    struct config *c;
    struct buf *errors;
    size_t error_count;
    bool nomem;
};

/* config_target.c */
/* How many of that section there are. */
size_t config_section_count(const struct config *c, const struct config_section *sec);
/* All of c in the order of the table: *t is zero before the first. false: no more. */
MUST_USE bool config_target_next(const struct config *c, struct config_target *t);
/* The struct of that section in c. */
void *config_target_base(struct config *c, struct config_target t);
const void *config_target_base_const(const struct config *c, struct config_target t);
/* NAME, "default" where none is needed; "" for a section that does not repeat. */
const char *config_target_given_name(const struct config *c, struct config_target t);
/* As in the file: "upstream", "listen web". */
#define CONFIG_TARGET_NAME_MAX 64
const char *config_target_name(
    const struct config *c, struct config_target t, char out[CONFIG_TARGET_NAME_MAX]);
struct config_origin_entry *config_origin_of(
    const struct config *c, struct config_target t, const struct config_opt *opt);
/* What first named it; for a section that repeats. */
struct config_origin_entry *config_origin_of_name(const struct config *c, struct config_target t);
/* The one of that name, a new one with its defaults; false after reporting why not. In the
 * environment a name is in upper case with _ for all but letters and digits, and matches whatever
 * folds to it. name "": the one that is always there, if the section has one. */
MUST_USE bool config_name_target(struct config_loader *l, const struct config_place *place,
    const struct config_section *sec, struct str name, struct config_target *out);
/* Is it the name of one by that rule? */
bool config_target_is_called(const struct config *c, struct config_target t, struct str name);
/* The sections that are always there, with their defaults. */
void config_set_defaults(struct config_loader *l);
/* Frees what all sections own. */
void config_free_targets(struct config *c);

/* config.c */
struct config_place config_place_of(const struct config_origin_entry *e);
MUST_USE bool config_origin_note(
    struct config_origin_entry *e, const struct config_place *place, bool bad);
/* "default", "FILE:LINE", "environment CHMUX_X", "--pool-size". */
void config_origin_print(
    const struct config *c, const struct config_origin_entry *e, struct buf *out);

/* Sets one option and notes its origin, or reports why not. key is what was written, which for
 * PAIRS says more than the option. */
void config_assign(struct config_loader *l, const struct config_place *place,
    struct config_target t, const struct config_opt *opt, struct str key, struct str text);
/* The same for one of the keys of PAIRS. config_pairs.c */
void config_assign_pair(struct config_loader *l, const struct config_place *place,
    struct config_target t, const struct config_opt *opt, struct str name, struct str text);
/* The one of that NAME, or NULL. */
struct config_pair *config_pairs_find(const struct config_pairs *pairs, struct str name);

/* One line: place, [section] and key where the place is a line of a file or a default, what is
 * wrong. `section` and `key` may be NULL. Past a bound lines are only counted. */
void config_error(struct config_loader *l, const struct config_place *place, const char *section,
    const char *key, const char *fmt, ...) PRINTF_LIKE(5, 6);
/* As config_error(), but the line begins with "warning: " and nothing fails. */
void config_warn(struct config_loader *l, const struct config_place *place, const char *section,
    const char *key, const char *fmt, ...) PRINTF_LIKE(5, 6);

/* The nearest of the words offered to `word`. */
struct config_hint {
    struct str word;
    size_t distance;
    char best[64]; /* "" when nothing is near; a longer word is never offered as a hint */
};
void config_hint_init(struct config_hint *h, struct str word);
/* `show` is what the user should write if `candidate` is the nearest. */
void config_hint_offer(struct config_hint *h, struct str candidate, const char *show);
/* "; did you mean X?" or, with nothing near, `otherwise`. */
#define CONFIG_HINT_MAX 160
const char *config_hint_text(
    const struct config_hint *h, const char *otherwise, char out[CONFIG_HINT_MAX]);
/* Reports that `key` is not in section `sec`, with the nearest key or the section it belongs to. */
void config_unknown_key(struct config_loader *l, const struct config_place *place,
    struct config_target t, struct str key);
/* Reports an unknown section. */
void config_unknown_section(
    struct config_loader *l, const struct config_place *place, struct str name);

void config_read_file(struct config_loader *l);        /* config_file.c */
void config_read_environment(struct config_loader *l); /* config_env.c */
void config_cross_check(struct config_loader *l);      /* config_check.c */
#endif
