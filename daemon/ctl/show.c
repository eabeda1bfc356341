#include "ctl/show.h"

#include "ctl/latency.h"
#include "ctl/table.h"
#include "ctl/text.h"

#define NAME_COLUMNS 11
#define UNKNOWN_MAX  12 /* columns this version does not know */

/*
 * Columns: words key[=HEADING] in the order they are shown. key may be a.b, the b of an object a.
 *   ?key  only when some row says something there (not null, false or empty)
 *   +key  only with --wide
 */
static const struct view {
    const char *what, *list, *columns;
} views[] = {
    {"clients", "clients",
        "id state peer ?uid ?pid ?tls ?certificate +local age_ms requests exchange"},
    {"exchanges", "exchanges",
        "id client state user query_id +method +path ?upstream address +conn age_ms queued_ms "
        "+running_ms "
        "request_bytes=SENT response_bytes=RECEIVED ?status +answering ?in_session ?retried "
        "?request_coding ?response_coding"},
    {"pool", "connections", "id state address tls age_ms idle_ms requests ?retiring"},
    {"endpoints", "endpoints",
        "state address host port tls active idle connecting requests failures ?ejected_ms "
        "?probe_in_ms ?last_error"},
    {"queue", "waiters", "waits_for ?upstream round waited_ms exchange client user query_id"},
    {"users", "users",
        "name upstream_user secret in_flight max_in_flight waiting queue_share requests waited "
        "refused"},
    {"pipes", "pipes",
        "exchange client direction decode encode state in_bytes=IN out_bytes=OUT room_bytes "
        "?output_waits"},
    {"config", "config", "section key value source reloadable"},
    {"errors", "errors",
        "+time_ms age_ms reason status ?code times exchange client ?peer user query_id ?upstream "
        "detail"},
};

static const char running_columns[] =
    "id state user age_ms queued_ms request_bytes=SENT response_bytes=RECEIVED query_id +client "
    "+method +path ?upstream +address +conn +running_ms +status +answering +in_session +retried "
    "+request_coding +response_coding";
static const char changed_columns[] = "section key before after";
static const char upstream_columns[] =
    "name up pool.active=BUSY pool.idle=IDLE pool.size=SIZE queue.waiting=WAITING "
    "queue.paused=PAUSED addresses.up=SERVERS addresses.ejected=EJECTED +pool +queue +addresses";

/* ---- values ---- */

static bool
has_suffix(const char *key, const char *suffix)
{
    size_t n = strlen(key), m = strlen(suffix);
    return n >= m && strcmp(key + n - m, suffix) == 0;
}

static void
put_number(struct buf *out, const char *key, json_t *value)
{
    char text[TEXT_FIGURE_MAX];
    double n = json_number_value(value);
    if (strcmp(key, "time_ms") == 0)
        text_time(n, text);
    else if (has_suffix(key, "_ms"))
        text_duration(n, text);
    else if (has_suffix(key, "_bytes"))
        text_size(n, text);
    else if (json_is_integer(value))
        snprintf(text, sizeof text, "%lld", (long long)json_integer_value(value));
    else
        snprintf(text, sizeof text, "%.6g", n);
    buf_str(out, str_of(text));
}

void
show_value(struct buf *out, const char *key, json_t *value)
{
    if (json_is_number(value)) {
        put_number(out, key, value);
    } else if (json_is_boolean(value)) {
        buf_str(out, json_is_true(value) ? STR("yes") : STR("no"));
    } else if (json_is_string(value) && json_string_length(value) > 0) {
        text_clean(out, str_n(json_string_value(value), json_string_length(value)));
    } else if (json_is_array(value)) {
        for (size_t i = 0; i < json_array_size(value); i++) {
            buf_str(out, i == 0 ? STR("") : STR(", "));
            show_value(out, key, json_array_get(value, i));
        }
    } else if (json_is_object(value)) {
        buf_str(out, STR("..."));
    } else {
        buf_str(out, STR("-"));
    }
}

/* null, false and "" say nothing. */
static bool
says_something(json_t *value)
{
    if (json_is_string(value))
        return json_string_length(value) > 0;
    return value != NULL && !json_is_null(value) && !json_is_false(value);
}

/* "queued_ms" without the unit that its value will have. */
static struct str
name_of(const char *key)
{
    struct str s = str_of(key);
    if (has_suffix(key, "_ms"))
        s.len -= 3;
    else if (has_suffix(key, "_bytes"))
        s.len -= 6;
    return s.len == 0 ? str_of(key) : s;
}

/* Spaces for underscores. */
static void
put_name(struct buf *out, const char *key)
{
    struct str s = name_of(key);
    size_t from = out->len;
    text_clean(out, s);
    for (size_t i = from; i < out->len; i++)
        if (out->p[i] == '_')
            out->p[i] = ' ';
}

