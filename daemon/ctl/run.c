#include "ctl/run.h"

#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "ctl/out.h"
#include "ctl/reply.h"
#include "ctl/show.h"
#include "ctl/term.h"
#include "ctl/text.h"
#include "ctl/top.h"
#include "reload/settings.h"

#define WAIT_STEP_US  100000     /* between two looks of `wait` */
#define ERRORS_MAX    (1u << 20) /* of `check` */
#define READY_WHY_MAX 200

static struct ask
asker(const struct args *a)
{
    return (struct ask){.address = a->admin, .timeout_us = a->timeout_us, .wake = {-1, -1}};
}

/* What was refused, on stderr. Where there is a list of all that is wrong, its lines say it, and
 * the message may be one of them. */
static void
tell_refusal(const struct args *a, const struct answer *an, json_t *root)
{
    const json_t *errors = json_object_get(root, "errors");
    struct str message = reply_string(root, "message"), hint = reply_string(root, "allowed_by");
    struct buf text;
    if (json_array_size(errors) == 0) {
        buf_init(&text, OUT_MAX);
        if (message.len == 0)
            buf_addf(&text, "%s: ", a->admin);
        reply_refusal(an, root, &text);
        out_complain(str_n(text.p, text.len));
        buf_fini(&text);
        return;
    }
    for (size_t i = 0; i < json_array_size(errors); i++) {
        const json_t *e = json_array_get(errors, i);
        struct str line = str_n(json_string_value(e), json_string_length(e));
        if (i == 0 && message.len > 0 && !str_eq(message, line))
            out_complain(message);
        out_complain(line);
    }
    if (hint.len > 0)
        out_complain(hint);
}

/* ---- requests ---- */

static void
put_target(const struct args *a, struct buf *out)
{
    buf_str(out, STR(REPLY_API));
    if (a->command == CMD_SHOW)
        buf_str(out, str_of(a->argument));
    else
        buf_str(out, str_of(args_name(a->command)));
    if (a->command == CMD_KILL)
        buf_addf(out, "?id=%s", a->argument);
    else if (a->command == CMD_LOG_LEVEL)
        buf_addf(out, "?level=%s", a->argument);
    else if (a->upstream != NULL)
        buf_addf(out, "?upstream=%s", a->upstream);
    else if ((a->options & OPT_NOW) != 0)
        buf_str(out, STR("?now=1"));
    else if ((a->options & OPT_LIMIT) != 0)
        buf_addf(out, "?limit=%" PRIu64, a->limit);
    buf_add(out, "", 1);
}

/* What goes to stdout. */
static void
put_answer(const struct args *a, const struct answer *an, json_t *root, struct buf *out)
{
    if ((a->options & OPT_JSON) != 0) {
        struct str text = str_n(an->body.p, an->body.len);
        text_clean_json(out, str_trim(text));
        if (text.len == 0 || text.p[text.len - 1] != '\n')
            buf_str(out, STR("\n"));
    } else if (an->status != 200) {
        return;
    } else if (a->command == CMD_STATUS) {
        show_status(out, root);
    } else if (a->command == CMD_SHOW) {
        show_list(out, a->argument, root, (a->options & OPT_WIDE) != 0);
    } else {
        show_done(out, root);
    }
}

/* Asks once; what is to be printed is appended to out. */
static enum run_exit
ask_once(const struct args *a, struct buf *out)
{
    char why[ASK_WHY_MAX];
    struct answer an;
    struct buf target;
    struct ask to = asker(a);
    bool get = a->command == CMD_STATUS || a->command == CMD_SHOW;
    buf_init(&target, 4096);
    put_target(a, &target);
    enum ask_result r = ASK_FAILED;
    snprintf(why, sizeof why, "out of memory");
    if (buf_ok(&target))
        r = ask(&to, get ? HTTP_M_GET : HTTP_M_POST, target.p, &an, why);
    buf_fini(&target);
    if (r != ASK_OK) {
        out_complain(str_of(why));
        return RUN_FAILED;
    }
    json_t *root = reply_parse(&an, why);
    bool ok = root != NULL && an.status == 200;
    if (root != NULL)
        put_answer(a, &an, root, out);
    if (an.status != 200) {
        tell_refusal(a, &an, root);
    } else if (root == NULL) {
        char text[2 * ASK_WHY_MAX];
        snprintf(text, sizeof text, "%s: %s", a->admin, why);
        out_complain(str_of(text));
    }
    json_decref(root);
    answer_fini(&an);
    return ok ? RUN_OK : RUN_FAILED;
}

