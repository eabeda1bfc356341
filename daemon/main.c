/*
 * main: options, boot, signals, exit.
 *
 * Exit codes: 0 clean; 1 could not start, or not print; 2 wrong usage or configuration; 3 the drain
 * was cut short.
 */
#include <getopt.h>
#include <signal.h>

#include "admin/admin.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metric.h"
#include "base/stdfd.h"
#include "config/config.h"
#include "proxy/proxy.h"
#include "reload/reload.h"

enum { EXIT_OK = 0, EXIT_START = 1, EXIT_USAGE = 2, EXIT_CUT = 3 };

#define FLAGS_MAX   256
#define BLOCKS_KEPT 16 /* free relay buffers kept for the next transfer */

#define REPORT_US      5000000  /* status lines to the service manager; and while we drain, */
#define DRAIN_GRANT_US 15000000 /* so much more time each, until drain_timeout ends it */

/* What the service manager gave us. */
struct inherited {
    struct notify_env notify;
    struct passed sockets;
};

struct daemon {
    struct config *cfg; /* in force; reload replaces it */
    const struct settings *settings;
    struct inherited *inherited;
    struct loop *loop;
    struct resolver *resolver;
    struct upools pools;
    struct proxy *proxy;
    struct admin *admin;
    struct reload *reload;
    struct notify notify;
    struct timer drain_timer, report_timer;
    bool thread_left;  /* it still reads what main() would free */
    bool told_to_stop; /* the drain has a limit; told again, what runs is cut */
    int exit_code;
};

struct command_line {
    struct config_flag flags[FLAGS_MAX];
    size_t flag_count;
    char *owned[FLAGS_MAX];
    size_t owned_count;
    const char *file;
    bool check, print;
};

static const char usage_text[] =
    "usage: chmuxd [--config FILE] [--listen ADDR]... [--upstream URL[,URL]] [--pool-size N]\n"
    "              [--admin ADDR] [--set SECTION.KEY=VALUE]... [--check | --print-config]\n"
    "\n"
    "A local proxy that shares a capped pool of connections to ClickHouse.\n"
    "\n"
    "  --config FILE          read options from FILE (INI)\n"
    "  --listen ADDR          HOST:PORT, [V6]:PORT, unix:/path or unix:@name; may be repeated;\n"
    "                         default 127.0.0.1:8123 and [::1]:8123; port 0 takes a free one\n"
    "  --upstream URL[,URL]   http://HOST:PORT or https://HOST:PORT\n"
    "  --pool-size N          upstream connections at most (default 16)\n"
    "  --admin ADDR[,ADDR]    serve /live, /ready, /metrics and the tool chmux there\n"
    "  --set SECTION.KEY=VALUE  set any option\n"
    "  --check                check the configuration and exit\n"
    "  --print-config         print the configuration in force, and where each value came from\n"
    "  --version, --help\n"
    "\n"
    "Flags beat CHMUX_<SECTION>_<KEY> in the environment, which beats the file.\n"
    "SIGHUP: read the configuration again, and the certificates.\n"
    "SIGTERM or SIGINT: finish what runs, then exit; a second one, or SIGQUIT: exit at once.\n";

static bool
add_flag(struct command_line *cl, const char *flag, const char *path, const char *value)
{
    if (cl->flag_count == FLAGS_MAX) {
        fprintf(stderr, "chmuxd: more than %d options on the command line\n", FLAGS_MAX);
        return false;
    }
    cl->flags[cl->flag_count++] = (struct config_flag){flag, path, value};
    return true;
}

/* Takes a string that lives as long as the command line is in use; NULL: no memory or too many. */
static const char *
keep(struct command_line *cl, char *owned)
{
    if (owned == NULL || cl->owned_count == FLAGS_MAX) {
        free(owned);
        return NULL;
    }
    cl->owned[cl->owned_count++] = owned;
    return owned;
}

static bool
add_set(struct command_line *cl, const char *text)
{
    const char *eq = strchr(text, '=');
    if (eq == NULL || eq == text) {
        fprintf(stderr, "chmuxd: --set %s: want SECTION.KEY=VALUE\n", text);
        return false;
    }
    const char *path = keep(cl, strndup(text, (size_t)(eq - text)));
    return path != NULL && add_flag(cl, "--set", path, eq + 1);
}

