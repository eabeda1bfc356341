/*
 * Prints chmux.conf(5): the template named on the command line, with the line @OPTIONS@ replaced by
 * every row of options.def. Run by the build, so that the page cannot lag behind the table.
 */
#include <stdio.h>
#include <stdlib.h>

#include "config/config_table.h"
#include "config/config_value.h"

#define COLUMNS 78 /* mandoc wants lines of the source short */
#define MARK    "@OPTIONS@"

/* One word at the end of the line, or on the next. A sentence begins a line. */
static void
put_word(struct str word, size_t *column)
{
    bool first = *column == 0;
    if (!first && *column + 1 + word.len > COLUMNS) {
        putchar('\n');
        *column = 0;
        first = true;
    }
    if (!first)
        putchar(' ');
    if (first && (word.p[0] == '.' || word.p[0] == '\''))
        fputs("\\&", stdout); /* would be a macro */
    for (size_t i = 0; i < word.len; i++) {
        if (word.p[i] == '\\')
            fputs("\\e", stdout);
        else
            putchar(word.p[i]);
    }
    *column += word.len + (first ? 0 : 1);
    if (word.p[word.len - 1] == '.') {
        putchar('\n');
        *column = 0;
    }
}

static void
put_text(struct str text, size_t *column)
{
    while (text.len > 0) {
        size_t len = 0;
        while (len < text.len && text.p[len] != ' ')
            len++;
        if (len > 0)
            put_word(str_n(text.p, len), column);
        len += len < text.len;
        text = str_n(text.p + len, text.len - len);
    }
}

static void
put_option(const struct config_opt *opt)
{
    char allowed[CONFIG_WHY_MAX], line[1024];
    size_t column = 0;
    config_value_allowed(opt, allowed);
    if (opt->type == CONFIG_BOOL)
        snprintf(allowed, sizeof(allowed), "yes or no");
    printf(".It Cm %s\n", opt->key);
    snprintf(line, sizeof(line), "%s.", opt->text);
    put_text(str_of(line), &column);
    snprintf(line, sizeof(line), "(%s%sdefault: %s%s)", allowed, allowed[0] == '\0' ? "" : "; ",
        opt->def[0] == '\0' ? "none" : opt->def, opt->reloadable ? "; reload" : "");
    put_text(str_of(line), &column);
    if (column > 0)
        putchar('\n');
}

static void
put_options(void)
{
    for (size_t s = 0; s < CONFIG_SECTION_COUNT; s++) {
        const struct config_section *sec = &config_sections[s];
        size_t count;
        const struct config_opt *opt = sec->opts(&count);
        printf(".Ss [%s]\\&\n%s.\n.Bl -tag -width Ds\n", sec->name, sec->text);
        for (size_t i = 0; i < count; i++)
            put_option(&opt[i]);
        puts(".El");
    }
}

int
main(int argc, char **argv)
{
    FILE *f = argc == 2 ? fopen(argv[1], "r") : NULL;
    if (f == NULL) {
        fprintf(stderr, "usage: %s TEMPLATE\n", argv[0]);
        return 2;
    }
    char line[256];
    while (fgets(line, sizeof(line), f) != NULL) {
        if (strcmp(line, MARK "\n") == 0)
            put_options();
        else
            fputs(line, stdout);
    }
    bool bad = ferror(f) != 0;
    fclose(f);
    return bad || fflush(stdout) != 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
