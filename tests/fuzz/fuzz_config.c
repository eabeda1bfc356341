/*
 * fuzz_config: config_load() over hostile text. The input is the file; behind a byte 0x01 stand
 * environment entries, one per line, and behind another one "path=value" lines for --set.
 *
 * Promises checked: a refusal says why, in lines without control characters; what was accepted is
 * printed as a file that loads again, to the same values.
 */
#include "fuzz.h"

#include "base/check.h"
#include "config/config.h"

#define LINES_MAX  40
#define TEXT_BYTES ((size_t)8 << 20)

/* Ends the part at *data at the separator and moves behind it. */
static struct str
take_part(struct str *data)
{
    ssize_t at = str_find(*data, '\x01');
    struct str part = str_n(data->p, at < 0 ? data->len : (size_t)at);
    size_t skip = at < 0 ? data->len : part.len + 1;
    *data = str_n(data->p + skip, data->len - skip);
    return part;
}

/* Terminated copies of the lines, in one allocation each; returns how many. */
static size_t
split_lines(struct str part, char *lines[LINES_MAX])
{
    size_t count = 0;
    while (part.len > 0 && count < LINES_MAX) {
        ssize_t lf = str_find(part, '\n');
        size_t len = lf < 0 ? part.len : (size_t)lf;
        lines[count] = strndup(part.p, len);
        CHECK(lines[count] != NULL);
        count++;
        size_t skip = lf < 0 ? len : len + 1;
        part = str_n(part.p + skip, part.len - skip);
    }
    return count;
}

static struct buf
print(const struct config *c)
{
    struct buf out;
    buf_init(&out, TEXT_BYTES);
    config_print(c, &out);
    CHECK(buf_ok(&out));
    return out;
}

/* Leaves the values and drops the comments, which tell of another origin the second time. */
static void
drop_comments(struct buf *b)
{
    size_t w = 0;
    bool comment = false;
    for (size_t i = 0; i < b->len; i++) {
        if (b->p[i] == '\n')
            comment = false;
        else if (b->p[i] == ';' && i > 0 && b->p[i - 1] == ' ')
            comment = true;
        if (!comment && b->p[i] != ' ')
            b->p[w++] = b->p[i];
    }
    b->len = w;
}

static void
check_errors(const struct buf *errors, bool refused)
{
    if (refused)
        CHECK(errors->len > 0 && errors->p[errors->len - 1] == '\n');
    for (size_t i = 0; i < errors->len; i++) {
        unsigned char c = (unsigned char)errors->p[i];
        CHECK(c == '\n' || (c >= 0x20 && c != 0x7f));
    }
}

static void
check_round_trip(const struct config *c)
{
    struct buf errors, first = print(c);
    buf_init(&errors, TEXT_BYTES);
    const struct config_source src = {
        .file_name = "printed", .file_text = str_n(first.p, first.len)};
    struct config *again = config_load(&src, &errors);
    CHECK(again != NULL);
    struct buf second = print(again);
    drop_comments(&first);
    drop_comments(&second);
    CHECK(str_eq(str_n(first.p, first.len), str_n(second.p, second.len)));
    config_free(&again);
    buf_fini(&errors);
    buf_fini(&second);
    buf_fini(&first);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str rest = str_n((const char *)data, size);
    struct config_source src = {.file_name = "fuzz", .file_text = take_part(&rest)};
    char *variables[LINES_MAX], *settings[LINES_MAX];
    size_t variable_count = split_lines(take_part(&rest), variables);
    size_t setting_count = split_lines(take_part(&rest), settings);
    const char *environ_list[LINES_MAX + 1] = {NULL};
    struct config_flag flags[LINES_MAX];
    struct buf errors;
    for (size_t i = 0; i < variable_count; i++)
        environ_list[i] = variables[i];
    for (size_t i = 0; i < setting_count; i++) {
        char *value = strchr(settings[i], '=');
        if (value != NULL)
            *value++ = '\0';
        flags[i] = (struct config_flag){"--set", settings[i], value == NULL ? "" : value};
    }
    src.environ_list = environ_list;
    src.flags = flags;
    src.flag_count = setting_count;
    buf_init(&errors, TEXT_BYTES);
    struct config *c = config_load(&src, &errors);
    check_errors(&errors, c == NULL);
    if (c != NULL)
        check_round_trip(c);
    config_free(&c);
    buf_fini(&errors);
    for (size_t i = 0; i < variable_count; i++)
        free(variables[i]);
    for (size_t i = 0; i < setting_count; i++)
        free(settings[i]);
    return 0;
}