static bool
add_listen(struct command_line *cl, const char *address, int n)
{
    char *text = NULL;
    if (asprintf(&text, "listen.flag%d.address", n) < 0)
        return false;
    const char *path = keep(cl, text);
    return path != NULL && add_flag(cl, "--listen", path, address);
}

/* -1: go on; else the exit code. */
static int
parse_command_line(struct command_line *cl, int argc, char **argv)
{
    static const struct option longs[] = {
        {"config", required_argument, NULL, 'c'},
        {"listen", required_argument, NULL, 'l'},
        {"upstream", required_argument, NULL, 'u'},
        {"pool-size", required_argument, NULL, 'p'},
        {"admin", required_argument, NULL, 'a'},
        {"set", required_argument, NULL, 's'},
        {"check", no_argument, NULL, 'C'},
        {"print-config", no_argument, NULL, 'P'},
        {"version", no_argument, NULL, 'V'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int opt, listens = 0;
    bool ok = true;
    while (ok && (opt = getopt_long(argc, argv, "c:h", longs, NULL)) != -1) {
        switch (opt) {
        case 'c': cl->file = optarg; break;
        case 'l': ok = add_listen(cl, optarg, ++listens); break;
        case 'u': ok = add_flag(cl, "--upstream", "upstream.url", optarg); break;
        case 'p': ok = add_flag(cl, "--pool-size", "upstream.pool_size", optarg); break;
        case 'a': ok = add_flag(cl, "--admin", "admin.address", optarg); break;
        case 's': ok = add_set(cl, optarg); break;
        case 'C': cl->check = true; break;
        case 'P': cl->print = true; break;
        case 'V': printf("chmuxd %s\n", CHMUX_VERSION); return EXIT_OK;
        case 'h': fputs(usage_text, stdout); return EXIT_OK;
        default: fputs("Try chmuxd --help.\n", stderr); return EXIT_USAGE;
        }
    }
    if (ok && optind < argc) {
        fprintf(stderr, "chmuxd: unexpected argument: %s\nTry chmuxd --help.\n", argv[optind]);
        ok = false;
    }
    return ok ? -1 : EXIT_USAGE;
}

/* What is wrong, or only a warning, goes to stderr. */
static struct config *
load_config(const struct settings *settings)
{
    struct buf errors;
    buf_init(&errors, 1 << 20);
    struct config *cfg = settings_load(settings, NULL, NULL, &errors);
    fprintf(stderr, "%.*s", (int)errors.len, errors.p);
    buf_fini(&errors);
    return cfg;
}

/* What the options name must be usable too: said for all of it, not only for the first. */
static bool
check_files(const struct config *cfg)
{
    char why[512];
    struct buf errors;
    buf_init(&errors, 1 << 16);
    struct proxy_plan *plan = proxy_plan_new(cfg, &errors);
    bool ok = plan != NULL;
    proxy_plan_free(&plan);
    for (size_t i = 0; i < cfg->upstream_count; i++) {
        struct upool_plan *pool = upool_plan_new(&cfg->upstream[i], why, sizeof why);
        if (pool == NULL)
            buf_addf(&errors, "[upstream %s] %s\n", cfg->upstream_name[i], why);
        ok = ok && pool != NULL;
        upool_plan_free(&pool);
    }
    fprintf(stderr, "%.*s", (int)errors.len, errors.p);
    buf_fini(&errors);
    return ok;
}

static void LOOP_ONLY
report(struct daemon *d)
{
    struct upool_stats st;
    bool draining = proxy_is_draining(d->proxy);
    if (!notify_is_on(&d->notify))
        return;
    upools_stats(&d->pools, &st);
    notify_status(&d->notify,
        "%s: %" PRId64 " clients, %zu of %zu upstream connections busy, %zu requests waiting",
        draining ? "Draining" : "Serving", metric_get(M_CLIENTS), st.active, st.cap,
        st.waiting + proxy_sessions_waiting(d->proxy) + proxy_users_waiting(d->proxy));
    if (draining)
        notify_extend(&d->notify, DRAIN_GRANT_US);
    timer_arm_in(&d->report_timer, REPORT_US);
}

static void
on_report(void *arg)
{
    thr_check_loop();
    report(arg);
}

static void
on_drained(void *arg)
{
    thr_check_loop();
    struct daemon *d = arg;
    loop_stop(d->loop);
}

static void LOOP_ONLY
stop_now(struct daemon *d, const char *why)
{
    size_t cut = proxy_cut(d->proxy);
    if (cut > 0) {
        LOG_W("stopped why=%s requests_cut=%zu", why, cut);
        d->exit_code = EXIT_CUT;
    }
    loop_stop(d->loop);
}

static void
on_drain_timeout(void *arg)
{
    thr_check_loop();
    stop_now(arg, "drain_timeout");
}

/* May be called again, to limit a drain that had no limit. */
static void LOOP_ONLY
drain(struct daemon *d, const char *why, bool limited)
{
    if (limited && !d->told_to_stop)
        timer_arm_in(&d->drain_timer, d->cfg->chmux.drain_min + d->cfg->chmux.drain_timeout);
    d->told_to_stop = d->told_to_stop || limited;
    if (proxy_is_draining(d->proxy))
        return;
    LOG_I("drain_started why=%s", why);
    notify_stopping(&d->notify);
    proxy_drain(d->proxy, on_drained, d);
    report(d);
}

static void
on_signal(void *arg, int signo)
{
    thr_check_loop();
    struct daemon *d = arg;
    if (signo == SIGHUP)
        (void)reload_request(d->reload, "SIGHUP");
    else if (signo == SIGQUIT || d->told_to_stop)
        stop_now(d, signo == SIGQUIT ? "SIGQUIT" : "second_signal");
    else
        drain(d, signo == SIGTERM ? "SIGTERM" : "SIGINT", true);
}

static void
on_admin_stop(void *arg, enum admin_stop how)
{
    thr_check_loop();
    if (how == ADMIN_STOP_NOW)
        stop_now(arg, "admin");
    else
        drain(arg, "admin", how == ADMIN_STOP_SHUTDOWN);
}

static void LOOP_ONLY
say_addresses(const struct daemon *d)
{
    const char *name = NULL, *text;
    for (size_t i = 0; (text = proxy_address(d->proxy, i, &name)) != NULL; i++)
        printf("chmuxd: listening on %s (%s)\n", text, name);
    for (size_t i = 0; d->admin != NULL && (text = admin_address(d->admin, i)) != NULL; i++)
        printf("chmuxd: admin on %s\n", text);
    fflush(stdout);
}

/* false: why holds what failed. */
static bool LOOP_ONLY
boot(struct daemon *d, char *why, size_t why_len)
{
    snprintf(why, why_len, "out of memory or file descriptors");
    const struct config *cfg = d->cfg;
    struct passed *passed = &d->inherited->sockets;
    d->resolver = resolver_new(d->loop);
    timer_init(&d->drain_timer, d->loop, on_drain_timeout, d);
    timer_init(&d->report_timer, d->loop, on_report, d);
    if (!notify_start(&d->notify, d->loop, &d->inherited->notify) || d->resolver == NULL ||
        !timer_reserve(&d->drain_timer) || !timer_reserve(&d->report_timer) ||
        !listener_spare_open())
        return false;
    if (!upools_open(&d->pools, d->loop, d->resolver, cfg, why, why_len))
        return false;
    d->proxy = proxy_new(d->loop, cfg, &d->pools);
    if (d->proxy == NULL || !proxy_listen(d->proxy, passed, why, why_len))
        return false;
    if (cfg->admin.address.count > 0 || passed_find(passed, PASSED_ADMIN) != NULL) {
        d->admin = admin_new(d->loop, cfg, d->proxy, &d->pools, passed, why, why_len);
        if (d->admin == NULL)
            return false;
        admin_on_stop(d->admin, on_admin_stop, d);
    }
    d->reload = reload_new(&(struct reload_parts){.loop = d->loop,
        .notify = &d->notify,
        .pools = &d->pools,
        .proxy = d->proxy,
        .admin = d->admin,
        .settings = d->settings,
        .cfg = &d->cfg});
    if (d->reload == NULL) {
        snprintf(why, why_len, "out of memory or file descriptors");
        return false;
    }
    static const int signals[] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP};
    for (size_t i = 0; i < COUNT_OF(signals); i++)
        if (!loop_on_signal(d->loop, signals[i], on_signal, d))
            return false;
    if (!proxy_start(d->proxy))
        return false;
    proxy_set_keeper(d->proxy, &d->notify);
    proxy_take_clients(d->proxy, passed);
    return true;
}

static void LOOP_ONLY
shut_down(struct daemon *d)
{
    if (d->proxy != NULL)
        (void)proxy_cut(d->proxy);
    if (d->loop != NULL)
        loop_run_deferred(d->loop);
    admin_free(&d->admin);
    proxy_free(&d->proxy);
    upools_close(&d->pools);
    resolver_free(&d->resolver);
    d->thread_left = !reload_free(&d->reload);
    timer_fini(&d->drain_timer);
    timer_fini(&d->report_timer);
    notify_fini(&d->notify);
    loop_free(&d->loop);
}

static int LOOP_ONLY
run(struct daemon *d)
{
    char why[768];
    if (!boot(d, why, sizeof why)) {
        fprintf(stderr, "chmuxd: %s\n", why);
        notify_status(&d->notify, "Cannot start: %s", why);
        shut_down(d);
        return EXIT_START;
    }
    say_addresses(d);
    upools_start(&d->pools);
    reload_start(d->reload);
    notify_ready(&d->notify);
    report(d);
    loop_run(d->loop);
    shut_down(d);
    LOG_I("stopped exit=%d", d->exit_code);
    return d->exit_code;
}

/* Takes cfg. */
static int
run_daemon(struct config *cfg, const struct settings *settings, struct inherited *inherited)
{
    char why[512];
    if (!settings_raise_descriptors(cfg, why, sizeof why)) {
        fprintf(stderr, "chmuxd: %s\n", why);
        config_free(&cfg);
        return EXIT_START;
    }
    (void)signal(SIGPIPE, SIG_IGN);
    random_init();
    mem_init(cfg->chmux.memory_limit, cfg->chmux.buffer_size, BLOCKS_KEPT);
    check_set_dump(log_dump_tail);
    if (!log_start(cfg->log.level, cfg->log.format, cfg->log.ring_size)) {
        fprintf(stderr, "chmuxd: cannot start the log thread: %s\n", strerror(errno));
        config_free(&cfg);
        return EXIT_START;
    }
    struct daemon d = {.cfg = cfg, .settings = settings, .inherited = inherited, .notify.fd = -1};
    d.loop = loop_new();
    int code = EXIT_START;
    if (d.loop != NULL) {
        thr_check_loop();
        code = run(&d);
        if (d.thread_left) {
            log_stop();
            _exit(code);
        }
    } else {
        fprintf(stderr, "chmuxd: cannot make an event loop: %s\n", strerror(errno));
    }
    config_free(&d.cfg);
    log_stop();
    mem_fini();
    return code;
}

static bool
inherit(struct inherited *in)
{
    char why[512];
    if (passed_take(&in->sockets, why, sizeof why) && notify_env_take(&in->notify, why, sizeof why))
        return true;
    fprintf(stderr, "chmuxd: %s\n", why);
    return false;
}

static void
gather_settings(struct settings *out, const struct command_line *cl, const struct passed *sockets)
{
    extern char **environ;
    *out = (struct settings){
        .file = cl->file,
        .environ_list = (const char *const *)environ,
        .flags = cl->flags,
        .flag_count = cl->flag_count,
        .passed_count = sockets->count,
    };
    for (size_t i = 0; i < sockets->count; i++)
        out->passed_names[i] = sockets->socket[i].name;
}

int
main(int argc, char **argv)
{
    struct command_line cl = {0};
    int code = stdfd_fill() ? parse_command_line(&cl, argc, argv) : EXIT_START;
    struct settings settings;
    struct config *cfg = NULL;
    static struct inherited inherited; /* too large for the stack */
    if (code < 0 && !inherit(&inherited))
        code = EXIT_START;
    if (code < 0) {
        gather_settings(&settings, &cl, &inherited.sockets);
        cfg = load_config(&settings);
        code = cfg == NULL ? EXIT_USAGE : -1;
    }
    if (code < 0 && cl.print) {
        struct buf out;
        buf_init(&out, 1 << 20);
        config_print(cfg, &out);
        printf("%.*s", (int)out.len, out.p);
        buf_fini(&out);
        code = EXIT_OK;
    }
    if (code < 0 && cl.check && !check_files(cfg))
        code = EXIT_USAGE;
    if (code < 0 && cl.check) {
        printf("chmuxd: the configuration is valid\n");
        code = EXIT_OK;
    }
    if (code == EXIT_OK && !stdfd_flush("chmuxd"))
        code = EXIT_START;
    if (code < 0) {
        code = run_daemon(cfg, &settings, &inherited);
        cfg = NULL;
    }
    config_free(&cfg);
    passed_fini(&inherited.sockets);
    for (size_t i = 0; i < cl.owned_count; i++)
        free(cl.owned[i]);
    return code;
}
