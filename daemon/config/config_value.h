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
/* The bounds, as "16k to 4m"; "" when there is nothing to say. */
void config_value_allowed(const struct config_opt *opt, char out[CONFIG_WHY_MAX]);

/* A terminated copy, owned by the caller; NULL without memory. */
MUST_USE char *config_strdup(struct str s);
/* For messages: in double quotes, control characters as '?', cut to fit. */
#define CONFIG_QUOTE_MAX 96
const char *config_quote(struct str s, char out[CONFIG_QUOTE_MAX]);
#endif
