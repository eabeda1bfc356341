/*
 * admin_process: what the kernel says of this process, under the names that every client library of
 * Prometheus uses, so that existing rules and boards find them.
 */
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "admin/admin_impl.h"

#include "base/no_block.h"

/* By the kernel out of its own tables: no disk is read. */
int64_t
admin_resident_bytes(void)
{
    char text[128];
    uint64_t pages = 0;
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text);
    if (fd >= 0)
        close(fd);
    ssize_t first = n <= 0 ? -1 : str_find(str_n(text, (size_t)n), ' ');
    if (first < 0)
        return -1;
    struct str rest = str_n(text + first + 1, (size_t)(n - first - 1));
    ssize_t second = str_find(rest, ' ');
    if (second < 0 || !str_to_u64(str_n(rest.p, (size_t)second), INT32_MAX, &pages))
        return -1;
    return (int64_t)pages * sysconf(_SC_PAGESIZE);
}

static void
put_head(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_addf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void
put_gauge(struct buf *out, const char *name, const char *help, int64_t value)
{
    if (value < 0) /* not to be had here */
        return;
    put_head(out, name, "gauge", help);
    buf_addf(out, "%s %" PRId64 "\n", name, value);
}

void
admin_print_process(struct buf *out, int64_t started_s)
{
    struct rusage use;
    struct rlimit files;
    put_head(out, "chmux_build_info", "gauge", "1, labelled with the version");
    buf_str(out, STR("chmux_build_info{version=\"" CHMUX_VERSION "\"} 1\n"));
    put_gauge(
        out, "process_start_time_seconds", "When chmuxd started, in seconds since 1970", started_s);
    put_gauge(out, "process_resident_memory_bytes", "Memory of the process that is resident",
        admin_resident_bytes());
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur <= INT64_MAX)
        put_gauge(out, "process_max_fds", "File descriptors at most", (int64_t)files.rlim_cur);
    if (getrusage(RUSAGE_SELF, &use) != 0)
        return;
    int64_t us = (int64_t)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) * 1000000 +
                 use.ru_utime.tv_usec + use.ru_stime.tv_usec;
    put_head(out, "process_cpu_seconds_total", "counter",
        "Processor time of all threads, user and system");
    buf_addf(
        out, "process_cpu_seconds_total %" PRId64 ".%06" PRId64 "\n", us / 1000000, us % 1000000);
}