static void
sleep_us(int64_t us)
{
    struct timespec ts = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};
    while (nanosleep(&ts, &ts) != 0 && errno == EINTR)
        continue;
}

/* On a terminal each picture replaces the one before; it is drawn over it, so that nothing
 * flickers, and cut to fit, so that nothing scrolls. */
static void
put_over(struct str picture, struct buf *out)
{
    size_t columns = 0, lines = 0;
    term_size(&columns, &lines);
    buf_str(out, STR("\x1b[H"));
    for (ssize_t n; lines > 1 && (n = str_find(picture, '\n')) >= 0; lines--) {
        text_clip(out, str_n(picture.p, (size_t)n), columns);
        buf_str(out, STR("\x1b[K\n"));
        picture = str_n(picture.p + n + 1, picture.len - (size_t)n - 1);
    }
    buf_str(out, STR("\x1b[J"));
}

static enum run_exit
watch(const struct args *a)
{
    struct buf picture, out;
    enum run_exit code = RUN_OK;
    bool over = isatty(1) && (a->options & OPT_JSON) == 0;
    buf_init(&picture, OUT_MAX);
    buf_init(&out, OUT_MAX);
    for (bool first = true; code == RUN_OK; first = false) {
        picture.len = 0;
        if (!first) {
            sleep_us(a->watch_us);
            if (!over && (a->options & OPT_JSON) == 0)
                buf_str(&out, STR("\n"));
        } else if (over) {
            buf_str(&out, STR("\x1b[2J"));
        }
        code = ask_once(a, &picture);
        struct str text = str_n(picture.p, picture.len);
        if (over && code == RUN_OK)
            put_over(text, &out);
        else
            buf_str(&out, text);
        out.failed |= picture.failed;
        if (!out_print(&out))
            code = RUN_FAILED;
    }
    buf_fini(&picture);
    buf_fini(&out);
    return code;
}

static enum run_exit
run_once(const struct args *a)
{
    struct buf out;
    buf_init(&out, OUT_MAX);
    enum run_exit code = ask_once(a, &out);
    if (!out_print(&out))
        code = RUN_FAILED;
    buf_fini(&out);
    return code;
}

/* ---- wait ---- */

/* One look. false: why says what it waits for. */
static bool
is_ready(const struct args *a, int64_t left_us, char why[ASK_WHY_MAX])
{
    struct ask to = asker(a);
    struct answer an;
    to.timeout_us = left_us;
    char target[128];
    snprintf(target, sizeof target, "/ready%s%s%s",
        (a->options & OPT_UPSTREAM) != 0 ? "?upstream" : "", a->upstream != NULL ? "=" : "",
        a->upstream != NULL ? a->upstream : "");
    if (ask(&to, HTTP_M_GET, target, &an, why) != ASK_OK)
        return false;
    bool ready = an.status == 200;
    if (!ready) {
        struct str text = str_n(an.body.p, size_min(an.body.len, READY_WHY_MAX));
        while (text.len > 0 && text.p[text.len - 1] == '\n')
            text.len--;
        snprintf(
            why, ASK_WHY_MAX, "%s: not ready: %d " STR_FMT, a->admin, an.status, STR_ARG(text));
    }
    answer_fini(&an);
    return ready;
}

