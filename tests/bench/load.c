/* load: see the usage text and load.h. */
#include "load.h"

#include <signal.h>

static const char USAGE[] =
    "usage: load closed|idle|fetch --to A:P [--target /?query=...] [--clients N]\n"
    "  closed: --requests N or --seconds S, [--warmup-ms W] [--new-conn server|client]\n"
    "  idle:   one request per client, then quiet until a line on stdin\n"
    "  fetch:  [--requests N] [--upload BYTES --upload-chunk C] [--expect BYTES] [--verify 1]\n"
    "          [--rate BYTES_PER_S] [--tls 1.2|1.3]";

static enum new_conn
parse_new_conn(const char *s)
{
    if (strcmp(s, "server") == 0)
        return NEW_CONN_BY_SERVER;
    if (strcmp(s, "client") == 0)
        return NEW_CONN_BY_CLIENT;
    die("--new-conn: server or client, not %s", s);
}

static void
option(struct load_options *o, const char *name, const char *value)
{
    if (strcmp(name, "--to") == 0)
        o->to = parse_addr(value);
    else if (strcmp(name, "--target") == 0)
        o->target = value;
    else if (strcmp(name, "--clients") == 0)
        o->clients = parse_size(value, name);
    else if (strcmp(name, "--requests") == 0)
        o->requests = parse_size(value, name);
    else if (strcmp(name, "--seconds") == 0)
        o->duration_ms = (int64_t)(strtod(value, NULL) * 1000);
    else if (strcmp(name, "--warmup-ms") == 0)
        o->warmup_ms = (int64_t)parse_size(value, name);
    else if (strcmp(name, "--new-conn") == 0)
        o->new_conn = parse_new_conn(value);
    else if (strcmp(name, "--upload") == 0)
        o->upload_bytes = parse_size(value, name);
    else if (strcmp(name, "--upload-chunk") == 0)
        o->upload_chunk = parse_size(value, name);
    else if (strcmp(name, "--expect") == 0)
        o->expect_bytes = parse_size(value, name);
    else if (strcmp(name, "--rate") == 0)
        o->rate = parse_size(value, name);
    else if (strcmp(name, "--verify") == 0)
        o->verify = parse_size(value, name) != 0;
    else if (strcmp(name, "--tls") == 0)
        o->tls_max = value;
    else
        die("%s", USAGE);
}

int
main(int argc, char **argv)
{
    struct load_options o = {
        .target = "/?query=SELECT%201",
        .clients = 1,
        .expect_bytes = UINT64_MAX,
        .upload_chunk = 64 * 1024,
    };
    if (argc < 4 || argc % 2 != 0)
        die("%s", USAGE);
    for (int i = 2; i < argc; i += 2)
        option(&o, argv[i], argv[i + 1]);
    if (o.to.sin_port == 0 || o.upload_chunk == 0 || o.clients == 0)
        die("%s", USAGE);
    o.tls = o.tls_max != NULL;
    signal(SIGPIPE, SIG_IGN);
    raise_nofile(o.clients + 64);
    if (strcmp(argv[1], "closed") == 0 && (o.requests > 0 || o.duration_ms > 0))
        return load_closed(&o);
    if (strcmp(argv[1], "idle") == 0)
        return load_idle(&o);
    if (strcmp(argv[1], "fetch") == 0)
        return load_fetch(&o);
    die("%s", USAGE);
}
