#include "reload/settings.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "net/tube.h"

/* not on the loop: boot, and the thread that prepares a reload */

#define FILE_MAX  (1 << 20)
#define OTHER_FDS (64 + 2 * TUBES_MAX) /* stdio, epoll, listeners, admin, eventfds, DNS, files */

/* The whole file, to be freed; NULL: *errors says why. */
static char *
read_file(const char *name, size_t *len, struct buf *errors)
{
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    char *text = fd < 0 ? NULL : malloc(FILE_MAX);
    *len = 0;
    while (text != NULL && *len < FILE_MAX) {
        ssize_t n = read(fd, text + *len, FILE_MAX - *len);
        if (n < 0) {
            free(text);
            text = NULL;
        } else if (n == 0) {
            break;
        } else {
            *len += (size_t)n;
        }
    }
    if (text == NULL) {
        buf_addf(errors, "%s: %s\n", name, strerror(errno));
    } else if (*len == FILE_MAX) {
        buf_addf(errors, "%s: larger than 1 MiB, which no configuration is\n", name);
        free(text);
        text = NULL;
    }
    if (fd >= 0)
        close(fd);
    return text;
}

static bool
hold(struct config *next, const struct config *now, const struct config_source *src,
    struct config_changes *changes, struct buf *errors)
{
    if (config_diff(now, next, changes))
        return config_hold(next, now, src, errors);
    buf_str(errors, STR("out of memory while reading the configuration\n"));
    return false;
}

struct config *
settings_load(const struct settings *s, const struct config *now, struct config_changes *changes,
    struct buf *errors)
{
    size_t len = 0;
    char *text = NULL;
    if (s->file != NULL) {
        text = read_file(s->file, &len, errors);
        if (text == NULL)
            return NULL;
    }
    struct config_source src = {
        .file_name = s->file,
        .file_text = str_n(text, len),
        .environ_list = s->environ_list,
        .flags = s->flags,
        .flag_count = s->flag_count,
        .passed_names = s->passed_names,
        .passed_count = s->passed_count,
    };
    struct config *cfg = config_load(&src, errors);
    if (cfg != NULL && now != NULL && !hold(cfg, now, &src, changes, errors))
        config_free(&cfg);
    if (cfg == NULL && errors->len == 0)
        buf_str(errors, STR("out of memory\n"));
    free(text);
    return cfg;
}

bool
settings_raise_descriptors(const struct config *cfg, char *why, size_t why_len)
{
    int64_t connections = 0;
    for (size_t i = 0; i < cfg->upstream_count; i++)
        connections += cfg->upstream[i].pool_size;
    rlim_t need = (rlim_t)cfg->chmux.max_clients + (rlim_t)connections + OTHER_FDS;
    struct rlimit rl;
    if (getrlimit(RLIMIT_NOFILE, &rl) != 0)
        return true;
    if (rl.rlim_cur >= need)
        return true;
    struct rlimit want = {.rlim_cur = need, .rlim_max = rl.rlim_max < need ? need : rl.rlim_max};
    if (setrlimit(RLIMIT_NOFILE, &want) == 0)
        return true;
    snprintf(why, why_len,
        "max_clients = %" PRId64 " and pool_size = %" PRId64
        " need %llu file descriptors, and the hard limit is %llu; lower max_clients, or raise the "
        "limit (LimitNOFILE= under systemd, ulimit -Hn in a shell)",
        cfg->chmux.max_clients, connections, (unsigned long long)need,
        (unsigned long long)rl.rlim_max);
    return false;
}
