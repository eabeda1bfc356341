#include "ctl/table.h"

#include "ctl/text.h"

#define TEXT_MAX (64u << 20)
#define GAP      2

void
table_init(struct table *t)
{
    *t = (struct table){0};
    buf_init(&t->text, TEXT_MAX);
}

void
table_fini(struct table *t)
{
    buf_fini(&t->text);
    free(t->cells);
    t->cells = NULL;
}

static bool
grow(struct table *t)
{
    if (t->count < t->cap)
        return true;
    size_t cap = t->cap == 0 ? 128 : t->cap * 2;
    struct table_cell *p = reallocarray(t->cells, cap, sizeof *p);
    if (p == NULL)
        return false;
    t->cells = p;
    t->cap = cap;
    return true;
}

void
table_cell(struct table *t, struct str text)
{
    if (t->failed || !grow(t)) {
        t->failed = true;
        return;
    }
    struct table_cell *c = &t->cells[t->count];
    c->at = t->text.len;
    text_clean(&t->text, text);
    if (!buf_ok(&t->text)) {
        t->failed = true;
        return;
    }
    c->len = t->text.len - c->at;
    c->width = text_width(str_n(t->text.p + c->at, c->len));
    size_t *column = &t->column[t->count % t->column_count].width;
    if (c->width <= TABLE_PAD_MAX)
        *column = size_max(*column, c->width);
    t->count++;
}

void
table_column(struct table *t, struct str heading, bool right)
{
    CHECK(t->column_count < TABLE_COLUMNS_MAX && (t->failed || t->count == t->column_count));
    t->column[t->column_count++].right = right;
    table_cell(t, heading);
}

static void
print_row(const struct table *t, const struct table_cell *row, struct buf *out)
{
    size_t owed = 0; /* spaces that are written only when something follows them */
    for (size_t i = 0; i < t->column_count; i++) {
        const struct table_cell *c = &row[i];
        size_t width = t->column[i].width, pad = width > c->width ? width - c->width : 0;
        size_t before = owed + (t->column[i].right ? pad : 0);
        owed = GAP + (t->column[i].right ? 0 : pad);
        if (c->len == 0) {
            owed += before;
            continue;
        }
        buf_addf(out, "%*s", (int)before, "");
        buf_add(out, t->text.p + c->at, c->len);
    }
    buf_str(out, STR("\n"));
}

static bool
has_headings(const struct table *t)
{
    for (size_t i = 0; i < t->column_count; i++)
        if (t->cells[i].len > 0)
            return true;
    return false;
}

void
table_print(const struct table *t, struct buf *out)
{
    if (t->failed) {
        out->failed = true;
        return;
    }
    CHECK(t->column_count > 0 && t->count % t->column_count == 0);
    for (size_t i = has_headings(t) ? 0 : t->column_count; i < t->count; i += t->column_count)
        print_row(t, t->cells + i, out);
}
