#ifndef CHMUX_CONFIG_CONFIG_TABLE_H
#define CHMUX_CONFIG_CONFIG_TABLE_H
/*
 * config_table: options.def as data, for the code that reads, checks and prints any option.
 * Ownership: all of it is static and constant.
 */
#include "base/str.h"
#include "config/config_structs.h" /* how often a section may be there */

enum config_type {
    CONFIG_BOOL,
    CONFIG_INT,
    CONFIG_SIZE,
    CONFIG_DURATION,
    CONFIG_STRING,
    CONFIG_PATH,
    CONFIG_LIST,
    CONFIG_ENUM,
    CONFIG_PAIRS
};

struct config_opt {
    const char *key;
    enum config_type type;
    const char *const *words; /* ENUM: the names by value, then NULL; NULL for the other types */
    const char *def, *min, *max;
    bool reloadable;
    const char *text;
    size_t offset; /* of the field in the struct of its section */
};

#define CONFIG_OPTS_MAX 48 /* in one section; a static assertion holds the table to it */

struct config_section {
    const char *id;
    const char *name; /* for people: "chmux", "listen NAME" */
    const char *text;
    size_t offset; /* of the struct, the first one if it repeats, in struct config */
    size_t size;   /* of one */
    size_t row;    /* of the first one, see enum config_row */
    /* only if it repeats */
    size_t most;                      /* 0: it does not */
    const char *first;                /* NAME of the one that is always there; "": none is */
    const char *also;                 /* allowed in a NAME, besides letters, digits, - and _ */
    size_t name_offset, count_offset; /* in struct config */
    const struct config_opt *(*opts)(size_t *count);
};

enum config_section_index {
#define SECTION(id, name, text)                     CONFIG_SECTION_##id,
#define SECTIONS(id, name, text, most, first, also) CONFIG_SECTION_##id,
#define OPT(id, key, type, def, min, max, reloadable, text)
#include "config/options.def"
#undef SECTION
#undef SECTIONS
    CONFIG_SECTION_COUNT
};

/* Every section that can be there has a number: where those of one row of the table begin. */
enum config_row {
#define SECTION(id, name, text) CONFIG_ROW_##id,
#define SECTIONS(id, name, text, most, first, also)                                                \
    CONFIG_ROW_##id, CONFIG_LAST_ROW_##id = CONFIG_ROW_##id + (most)-1,
#include "config/options.def"
#undef SECTION
#undef SECTIONS
#undef OPT
    CONFIG_ROW_COUNT
};

extern const struct config_section config_sections[CONFIG_SECTION_COUNT];

/* The section whose id is `id`, or NULL. */
const struct config_section *config_section_find(struct str id);
/* What stands before the NAME of PAIRS: "set."; STR_NULL for other types. */
struct str config_pairs_prefix(const struct config_opt *opt);
/* The option of that section, or NULL; "set.max_threads" finds PAIRS. */
const struct config_opt *config_opt_find(const struct config_section *sec, struct str key);
/* Position of an option of that section. */
size_t config_opt_index(const struct config_section *sec, const struct config_opt *opt);

static inline bool
config_section_repeats(const struct config_section *sec)
{
    return sec->most > 0;
}

/* Values of such keys are never printed: *password, *secret, *token, *_key. A path that only says
 * where a secret lies (*_file) is not one. */
bool config_key_is_secret(struct str key);

/* How far apart two words are (insertions, deletions, replacements, swaps of neighbours), case
 * ignored; SIZE_MAX when it is too far for one to be a slip of the other. */
size_t config_word_distance(struct str a, struct str b);
#endif
