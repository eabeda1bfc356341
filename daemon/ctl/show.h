#ifndef CHMUX_CTL_SHOW_H
#define CHMUX_CTL_SHOW_H
/*
 * show: the answers of chmuxd for people.
 *
 * What is known of an answer gives the order and the headings; fields that this version does not
 * know are shown behind them, by what their names end in (_ms, _bytes), and those that are missing
 * are left out. All text is made harmless.
 */
#include <jansson.h>

#include "base/buf.h"

#define SHOW_COLUMNS 80 /* lines of fields are broken before this column */

/* One value, as its name says. */
void show_value(struct buf *out, const char *key, json_t *value);
/* "name     open 3, max 100, ..." with the fields of an object, and of objects in it; lists are
 * left out, and so are the names in `except`, a comma-separated list. An empty name: no name in
 * front. */
void show_fields(struct buf *out, const char *name, json_t *object, const char *except);
/* The objects of an array as a table. columns: see show.c; "": all that they have. At most `most`
 * rows. */
void show_rows(struct buf *out, json_t *rows, const char *columns, bool wide, size_t most);

/* The answer to `show WHAT`: "clients" and so on. */
void show_list(struct buf *out, const char *what, json_t *root, bool wide);
void show_status(struct buf *out, json_t *root);
/* What a command said: its message, and what else stands in the answer. */
void show_done(struct buf *out, json_t *root);
/* The upstreams in a status. */
void show_upstreams(struct buf *out, json_t *root);
/* Running requests, as `top` shows them. */
void show_running(struct buf *out, json_t *root, size_t most);
#endif