/* ---- lines of fields ---- */

static bool
is_listed(const char *list, const char *key)
{
    struct str all = str_of(list), token;
    while (str_next_token(&all, &token))
        if (str_eq(token, str_of(key)))
            return true;
    return false;
}

struct line {
    struct buf *out;
    struct buf item; /* the field that is being written */
    size_t indent, at;
    bool first;
};

/* Writes the item, on a new line where it does not fit any more. */
static void
line_put(struct line *l)
{
    size_t width = text_width(str_n(l->item.p, l->item.len));
    if (l->first) {
        l->first = false;
    } else if (l->at + 2 + width > SHOW_COLUMNS) {
        buf_addf(l->out, ",\n%*s", (int)l->indent, "");
        l->at = l->indent;
    } else {
        buf_str(l->out, STR(", "));
        l->at += 2;
    }
    buf_add(l->out, l->item.p, l->item.len);
    l->at += width;
    l->item.len = 0;
}

static void
put_field(struct line *l, const char *name, const char *key, json_t *value)
{
    /* the numbers of "bytes" are bytes */
    const char *as = strcmp(name, "bytes") == 0 ? "_bytes" : key;
    put_name(&l->item, key);
    buf_str(&l->item, STR(" "));
    show_value(&l->item, as, value);
    line_put(l);
}

/* "last ok yes, last time ...": the fields of an object inside. */
static void
put_inner_fields(struct line *l, const char *name, json_t *object)
{
    for (void *i = json_object_iter(object); i != NULL; i = json_object_iter_next(object, i)) {
        json_t *value = json_object_iter_value(i);
        if (json_is_array(value) || json_is_object(value))
            continue;
        put_name(&l->item, name);
        buf_str(&l->item, STR(" "));
        put_field(l, name, json_object_iter_key(i), value);
    }
}

void
show_fields(struct buf *out, const char *name, json_t *object, const char *except)
{
    struct line l = {.out = out, .first = true};
    size_t start = out->len;
    buf_init(&l.item, 1 << 20);
    put_name(out, name);
    l.indent = name[0] == '\0' ? 0 : NAME_COLUMNS;
    l.at = text_width(str_n(out->p + start, out->len - start));
    if (l.at < l.indent) {
        buf_addf(out, "%*s", (int)(l.indent - l.at), "");
        l.at = l.indent;
    }
    for (void *i = json_object_iter(object); i != NULL; i = json_object_iter_next(object, i)) {
        const char *key = json_object_iter_key(i);
        json_t *value = json_object_iter_value(i);
        if (is_listed(except, key) || json_is_array(value))
            continue;
        if (json_is_object(value) && name[0] != '\0')
            put_inner_fields(&l, key, value);
        else if (!json_is_object(value))
            put_field(&l, name, key, value);
    }
    if (l.first)
        out->len = start;
    else
        buf_str(out, STR("\n"));
    out->failed |= l.item.failed;
    buf_fini(&l.item);
}

/* ---- tables ---- */

struct columns {
    struct column {
        char *key;          /* owned */
        struct str heading; /* empty: the key's */
    } at[TABLE_COLUMNS_MAX];
    size_t count;
};

static void
columns_fini(struct columns *c)
{
    for (size_t i = 0; i < c->count; i++)
        free(c->at[i].key);
}

static void
add_column(struct columns *c, struct str key, struct str heading)
{
    char *copy = c->count < TABLE_COLUMNS_MAX ? strndup(key.p, key.len) : NULL;
    if (copy != NULL)
        c->at[c->count++] = (struct column){copy, heading};
}

static json_t *
member_of(json_t *row, const char *key)
{
    json_t *value = json_object_get(row, key);
    size_t n = strcspn(key, ".");
    if (value != NULL || key[n] == '\0')
        return value;
    return json_object_get(json_object_getn(row, key, n), key + n + 1);
}

static bool
column_says_something(json_t *rows, const char *key)
{
    for (size_t i = 0; i < json_array_size(rows); i++)
        if (says_something(member_of(json_array_get(rows, i), key)))
            return true;
    return false;
}

/* The next word of a list of columns, taken apart. */
struct word {
    char key[64];
    struct str heading;
    bool optional, wide;
};

