#include "ctl/out.h"

#include "ctl/text.h"

bool
out_print(struct buf *b)
{
    bool ok = buf_ok(b);
    if (!ok)
        fprintf(stderr, "chmux: out of memory\n");
    else if ((b->len > 0 && fwrite(b->p, 1, b->len, stdout) != b->len) || fflush(stdout) != 0) {
        fprintf(stderr, "chmux: cannot write: %s\n", strerror(errno));
        ok = false;
    }
    b->len = 0;
    b->failed = false;
    return ok;
}

/* A line for stderr, made harmless. */
void
out_complain(struct str text)
{
    struct buf b;
    buf_init(&b, OUT_MAX);
    buf_str(&b, STR("chmux: "));
    text_clean(&b, str_trim(text));
    fprintf(stderr, STR_FMT "\n", STR_ARG(str_n(b.p, b.len)));
    buf_fini(&b);
}