static enum run_exit
run_wait(const struct args *a)
{
    struct buf out;
    char why[ASK_WHY_MAX] = "", limit[TEXT_FIGURE_MAX];
    struct mono start = mono_now(), deadline = mono_add_us(start, a->timeout_us);
    bool ready = false;
    for (;;) {
        int64_t left_us = mono_diff_us(deadline, mono_now());
        ready = left_us > 0 && is_ready(a, left_us, why);
        left_us = mono_diff_us(deadline, mono_now());
        if (ready || left_us <= 0)
            break;
        sleep_us(left_us < WAIT_STEP_US ? left_us : WAIT_STEP_US);
    }
    double ms = (double)mono_diff_us(mono_now(), start) / 1000;
    buf_init(&out, 4096);
    if ((a->options & OPT_JSON) != 0)
        buf_addf(&out, "{\"ready\":%s,\"waited_ms\":%.3f}\n", ready ? "true" : "false", ms);
    else if (ready)
        buf_str(&out, STR("ready\n"));
    if (!ready) {
        char text[2 * ASK_WHY_MAX];
        text_duration((double)a->timeout_us / 1000, limit);
        snprintf(text, sizeof text, "not ready after %s; the last look: %s", limit, why);
        out_complain(str_of(text));
    }
    bool printed = out_print(&out);
    buf_fini(&out);
    return ready && printed ? RUN_OK : RUN_FAILED;
}

/* ---- check ---- */

static void
put_check_json(struct buf *out, bool ok, struct str lines)
{
    json_t *errors = json_array(), *warnings = json_array();
    json_t *root = json_pack("{s:b, s:o, s:o}", "ok", ok, "errors", errors, "warnings", warnings);
    struct str mark = STR("warning: ");
    while (lines.len > 0) {
        ssize_t end = str_find(lines, '\n');
        struct str line = str_n(lines.p, end < 0 ? lines.len : (size_t)end);
        json_t *list = str_starts_nocase(line, mark) ? warnings : errors;
        json_array_append_new(list, json_stringn(line.p, line.len));
        size_t used = size_min(line.len + 1, lines.len);
        lines = str_n(lines.p + used, lines.len - used);
    }
    char *text = json_dumps(root, JSON_COMPACT);
    if (text == NULL)
        out->failed = true;
    else
        buf_addf(out, "%s\n", text);
    free(text);
    json_decref(root);
}

static enum run_exit
run_check(const struct args *a)
{
    extern char **environ;
    struct buf errors, out;
    struct settings from = {.file = strcmp(a->argument, "-") == 0 ? "/dev/stdin" : a->argument,
        .environ_list = (const char *const *)environ};
    buf_init(&errors, ERRORS_MAX);
    buf_init(&out, OUT_MAX);
    struct config *cfg = settings_load(&from, NULL, NULL, &errors);
    enum run_exit code = cfg != NULL ? RUN_OK : RUN_USAGE;
    struct str lines = str_n(errors.p, errors.len);
    if ((a->options & OPT_JSON) != 0) {
        put_check_json(&out, cfg != NULL, lines);
    } else {
        fprintf(stderr, STR_FMT, STR_ARG(lines));
        if (cfg != NULL)
            buf_addf(&out, "%s: the configuration is valid\n", a->argument);
    }
    if (!out_print(&out))
        code = RUN_FAILED;
    config_free(&cfg);
    buf_fini(&out);
    buf_fini(&errors);
    return code;
}

enum run_exit
run(const struct args *a)
{
    switch (a->command) {
    case CMD_TOP: return top(a);
    case CMD_WAIT: return run_wait(a);
    case CMD_CHECK: return run_check(a);
    case CMD_STATUS:
    case CMD_SHOW: return (a->options & OPT_WATCH) != 0 ? watch(a) : run_once(a);
    case CMD_RELOAD:
    case CMD_PAUSE:
    case CMD_RESUME:
    case CMD_RECONNECT:
    case CMD_KILL:
    case CMD_LOG_LEVEL:
    case CMD_DRAIN:
    case CMD_SHUTDOWN: return run_once(a);
    case CMD_HELP:
    case CMD_COUNT: CHECK(a->command < CMD_HELP); /* args_parse() gives none of these */
    }
    return RUN_USAGE;
}
