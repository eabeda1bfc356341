/*
 * cores: the limits of a cgroup and of those above it, as the kernel writes them.
 */
#include <fcntl.h>
#include <sys/stat.h>

#include "rt/cores.h"
#include "t.h"

static char mount[] = "/tmp/chmux-cores-XXXXXX";

static void
put(const char *group, const char *name, const char *text)
{
    char path[128];
    snprintf(path, sizeof path, "%s%s/%s", mount, group, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    T_TRUE(fd >= 0);
    T_EQ(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static void
limit(const char *group, const char *text)
{
    put(group, "cpu.max", text);
}

static size_t
cores(const char *members)
{
    return cores_by_cgroup(mount, str_of(members));
}

static void
test_no_limit(void **state)
{
    (void)state;
    T_EQ(cores(""), SIZE_MAX); /* no cgroups at all */
    T_EQ(cores("0::/pod/main\n"), SIZE_MAX);
    limit("/pod/main", "max 100000\n");
    T_EQ(cores("0::/pod/main\n"), SIZE_MAX);
    T_EQ(cores("0::/gone\n"), SIZE_MAX);
}

static void
test_a_limit_is_rounded_up(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t cores;
    } cases[] = {{"100000 100000\n", 1}, {"150000 100000\n", 2}, {"5000 100000\n", 1},
        {"0 100000\n", 1}, {"400000 100000", 4}, {"25000 10000\n", 3}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        limit("/pod/main", cases[i].text);
        T_EQ(cores("0::/pod/main\n"), cases[i].cores);
        T_EQ(cores("12:pids:/x\n1:name=systemd:/y\n0::/pod/main"), cases[i].cores);
    }
}

static void
test_what_is_no_limit_is_none(void **state)
{
    (void)state;
    static const char *const texts[] = {"", "\n", "1\n", "1 \n", " 1\n", "1 0\n", "-1 100000\n",
        "1 2 3\n", "99999999999999999999 1\n", "max\n", "x y\n"};
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        limit("/pod/main", texts[i]);
        T_EQ(cores("0::/pod/main\n"), SIZE_MAX);
    }
}

static void
test_the_smallest_of_all_above(void **state)
{
    (void)state;
    limit("/pod/main", "300000 100000\n");
    limit("/pod", "200000 100000\n");
    limit("", "500000 100000\n");
    T_EQ(cores("0::/pod/main\n"), 2);
    T_EQ(cores("0::/pod\n"), 2);
    T_EQ(cores("0::/\n"), 5); /* the root of a container's own view */
    T_EQ(cores("0::/elsewhere/main\n"), 5);
    limit("/pod/main", "100000 100000\n");
    T_EQ(cores("0::/pod/main\n"), 1);
}

static void
test_version_1(void **state)
{
    (void)state;
    limit("/pod/main", "max 100000\n");
    limit("/pod", "max 100000\n");
    limit("", "max 100000\n");
    put("/cpu/pod", "cpu.cfs_quota_us", "-1\n");
    put("/cpu/pod", "cpu.cfs_period_us", "100000\n");
    T_EQ(cores("4:cpu:/pod\n"), SIZE_MAX);
    put("/cpu/pod", "cpu.cfs_quota_us", "250000\n");
    T_EQ(cores("5:memory:/x\n4:cpuacct,cpu:/pod\n"), 3);
    T_EQ(cores("5:memory:/x\n4:cpu,cpuacct:/pod/gone\n0::/\n"), 3);
    T_EQ(cores("4:cpuacct:/pod\n3:cpuset:/pod\n0::/pod\n"), SIZE_MAX); /* others */
    limit("/pod", "100000 100000\n");
    T_EQ(cores("4:cpu:/pod\n0::/pod\n"), 1);
}

static void
test_no_such_lines(void **state)
{
    (void)state;
    limit("", "200000 100000\n");
    static const char *const texts[] = {"", "\n", ":", "::", "0::", "0::\n", "0::x", "0::/", "cpu",
        "4:cpu", "4:cpu:", "4:cpu:\n\n", ":\n::\n", "\n0::/\n", ",:,:,"};
    for (size_t i = 0; i < COUNT_OF(texts); i++)
        T_EQ(cores(texts[i]), 2);
}

static void
test_here(void **state)
{
    (void)state;
    T_TRUE(cores_usable() >= 1);
    T_TRUE(cores_usable() <= (size_t)sysconf(_SC_NPROCESSORS_CONF));
}

static int
make_groups(void **state)
{
    (void)state;
    char path[128];
    T_TRUE(mkdtemp(mount) != NULL);
    static const char *const folders[] = {"/pod", "/pod/main", "/cpu", "/cpu/pod"};
    for (size_t i = 0; i < COUNT_OF(folders); i++) {
        snprintf(path, sizeof path, "%s%s", mount, folders[i]);
        T_EQ(mkdir(path, 0700), 0);
    }
    return 0;
}

static int
remove_groups(void **state)
{
    (void)state;
    static const char *const names[] = {"/cpu/pod/cpu.cfs_quota_us", "/cpu/pod/cpu.cfs_period_us",
        "/cpu/pod", "/cpu", "/pod/main/cpu.max", "/pod/main", "/pod/cpu.max", "/pod", "/cpu.max",
        ""};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        char path[128];
        snprintf(path, sizeof path, "%s%s", mount, names[i]);
        (void)remove(path);
    }
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_limit),
        cmocka_unit_test(test_a_limit_is_rounded_up),
        cmocka_unit_test(test_what_is_no_limit_is_none),
        cmocka_unit_test(test_the_smallest_of_all_above),
        cmocka_unit_test(test_version_1),
        cmocka_unit_test(test_no_such_lines),
        cmocka_unit_test(test_here),
    };
    return cmocka_run_group_tests(tests, make_groups, remove_groups);
}