static bool
next_word(const char **at, struct word *w)
{
    *at += strspn(*at, " ");
    size_t n = strcspn(*at, " ");
    if (n == 0)
        return false;
    struct str s = str_n(*at, n);
    *at += n;
    *w = (struct word){.optional = s.p[0] == '?', .wide = s.p[0] == '+'};
    if (w->optional || w->wide)
        s = str_n(s.p + 1, s.len - 1);
    ssize_t eq = str_find(s, '=');
    struct str key = eq < 0 ? s : str_n(s.p, (size_t)eq);
    if (eq >= 0)
        w->heading = str_n(s.p + eq + 1, s.len - (size_t)eq - 1);
    snprintf(w->key, sizeof w->key, STR_FMT, STR_ARG(key));
    return true;
}

static bool
is_known(const char *words, const struct columns *c, const char *key)
{
    struct word w;
    while (next_word(&words, &w))
        if (strcmp(w.key, key) == 0)
            return true;
    for (size_t i = 0; i < c->count; i++)
        if (strcmp(c->at[i].key, key) == 0)
            return true;
    return false;
}

static void
add_unknown(struct columns *c, const char *words, json_t *rows)
{
    size_t most = c->count + UNKNOWN_MAX;
    for (size_t i = 0; i < json_array_size(rows); i++) {
        json_t *row = json_array_get(rows, i);
        for (void *k = json_object_iter(row); k != NULL; k = json_object_iter_next(row, k)) {
            const char *key = json_object_iter_key(k);
            if (c->count < most && !is_known(words, c, key) &&
                says_something(json_object_iter_value(k)))
                add_column(c, str_of(key), STR_NULL);
        }
    }
}

/* Known ones first; one that no row has at all is left out: this chmuxd does not know it. */
static void
choose_columns(struct columns *c, const char *words, json_t *rows, bool wide)
{
    const char *at = words;
    struct word w;
    json_t *first = json_array_get(rows, 0);
    while (next_word(&at, &w)) {
        bool there = column_says_something(rows, w.key);
        if (!there && (w.optional || member_of(first, w.key) == NULL))
            continue;
        if (!w.wide || wide)
            add_column(c, str_of(w.key), w.heading);
    }
    add_unknown(c, words, rows);
}

static bool
is_numeric(json_t *rows, const char *key)
{
    for (size_t i = 0; i < json_array_size(rows); i++) {
        json_t *v = member_of(json_array_get(rows, i), key);
        if (v != NULL && !json_is_null(v))
            return json_is_number(v) && strcmp(key, "time_ms") != 0;
    }
    return false;
}

static void
add_headings(struct table *t, const struct columns *c, json_t *rows)
{
    struct buf text;
    buf_init(&text, 1 << 20);
    for (size_t i = 0; i < c->count; i++) {
        const struct column *col = &c->at[i];
        text.len = 0;
        if (col->heading.len > 0)
            buf_str(&text, col->heading);
        else
            put_name(&text, col->key);
        for (size_t k = 0; k < text.len; k++)
            if (text.p[k] >= 'a' && text.p[k] <= 'z')
                text.p[k] = (char)(text.p[k] - 'a' + 'A');
        table_column(t, str_n(text.p, text.len), is_numeric(rows, col->key));
    }
    buf_fini(&text);
}

void
show_rows(struct buf *out, json_t *rows, const char *columns, bool wide, size_t most)
{
    struct columns c = {.count = 0};
    struct table t;
    struct buf text;
    choose_columns(&c, columns, rows, wide);
    table_init(&t);
    buf_init(&text, 1 << 20);
    if (c.count > 0)
        add_headings(&t, &c, rows);
    for (size_t i = 0; c.count > 0 && i < size_min(most, json_array_size(rows)); i++) {
        json_t *row = json_array_get(rows, i);
        for (size_t k = 0; k < c.count; k++) {
            text.len = 0;
            show_value(&text, c.at[k].key, member_of(row, c.at[k].key));
            table_cell(&t, str_n(text.p, text.len));
        }
    }
    if (c.count > 0)
        table_print(&t, out);
    out->failed |= text.failed;
    table_fini(&t);
    buf_fini(&text);
    columns_fini(&c);
}

/* ---- answers ---- */

void
show_list(struct buf *out, const char *what, json_t *root, bool wide)
{
    const struct view *v = NULL;
    for (size_t i = 0; i < COUNT_OF(views) && v == NULL; i++)
        if (strcmp(views[i].what, what) == 0)
            v = &views[i];
    json_t *rows = v == NULL ? NULL : json_object_get(root, v->list);
    size_t before = out->len;
    show_fields(out, "", root, "shown,truncated");
    if (v == NULL)
        return;
    if (json_array_size(rows) == 0) {
        buf_addf(out, "no %s\n", v->list);
        return;
    }
    if (out->len > before)
        buf_str(out, STR("\n"));
    show_rows(out, rows, v->columns, wide, SIZE_MAX);
    if (json_is_true(json_object_get(root, "truncated")))
        buf_addf(
            out, "...and more: %zu are shown, --limit allows up to 10000\n", json_array_size(rows));
}

