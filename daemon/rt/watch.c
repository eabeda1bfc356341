#include "rt/watch.h"

#include <limits.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"

#include "base/no_block.h"

#define LINKS_MAX 40 /* as the kernel */
#define CHANGES                                                                                    \
    (IN_CREATE | IN_CLOSE_WRITE | IN_ATTRIB | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO |            \
        IN_DELETE_SELF | IN_MOVE_SELF)

struct watched {
    int wd;
    char *name; /* owned; in the folder wd; NULL: whatever happens there */
};

struct watch_set {
    int fd; /* owned */
    size_t count;
    struct watched item[WATCH_MAX];
};

/* ---- making a set ---- */

struct watch_set *
watch_set_new(void)
{
    struct watch_set *s = mem_zalloc(sizeof *s);
    if (s == NULL) {
        errno = ENOMEM;
        return NULL;
    }
    s->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (s->fd >= 0)
        return s;
    int e = errno;
    mem_free(s);
    errno = e;
    return NULL;
}

void
watch_set_free(struct watch_set **sp)
{
    struct watch_set *s = *sp;
    if (s == NULL)
        return;
    *sp = NULL;
    close(s->fd);
    for (size_t i = 0; i < s->count; i++)
        mem_free(s->item[i].name);
    mem_free(s);
}

/* A folder that cannot be watched is passed over: whoever reads files in it says why. */
static void
add(struct watch_set *s, const char *folder, const char *name)
{
    if (s->count == WATCH_MAX)
        return;
    int wd = inotify_add_watch(s->fd, folder, CHANGES | IN_ONLYDIR);
    if (wd < 0)
        return;
    char *copy = NULL;
    if (name != NULL) {
        size_t size = strlen(name) + 1;
        copy = mem_alloc(size);
        if (copy == NULL)
            return;
        memcpy(copy, name, size);
    }
    s->item[s->count++] = (struct watched){.wd = wd, .name = copy};
}

/* Where a walk along a path is: `at` is a folder and has no symlink in it, `rest` is still to go.
 */
struct walk {
    char at[PATH_MAX], rest[PATH_MAX];
    int links;
};

static bool
set_text(char out[PATH_MAX], const char *a, const char *b, const char *c)
{
    int n = snprintf(out, PATH_MAX, "%s%s%s", a, b, c);
    return n >= 0 && n < PATH_MAX;
}

/* Cuts the next name off the rest; false: there is none. */
static bool
next_name(struct walk *w, char name[NAME_MAX + 1])
{
    const char *begin = w->rest + strspn(w->rest, "/");
    size_t len = strcspn(begin, "/");
    if (len == 0 || len > NAME_MAX)
        return false;
    memcpy(name, begin, len);
    name[len] = '\0';
    memmove(w->rest, begin + len, strlen(begin + len) + 1);
    return true;
}

/* The link leads on: its text comes before the rest. */
static bool
follow_link(struct walk *w, const char *link)
{
    size_t left = strlen(w->rest) + 1, room = sizeof w->rest - left;
    char *kept = w->rest + room;
    memmove(kept, w->rest, left);
    ssize_t n = readlink(link, w->rest, room);
    if (n <= 0 || (size_t)n >= room || ++w->links > LINKS_MAX)
        return false;
    w->rest[n] = '/';
    memmove(w->rest + n + 1, kept, left);
    if (w->rest[0] == '/')
        return set_text(w->at, "/", "", "");
    return true;
}

/* One name further; false: the walk is over. */
static bool
step(struct watch_set *s, struct walk *w, const char *name)
{
    char full[PATH_MAX];
    struct stat st;
    if (!set_text(full, w->at, "/", name))
        return false;
    if (strcmp(name, ".") == 0)
        return true;
    if (strcmp(name, "..") == 0)
        return set_text(w->at, full, "", "");
    if (lstat(full, &st) != 0) { /* here it would appear */
        add(s, w->at, name);
        return false;
    }
    if (S_ISLNK(st.st_mode)) {
        add(s, w->at, name);
        return follow_link(w, full);
    }
    if (S_ISDIR(st.st_mode))
        return set_text(w->at, full, "", "");
    add(s, w->at, name);
    return false;
}

void
watch_set_add(struct watch_set *s, const char *path)
{
    struct walk w = {.links = 0};
    char name[NAME_MAX + 1];
    if (!set_text(w.at, path[0] == '/' ? "/" : ".", "", "") || !set_text(w.rest, path, "", ""))
        return;
    while (next_name(&w, name))
        if (!step(s, &w, name))
            return;
    add(s, w.at, NULL); /* the whole path led to a folder */
}

/* ---- listening ---- */

static bool
concerns(const struct watch_set *s, const struct inotify_event *e)
{
    if (e->len == 0 || (e->mask & IN_Q_OVERFLOW) != 0)
        return (e->mask & IN_IGNORED) == 0; /* the folder itself; or nobody knows what */
    for (size_t i = 0; i < s->count; i++) {
        const struct watched *it = &s->item[i];
        if (it->wd == e->wd && (it->name == NULL || strcmp(it->name, e->name) == 0))
            return true;
    }
    return false;
}

static void
on_events(void *arg, unsigned ready)
{
    thr_check_loop();
    (void)ready;
    struct watch *w = arg;
    loop_label(w->loop, "watch");
    union { /* aligned for what the kernel writes into it */
        struct inotify_event event;
        char bytes[4096];
    } part;
    bool changed = false;
    ssize_t n = read(w->set->fd, part.bytes, sizeof part.bytes); /* more: we are called again */
    for (ssize_t at = 0; at < n;) {
        const struct inotify_event *e = (const void *)(part.bytes + at);
        changed |= concerns(w->set, e);
        at += (ssize_t)(sizeof *e + e->len);
    }
    if (!changed)
        return;
    struct mono now = loop_now(w->loop);
    if (!timer_armed(&w->settle))
        w->limit = mono_add_us(now, WATCH_LIMIT_US);
    struct mono due = mono_add_us(now, WATCH_QUIET_US);
    timer_arm(&w->settle, due.us < w->limit.us ? due : w->limit);
}

static void
on_settled(void *arg)
{
    thr_check_loop();
    struct watch *w = arg;
    w->fn(w->arg);
}

bool
watch_init(struct watch *w, struct loop *l, loop_fn fn, void *arg)
{
    *w = (struct watch){.loop = l, .fn = fn, .arg = arg};
    timer_init(&w->settle, l, on_settled, w);
    return timer_reserve(&w->settle);
}

bool
watch_take(struct watch *w, struct watch_set **sp)
{
    struct watch_set *s = *sp;
    *sp = NULL;
    if (s == NULL)
        return false;
    struct watch_set *old = w->set;
    if (old != NULL)
        loop_io_del(&w->io);
    if (!loop_io_add_level(w->loop, &w->io, s->fd, on_events, w)) {
        watch_set_free(&s);
        if (old != NULL && loop_io_add_level(w->loop, &w->io, old->fd, on_events, w))
            return false;
        s = NULL;
    }
    w->set = s;
    watch_set_free(&old);
    return s != NULL;
}

void
watch_fini(struct watch *w)
{
    if (w->loop == NULL)
        return;
    timer_fini(&w->settle);
    if (w->set != NULL)
        loop_io_del(&w->io);
    watch_set_free(&w->set);
    *w = (struct watch){0};
}
