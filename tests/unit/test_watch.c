/*
 * watch: a change of a file, or of the symlinks that lead to it, is told once; others are not.
 */
#include <fcntl.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "rt/watch.h"
#include "t.h"

static char folder[] = "/tmp/chmux-watch-XXXXXX";
static struct loop *loop;
static int told;

static void
on_change(void *arg)
{
    thr_check_loop();
    (void)arg;
    told++;
    loop_stop(loop);
}

static const char *
in(const char *name)
{
    static char text[4][128];
    static unsigned turn;
    char *out = text[turn++ % 4];
    snprintf(out, sizeof text[0], "%s/%s", folder, name);
    return out;
}

static void
put(const char *name, const char *text)
{
    int fd = open(in(name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    T_TRUE(fd >= 0);
    T_EQ(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static struct watch_set *
set_of(const char *name)
{
    struct watch_set *s = watch_set_new();
    T_TRUE(s != NULL);
    watch_set_add(s, in(name));
    return s;
}

/* Runs until the change is told. */
static void LOOP_ONLY
is_told(struct watch *w)
{
    (void)w;
    told = 0;
    loop_run(loop);
    T_EQ(told, 1);
}

static void
on_end(void *arg)
{
    thr_check_loop();
    (void)arg;
    loop_stop(loop);
}

/* Nothing that was done before counts: the kernel has told of it by now, if it would. */
static void LOOP_ONLY
is_not_told(struct watch *w)
{
    struct timer end;
    told = 0;
    timer_init(&end, loop, on_end, NULL);
    T_TRUE(timer_reserve(&end));
    timer_arm_in(&end, 1000);
    loop_run(loop);
    T_EQ(told, 0);
    T_FALSE(timer_armed(&w->settle));
    timer_fini(&end);
}

static void
test_files(void **state)
{
    (void)state;
    struct watch w;
    thr_check_loop();
    put("a", "1");
    struct watch_set *s = set_of("a");
    T_TRUE(watch_init(&w, loop, on_change, NULL));
    T_TRUE(watch_take(&w, &s));
    T_TRUE(s == NULL);
    put("b", "1"); /* beside it */
    is_not_told(&w);
    put("a", "2");
    is_told(&w);
    put("b", "2");
    T_EQ(rename(in("b"), in("a")), 0);
    is_told(&w);
    unlink(in("a"));
    is_told(&w);
    put("a", "3"); /* it is watched where it would be */
    is_told(&w);
    T_FALSE(watch_take(&w, &s)); /* none: the one before stays */
    put("a", "4");
    is_told(&w);
    watch_fini(&w);
    unlink(in("a"));
}

/* As Kubernetes does it, one level deeper: a folder of the path is the link that changes. */
static void
test_links_and_folders(void **state)
{
    (void)state;
    struct watch w;
    thr_check_loop();
    T_EQ(mkdir(in("v1"), 0700) | mkdir(in("v2"), 0700), 0);
    put("v1/f", "1");
    put("v2/f", "2");
    T_EQ(symlink("v1", in("now")), 0);
    T_EQ(symlink("now/f", in("f")), 0);
    T_TRUE(watch_init(&w, loop, on_change, NULL));
    struct watch_set *s = set_of("f");
    T_TRUE(watch_take(&w, &s));
    put("v2/f", "3"); /* does not lead there yet */
    is_not_told(&w);
    T_EQ(symlink("v2", in("next")), 0);
    T_EQ(rename(in("next"), in("now")), 0);
    is_told(&w);
    s = set_of("v1"); /* a folder: whatever happens in it */
    T_TRUE(watch_take(&w, &s));
    put("v2/f", "4");
    is_not_told(&w);
    put("v1/g", "1");
    is_told(&w);
    T_EQ(symlink("loop", in("loop")), 0);
    s = set_of("loop/f"); /* ends */
    T_TRUE(watch_take(&w, &s));
    s = set_of("none/of/these");
    T_TRUE(watch_take(&w, &s));
    T_EQ(mkdir(in("none"), 0700), 0);
    is_told(&w);
    watch_fini(&w);
    rmdir(in("none"));
    unlink(in("v1/f"));
    unlink(in("v1/g"));
    unlink(in("v2/f"));
    unlink(in("f"));
    unlink(in("now"));
    unlink(in("loop"));
    rmdir(in("v1"));
    rmdir(in("v2"));
}

static void
test_no_memory(void **state)
{
    (void)state;
    thr_check_loop();
    put("a", "1");
    bool ok = false;
    for (uint64_t n = 1; !ok; n++) {
        struct watch w;
        mem_fail_at(n);
        bool ready = watch_init(&w, loop, on_change, NULL);
        struct watch_set *s = watch_set_new();
        if (s != NULL)
            watch_set_add(s, in("a"));
        bool taken = watch_take(&w, &s);
        put("a", "2");
        mem_fail_at(0);
        ok = ready && taken && n > 10;
        watch_fini(&w);
        T_TRUE(n < 100);
    }
    unlink(in("a"));
}

int
main(void)
{
    T_TRUE(mkdtemp(folder) != NULL);
    loop = loop_new();
    thr_check_loop();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_links_and_folders),
        cmocka_unit_test(test_no_memory),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    loop_free(&loop);
    rmdir(folder);
    return failed;
}
