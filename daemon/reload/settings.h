#ifndef CHMUX_RELOAD_SETTINGS_H
#define CHMUX_RELOAD_SETTINGS_H
/*
 * settings: where the configuration comes from, at the start and at every reload.
 * Ownership  Borrows all it points to, for the life of the process.
 * Threads    Any, but one call at a time (see config_load()). settings_load() reads a file, so it
 *            may block.
 */
#include "config/config.h"
#include "net/passed.h"

struct settings {
    const char *file; /* NULL: none */
    const char *const *environ_list;
    const struct config_flag *flags;
    size_t flag_count;
    const char *passed_names[PASSED_MAX];
    size_t passed_count;
};

/* As config_load(), of the file as it is now. With `now`, what a reload makes of it: *changes says
 * in what it differs (and ends in config_changes_fini()), and what only a restart changes is as in
 * `now`. */
MUST_USE struct config *settings_load(const struct settings *s, const struct config *now,
    struct config_changes *changes, struct buf *errors);
/* Sees to it that all clients and connections could have a descriptor. false: why. */
MUST_USE bool settings_raise_descriptors(const struct config *cfg, char *why, size_t why_len);
#endif