static void
put_duration_cell(struct table *t, double ms)
{
    char text[TEXT_FIGURE_MAX] = "-";
    if (ms >= 0)
        text_duration(ms, text);
    table_cell(t, str_of(text));
}

static void
show_latency(struct buf *out, json_t *latency)
{
    static const char *const headings[] = {"LATENCY", "COUNT", "MEAN", "P50", "P95", "P99"};
    struct table t;
    struct buf name;
    table_init(&t);
    buf_init(&name, 1 << 16);
    for (size_t i = 0; i < COUNT_OF(headings); i++)
        table_column(&t, str_of(headings[i]), i > 0);
    for (void *k = json_object_iter(latency); k != NULL; k = json_object_iter_next(latency, k)) {
        struct latency l;
        char count[TEXT_FIGURE_MAX];
        latency_read(&l, latency, NULL, json_object_iter_key(k));
        if (l.buckets == 0)
            continue;
        name.len = 0;
        put_name(&name, json_object_iter_key(k));
        table_cell(&t, str_n(name.p, name.len));
        snprintf(count, sizeof count, "%.0f", l.total);
        table_cell(&t, str_of(count));
        put_duration_cell(&t, latency_mean(&l));
        put_duration_cell(&t, latency_quantile(&l, 0.5));
        put_duration_cell(&t, latency_quantile(&l, 0.95));
        put_duration_cell(&t, latency_quantile(&l, 0.99));
    }
    buf_str(out, STR("\n"));
    table_print(&t, out);
    buf_fini(&name);
    table_fini(&t);
}

static void
put_key(struct buf *out, json_t *root, const char *before, const char *key)
{
    buf_str(out, str_of(before));
    show_value(out, key, json_object_get(root, key));
}

/* What stands in a list, in lines of its own. */
static void
show_texts(struct buf *out, json_t *texts)
{
    for (size_t i = 0; i < json_array_size(texts); i++) {
        show_value(out, "", json_array_get(texts, i));
        buf_str(out, STR("\n"));
    }
}

/* Each list under its name: objects as a table, all else in lines. */
static void
show_lists(struct buf *out, json_t *root)
{
    for (void *k = json_object_iter(root); k != NULL; k = json_object_iter_next(root, k)) {
        json_t *value = json_object_iter_value(k);
        json_t *first = json_array_get(value, 0);
        bool is_upstreams = strcmp(json_object_iter_key(k), "upstreams") == 0;
        /* of a single upstream the sums above say the same */
        if (first == NULL || (is_upstreams && json_array_size(value) == 1))
            continue;
        const char *columns = json_object_get(first, "before") != NULL ? changed_columns
                              : is_upstreams                           ? upstream_columns
                                                                       : "";
        buf_str(out, STR("\n"));
        put_name(out, json_object_iter_key(k));
        buf_str(out, STR(":\n"));
        if (json_is_object(first))
            show_rows(out, value, columns, false, SIZE_MAX);
        else
            show_texts(out, value);
    }
}

void
show_status(struct buf *out, json_t *root)
{
    static const char head[] = "version,state,pid,uid,uptime_ms,log_level";
    put_key(out, root, "chmuxd ", "version");
    put_key(out, root, " is ", "state");
    put_key(out, root, ", pid ", "pid");
    put_key(out, root, ", uid ", "uid");
    put_key(out, root, ", up ", "uptime_ms");
    put_key(out, root, ", log level ", "log_level");
    buf_str(out, STR("\n\n"));
    show_fields(out, "", root, head);
    for (void *k = json_object_iter(root); k != NULL; k = json_object_iter_next(root, k)) {
        json_t *value = json_object_iter_value(k);
        if (json_is_object(value) && strcmp(json_object_iter_key(k), "latency") != 0)
            show_fields(out, json_object_iter_key(k), value, "");
    }
    if (json_is_object(json_object_get(root, "latency")))
        show_latency(out, json_object_get(root, "latency"));
    show_lists(out, root);
}

void
show_done(struct buf *out, json_t *root)
{
    json_t *message = json_object_get(root, "message");
    if (json_is_string(message)) {
        show_value(out, "message", message);
        buf_str(out, STR("\n"));
    }
    show_fields(out, "", root, "ok,message");
    show_lists(out, root);
}

void
show_upstreams(struct buf *out, json_t *root)
{
    show_rows(out, json_object_get(root, "upstreams"), upstream_columns, false, SIZE_MAX);
}

void
show_running(struct buf *out, json_t *root, size_t most)
{
    show_rows(out, json_object_get(root, "exchanges"), running_columns, false, most);
}
