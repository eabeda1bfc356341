#include "config/config_load.h"

#include <ini.h>

#include "base/check.h"
#include "config/config_value.h"

/*
 * inih splits "key = value ; comment" and we do the rest, line by line, in the reader it pulls its
 * lines from. Left to itself it would cut long lines and section names silently, take an indented
 * key for the continuation of the value before it, drop what stands behind a "]", say nothing about
 * empty sections, and report only the first bad line.
 */

/* A value at its longest with key and comment. */
#define LINE_MAX_BYTES (2 * CONFIG_VALUE_MAX)
#define FILE_MAX_BYTES ((size_t)1 << 20)

/* Debian's inih lets the line buffer grow at run time (200 bytes by default); others fix it when
 * they are built and do not have the variable. The reader obeys whatever size it is told. */
extern int ini_max_line __attribute__((weak));

struct ini_reader {
    struct config_loader *l;
    struct str rest;
    struct config_place place;
    struct config_target target;
    char section[CONFIG_TARGET_NAME_MAX]; /* for messages; "" before the first one */
    bool skip;     /* the section is unknown, said once: its keys are passed over */
    bool expected; /* the last line must come back through on_pair() */
};

/* line begins with '['. */
static void
open_section(struct ini_reader *r, struct str line)
{
    char q[CONFIG_QUOTE_MAX];
    ssize_t end = str_find(line, ']');
    r->skip = true;
    snprintf(r->section, sizeof(r->section), "?");
    if (end < 0) {
        config_error(r->l, &r->place, NULL, NULL, "%s has no ]", config_quote(line, q));
        return;
    }
    struct str head = str_trim(str_n(line.p + 1, (size_t)end - 1));
    struct str tail = str_trim(str_n(line.p + end + 1, line.len - (size_t)end - 1));
    if (tail.len > 0 && tail.p[0] != ';' && tail.p[0] != '#') {
        config_error(r->l, &r->place, NULL, NULL,
            "%s stands behind a section; write it on a line of its own", config_quote(tail, q));
        return;
    }
    size_t word = 0;
    while (word < head.len && head.p[word] != ' ' && head.p[word] != '\t')
        word++;
    struct str id = str_n(head.p, word);
    struct str name = str_trim(str_n(head.p + word, head.len - word));
    const struct config_section *sec = config_section_find(id);
    r->target = (struct config_target){.sec = sec};
    if (sec == NULL)
        config_unknown_section(r->l, &r->place, id);
    else if (!config_section_repeats(sec) && name.len > 0)
        config_error(
            r->l, &r->place, sec->id, NULL, "this section takes no name; write [%s]", sec->id);
    else if (!config_section_repeats(sec))
        r->skip = false;
    else if (name.len == 0 && sec->first[0] == '\0')
        config_error(r->l, &r->place, sec->id, NULL,
            "this section needs a name; write [%s NAME], with any NAME", sec->id);
    else
        r->skip = !config_name_target(r->l, &r->place, sec, name, &r->target);
    if (!r->skip)
        config_target_name(r->l->c, r->target, r->section);
}

static bool
is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* The next line without line end and without blanks around it; false at the end of the text. */
static bool
take_line(struct ini_reader *r, struct str *line)
{
    if (r->rest.len == 0)
        return false;
    ssize_t lf = str_find(r->rest, '\n');
    size_t len = lf < 0 ? r->rest.len : (size_t)lf;
    size_t skip = lf < 0 ? len : len + 1;
    *line = str_n(r->rest.p, len);
    r->rest.p += skip;
    r->rest.len -= skip;
    if (r->place.line++ == 0 && line->len >= 3 && memcmp(line->p, "\xef\xbb\xbf", 3) == 0)
        *line = str_n(line->p + 3, line->len - 3);
    while (line->len > 0 && is_blank(line->p[0]))
        *line = str_n(line->p + 1, line->len - 1);
    while (line->len > 0 && is_blank(line->p[line->len - 1]))
        line->len--;
    return true;
}

static bool
is_clean(struct ini_reader *r, struct str line)
{
    for (size_t i = 0; i < line.len; i++) {
        unsigned char c = (unsigned char)line.p[i];
        if (c >= 0x20 ? c != 0x7f : c == '\t')
            continue;
        config_error(r->l, &r->place, NULL, NULL,
            "byte 0x%02x in the line; text without control characters is allowed", c);
        return false;
    }
    return true;
}

static void
report_no_pair(struct ini_reader *r)
{
    if (r->expected)
        config_error(r->l, &r->place, r->section[0] == '\0' ? NULL : r->section, NULL,
            "the line is neither key = value nor [section] nor a comment (; or #)");
    r->expected = false;
}

/* ini_reader of inih: one line into out, or NULL at the end. What is not a pair is dealt with here
 * and becomes an empty line, so that inih is asked only what it is good at. */
static char *
read_line(char *out, int num, void *arg)
{
    struct ini_reader *r = arg;
    struct str line;
    report_no_pair(r); /* the line before this one */
    if (r->l->nomem || !take_line(r, &line))
        return NULL;
    CHECK(num >= 2);
    memcpy(out, "\n", 2);
    if (line.len == 0 || line.p[0] == ';' || line.p[0] == '#' || !is_clean(r, line))
        return out;
    if (line.p[0] == '[') {
        open_section(r, line);
        return out;
    }
    if (line.len >= (size_t)num) {
        config_error(r->l, &r->place, NULL, NULL, "the line has %zu bytes; %d are allowed",
            line.len, num - 1);
        return out;
    }
    memcpy(out, line.p, line.len);
    out[line.len] = '\0';
    r->expected = true;
    return out;
}

/* ini_handler of inih. Builds with INI_HANDLER_LINENO pass a fifth argument, which is not needed:
 * the reader counts. Nonzero: go on. */
static int
on_pair(void *arg, const char *section, const char *name, const char *value)
{
    struct ini_reader *r = arg;
    (void)section; /* the reader knows it, and not cut to 49 bytes */
    r->expected = false;
    if (r->skip)
        return 1;
    if (r->section[0] == '\0') {
        char q[CONFIG_QUOTE_MAX];
        config_error(r->l, &r->place, NULL, NULL, "%s stands before the first [section]",
            config_quote(str_of(name), q));
        return 1;
    }
    const struct config_opt *opt = config_opt_find(r->target.sec, str_of(name));
    if (opt != NULL)
        config_assign(r->l, &r->place, r->target, opt, str_of(name), str_of(value));
    else
        config_unknown_key(r->l, &r->place, r->target, str_of(name));
    return 1;
}

void
config_read_file(struct config_loader *l)
{
    struct ini_reader r = {
        .l = l,
        .rest = l->src->file_text,
        .place = {.kind = CONFIG_FILE},
    };
    if (r.rest.len > FILE_MAX_BYTES) {
        config_error(l, &r.place, NULL, NULL,
            "the file has %zu bytes; at most %zu are allowed in a configuration file", r.rest.len,
            FILE_MAX_BYTES);
        return;
    }
    if (&ini_max_line != NULL)
        ini_max_line = LINE_MAX_BYTES;
    /* Its result is the first line that is not a pair, which report_no_pair() has told already; -2
     * comes from builds that take the line buffer from the heap. */
    if (ini_parse_stream(read_line, &r, on_pair, &r) == -2)
        l->nomem = true;
}
