#ifndef CHMUX_CONFIG_CONFIG_VALUE_H
#define CHMUX_CONFIG_CONFIG_VALUE_H
/*
 * config_value: one option's value between its text and its field.
 * Ownership: the field owns its strings; config_value_set() frees those it replaces.
 */
#include "base/buf.h"
#include "config/config_table.h"

/* Room for what config_value_set() has to say, always enough for its longest sentence. */
#define CONFIG_WHY_MAX 512
/* The longest value text; a line of a file must hold it, its key and a comment. */
#define CONFIG_VALUE_MAX 4096

enum config_set { CONFIG_SET_OK, CONFIG_SET_BAD, CONFIG_SET_NOMEM };

/* Reads text into the option's field of the section struct at base, bounds and all that can be
 * said about this value alone. On BAD and NOMEM the field is untouched; BAD says why. */
MUST_USE enum config_set config_value_set(const struct config_section *sec,
    const struct config_opt *opt, void *base, struct str text, char why[CONFIG_WHY_MAX]);
/* The text that config_value_set() would read back. */
void config_value_print(const struct config_opt *opt, const void *base, struct buf *out);
/* Frees what the field owns and empties it. */
void config_value_fini(const struct config_opt *opt, void *base);
/* The i-th key = value of the option, of those that PAIRS has, or of the one that others are; key
 * has to hold "default." and a setting's name. false: there is no i-th. */
#define CONFIG_KEY_MAX 160
struct config_shown {
    char key[CONFIG_KEY_MAX];
    const struct config_pair *pair; /* NULL: the option's own value */
};
bool config_value_nth(
    const struct config_opt *opt, const void *base, size_t i, struct config_shown *out);
/* The bounds, as "16k to 4m"; "" when there is nothing to say. */
void config_value_allowed(const struct config_opt *opt, char out[CONFIG_WHY_MAX]);

/* Could a line of a file carry this value? */
MUST_USE bool config_check_text(struct str text, char why[CONFIG_WHY_MAX]);
/* Frees and empties one. config_pairs.c */
void config_pairs_fini(struct config_pairs *pairs);

/* A terminated copy, owned by the caller; NULL without memory. */
MUST_USE char *config_strdup(struct str s);
/* For messages: in double quotes, control characters as '?', cut to fit. */
#define CONFIG_QUOTE_MAX 96
const char *config_quote(struct str s, char out[CONFIG_QUOTE_MAX]);
#endif
