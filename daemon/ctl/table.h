#ifndef CHMUX_CTL_TABLE_H
#define CHMUX_CTL_TABLE_H
/*
 * table: rows of cells in aligned columns.
 *
 * Ownership  embedded; copies what it is given, made harmless by text_clean().
 * Bound      A cell wider than TABLE_PAD_MAX moves its own row only, so that one long text does not
 *            widen the whole table.
 * Errors     Without memory nothing more is taken, and table_print() marks its buf as failed.
 */
#include "base/buf.h"

#define TABLE_COLUMNS_MAX 48
#define TABLE_PAD_MAX     60

struct table { /* fields are the table's */
    struct buf text;
    struct table_cell {
        size_t at, len, width;
    } * cells; /* owned; row by row, the headings first */
    size_t count, cap;
    struct {
        bool right;
        size_t width;
    } column[TABLE_COLUMNS_MAX];
    size_t column_count;
    bool failed;
};

void table_init(struct table *t);
void table_fini(struct table *t);
/* All columns come before the first cell; at most TABLE_COLUMNS_MAX. */
void table_column(struct table *t, struct str heading, bool right);
void table_cell(struct table *t, struct str text);
/* Without headings where they are all empty. */
void table_print(const struct table *t, struct buf *out);
#endif
