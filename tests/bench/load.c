/* load: see the usage text and load.h. */
#include "load.h"

#include <signal.h>

static const char USAGE[] =
    "usage: load closed|idle|fetch|readers --to A:P [--target /?query=...] [--clients N]\n"
    "          [--header 'Name: value']...\n"
    "  closed: --requests N or --seconds S, [--warmup-ms W] [--new-conn server|client]\n"
    "          [--upload-file F]\n"
    "  idle:   one request per client, then quiet until a line on stdin\n"
    "  fetch:  [--requests N] [--upload BYTES --upload-chunk C] [--expect BYTES] [--verify 1]\n"
    "          [--upload-file F: what --upload takes its bytes from] [--verify-file F]\n"
    "          [--rate BYTES_PER_S] [--tls 1.2|1.3]\n"
    "  readers: --seconds S [--warmup-ms W] [--rate BYTES_PER_S] [--verify-file F]";

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
add_header(struct load_options *o, const char *line)
{
    size_t have = strlen(o->headers);
    int n = snprintf(o->headers + have, sizeof(o->headers) - have, "%s\r\n", line);
    if (n < 0 || (size_t)n >= sizeof(o->headers) - have)
        die("load: too many headers");
}

char *
load_head(const struct load_options *o, const char *framing, size_t *n)
{
    char *head = NULL;
    bool close_it = o->new_conn == NEW_CONN_BY_SERVER;
    bool body = framing[0] != '\0';
    int len = asprintf(&head, "%s %s HTTP/1.1\r\nHost: ch\r\n%s%s%s\r\n", body ? "POST" : "GET",
        o->target, o->headers, framing, close_it ? "Connection: close\r\n" : "");
    if (len < 0)
        die("load: no memory");
    *n = (size_t)len;
    return head;
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
    else if (strcmp(name, "--header") == 0)
        add_header(o, value);
    else if (strcmp(name, "--upload-file") == 0)
        o->upload_file = bytes_of_file(value);
    else if (strcmp(name, "--verify-file") == 0)
        o->verify_file = bytes_of_file(value);
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

static int
run_mode(const char *mode, const struct load_options *o)
{
    if (strcmp(mode, "closed") == 0 && (o->requests > 0 || o->duration_ms > 0))
        return load_closed(o);
    if (strcmp(mode, "idle") == 0)
        return load_idle(o);
    if (strcmp(mode, "fetch") == 0)
        return load_fetch(o);
    if (strcmp(mode, "readers") == 0 && o->duration_ms > 0)
        return load_readers(o);
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
    int status = run_mode(argv[1], &o);
    bytes_free(&o.upload_file);
    bytes_free(&o.verify_file);
    return status;
}
