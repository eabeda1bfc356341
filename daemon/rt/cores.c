#include "rt/cores.h"

#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <unistd.h>

#include "base/no_block.h"

/* What the file holds, the end of the last line off; empty: it cannot be read. */
static struct str
read_text(const char *path, char *text, size_t len)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, len);
    if (fd >= 0)
        close(fd);
    struct str s = str_n(text, n < 0 ? 0 : (size_t)n);
    while (s.len > 0 && s.p[s.len - 1] == '\n')
        s.len--;
    return s;
}

static struct str
read_of_group(const char *folder, struct str group, const char *name, char *text, size_t len)
{
    char path[PATH_MAX];
    int n = snprintf(path, sizeof path, "%s" STR_FMT "/%s", folder, STR_ARG(group), name);
    return n > 0 && (size_t)n < sizeof path ? read_text(path, text, len) : str_n(text, 0);
}

/* "150000" of "100000" are 2 cores; "max", "-1" and what else is no number are no limit. */
static size_t
cores_of_quota(struct str quota, struct str period)
{
    uint64_t q, p;
    if (!str_to_u64(quota, INT64_MAX, &q) || !str_to_u64(period, INT64_MAX, &p) || p == 0)
        return SIZE_MAX;
    return size_max((size_t)(q / p + (q % p != 0)), 1);
}

static size_t
limit_v2(const char *folder, struct str group)
{
    char text[128];
    struct str s = read_of_group(folder, group, "cpu.max", text, sizeof text);
    ssize_t at = str_find(s, ' ');
    if (at < 0)
        return SIZE_MAX;
    return cores_of_quota(str_n(s.p, (size_t)at), str_n(s.p + at + 1, s.len - (size_t)at - 1));
}

static size_t
limit_v1(const char *folder, struct str group)
{
    char quota[64], period[64];
    return cores_of_quota(read_of_group(folder, group, "cpu.cfs_quota_us", quota, sizeof quota),
        read_of_group(folder, group, "cpu.cfs_period_us", period, sizeof period));
}

/* The group in the line "id:controllers:/group" with that controller, "" for the root and when
 * there is no such line. Version 2 has one line, without controllers. */
static struct str
group_of(struct str members, struct str controller)
{
    while (members.len > 0) {
        ssize_t end = str_find(members, '\n');
        struct str line = str_n(members.p, end < 0 ? members.len : (size_t)end);
        members = str_n(line.p + line.len + (end >= 0), members.len - line.len - (end >= 0));
        ssize_t at = str_find(line, ':');
        struct str rest = str_n(line.p + at + 1, line.len - (size_t)(at + 1));
        ssize_t colon = at < 0 ? -1 : str_find(rest, ':');
        if (colon < 0)
            continue;
        struct str group = str_n(rest.p + colon + 1, rest.len - (size_t)colon - 1);
        struct str list = str_n(rest.p, (size_t)colon), token = list;
        bool found = list.len == 0 && controller.len == 0;
        while (!found && str_next_token(&list, &token))
            found = str_eq(token, controller);
        if (found)
            return group.len > 1 && group.p[0] == '/' ? group : str_n(group.p, 0);
    }
    return str_n(members.p, 0);
}

/* Upwards to the mount itself: inside a container its own group may be there, whatever it is
 * called outside. */
static size_t
least(const char *folder, struct str group, size_t (*limit)(const char *, struct str))
{
    size_t cores = SIZE_MAX;
    for (;;) {
        cores = size_min(cores, limit(folder, group));
        if (group.len == 0)
            return cores;
        do
            group.len--;
        while (group.len > 0 && group.p[group.len] != '/');
    }
}

size_t
cores_by_cgroup(const char *mount, struct str members)
{
    char cpu[PATH_MAX];
    int n = snprintf(cpu, sizeof cpu, "%s/cpu", mount);
    size_t v2 = least(mount, group_of(members, STR("")), limit_v2);
    if (n < 0 || (size_t)n >= sizeof cpu)
        return v2;
    return size_min(v2, least(cpu, group_of(members, STR("cpu")), limit_v1));
}

size_t
cores_usable(void)
{
    cpu_set_t set;
    char members[4096];
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return 1;
    struct str text = read_text("/proc/self/cgroup", members, sizeof members);
    return size_min((size_t)CPU_COUNT(&set), cores_by_cgroup("/sys/fs/cgroup", text));
}
