#include "base/log.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>

#include "t.h"

#define RING_BYTES ((size_t)2 * LOG_LINE_MAX)

static size_t
lines_in(const char *text)
{
    size_t n = 0;
    for (; *text != '\0'; text++)
        n += *text == '\n';
    return n;
}

static void
test_lines_are_written_directly_without_a_thread(void **state)
{
    (void)state;
    struct t_capture c = t_capture();
    LOG_W("early n=%d", 1);
    LOG_D("not at this level");
    char *text = t_captured(c);
    T_HAS(text, "Z warn early n=1\n");
    T_EQ(lines_in(text), 1);
    free(text);
}

static void
test_stop_writes_what_waits_in_order(void **state)
{
    (void)state;
    struct t_capture c = t_capture();
    T_TRUE(log_start(LOG_INFO, LOG_TEXT, 1 << 20));
    for (int i = 0; i < 1000; i++)
        LOG_I("line n=%d.", i);
    log_stop();
    LOG_I("afterwards");
    char *text = t_captured(c);
    const char *at = text;
    for (int i = 0; i < 1000; i++) {
        char want[32];
        snprintf(want, sizeof(want), "info line n=%d.\n", i);
        at = strstr(at, want);
        T_TRUE(at != NULL);
    }
    T_HAS(at, "info afterwards\n");
    T_EQ(lines_in(text), 1001);
    free(text);
}

static void
test_level_is_a_threshold(void **state)
{
    (void)state;
    struct t_capture c = t_capture();
    T_TRUE(log_start(LOG_WARN, LOG_TEXT, RING_BYTES));
    T_TRUE(log_on(LOG_ERROR) && log_on(LOG_WARN) && !log_on(LOG_INFO));
    LOG_E("e");
    LOG_I("hidden");
    log_fields(LOG_INFO, "hidden", NULL, 0);
    log_set_level(LOG_DEBUG);
    LOG_D("d");
    log_stop();
    log_set_level(LOG_INFO);
    char *text = t_captured(c);
    T_HAS(text, "error e\n");
    T_HAS(text, "debug d\n");
    T_TRUE(strstr(text, "hidden") == NULL);
    free(text);
}

static void
test_json_lines(void **state)
{
    (void)state;
    struct t_capture c = t_capture();
    T_TRUE(log_start(LOG_INFO, LOG_JSON, RING_BYTES));
    LOG_I("say \"%s\"", "a\nb");
    const struct log_field f[] = {{.key = "status", .kind = LOG_NUM, .n = 200},
        {.key = "user", .kind = LOG_STR, .s = STR("me")}};
    log_fields(LOG_INFO, "access", f, COUNT_OF(f));
    log_stop();
    char *text = t_captured(c);
    T_TRUE(strncmp(text, "{\"time\":\"20", 11) == 0);
    T_HAS(text, "Z\",\"level\":\"info\",\"msg\":\"say \\\"a\\u000ab\\\"\"}\n{\"time\":\"");
    T_HAS(text, "Z\",\"level\":\"info\",\"event\":\"access\",\"status\":200,\"user\":\"me\"}\n");
    T_EQ(lines_in(text), 2);
    free(text);
}

static void
test_journald_prefix_only_for_our_own_stream(void **state)
{
    (void)state;
    struct t_capture c = t_capture();
    struct stat st;
    char stream[64];
    bool ok = fstat(2, &st) == 0;
    snprintf(stream, sizeof(stream), "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
    setenv("JOURNAL_STREAM", stream, 1);
    ok = ok && log_start(LOG_INFO, LOG_TEXT, RING_BYTES);
    LOG_W("in the journal");
    log_stop();
    snprintf(stream, sizeof(stream), "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino + 1);
    setenv("JOURNAL_STREAM", stream, 1);
    ok = ok && log_start(LOG_INFO, LOG_TEXT, RING_BYTES);
    LOG_W("in a file");
    log_stop();
    unsetenv("JOURNAL_STREAM");
    char *text = t_captured(c);
    T_TRUE(ok);
    T_TRUE(strncmp(text, "<4>warn in the journal\n20", 25) == 0);
    T_HAS(text, "Z warn in a file\n");
    free(text);
}

static void
test_a_long_line_is_cut_at_the_bound(void **state)
{
    (void)state;
    static char big[3 * LOG_LINE_MAX];
    memset(big, 'x', sizeof(big) - 1);
    struct t_capture c = t_capture();
    T_TRUE(log_start(LOG_INFO, LOG_TEXT, RING_BYTES));
    LOG_I("%s", big);
    log_stop();
    char *text = t_captured(c);
    T_TRUE(strlen(text) <= LOG_LINE_MAX && strlen(text) > LOG_LINE_MAX - 100);
    T_HAS(text, "x...\n");
    T_EQ(lines_in(text), 1);
    free(text);
}

/* A pipe nobody reads, standing in for stderr, filled to the brim. */
struct stuck {
    int read_end, before;
};

static struct stuck
stuck_stderr(void)
{
    int fd[2];
    struct stuck s = {.before = dup(2)};
    T_EQ(pipe(fd), 0);
    s.read_end = fd[0];
    T_EQ(fcntl(fd[1], F_SETFL, O_NONBLOCK), 0);
    char fill[4096] = {0};
    memset(fill, '~', sizeof(fill));
    while (write(fd[1], fill, sizeof(fill)) > 0)
        ;
    T_EQ(fcntl(fd[1], F_SETFL, 0), 0);
    T_EQ(dup2(fd[1], 2), 2);
    close(fd[1]);
    return s;
}

static void
unstick(struct stuck *s)
{
    dup2(s->before, 2);
    close(s->before);
}

/* What came through the pipe, the filling aside; the caller frees it. Ends at EOF. */
static char *
read_all(int fd)
{
    size_t cap = 1 << 20, len = 0;
    char *text = calloc(1, cap);
    char chunk[4096];
    for (ssize_t n = 0; (n = read(fd, chunk, sizeof(chunk))) > 0;)
        for (ssize_t i = 0; i < n; i++)
            if (chunk[i] != '~' && len + 1 < cap)
                text[len++] = chunk[i];
    close(fd);
    return text;
}

static void *
read_all_thread(void *arg)
{
    return read_all(*(int *)arg);
}

static void
test_full_ring_drops_counts_and_tells(void **state)
{
    (void)state;
    uint64_t before = log_dropped();
    struct stuck s = stuck_stderr();
    bool started = log_start(LOG_INFO, LOG_TEXT, RING_BYTES);
    /* Far more than ring and thread can hold: these calls return all the same. */
    for (int i = 0; i < 5000; i++)
        LOG_I("line n=%d", i);
    uint64_t lost = log_dropped() - before;
    pthread_t reader; /* the reader wakes up */
    int rc = pthread_create(&reader, NULL, read_all_thread, &s.read_end);
    log_stop();
    unstick(&s); /* closes the last write end: the reader sees EOF */
    void *got = NULL;
    pthread_join(reader, &got);
    char *text = got;
    T_TRUE(started && rc == 0);
    T_TRUE(lost > 0 && lost < 5000);
    T_EQ(log_dropped() - before, lost);
    char want[64];
    snprintf(want, sizeof(want), "warn log_dropped lines=%" PRIu64 "\n", lost);
    T_HAS(text, want);
    T_HAS(text, "info line n=0\n");
    T_EQ(lines_in(text), 5000 - lost + 1); /* each line is written or counted */
    free(text);
}

static void
test_stop_gives_up_on_a_stuck_reader(void **state)
{
    (void)state;
    uint64_t before = log_dropped();
    struct stuck s = stuck_stderr();
    bool started = log_start(LOG_INFO, LOG_TEXT, 1 << 20);
    for (int i = 0; i < 200; i++) /* several batches: it gives up once, not once for each */
        LOG_I("nobody reads this: a line long enough to make several batches of them %0200d", i);
    log_stop(); /* returns: the test's time limit is the proof */
    unstick(&s);
    close(s.read_end);
    T_TRUE(started);
    T_EQ(log_dropped() - before, 200);
}

static void *
write_many(void *arg)
{
    int who = *(int *)arg;
    for (int i = 0; i < 500; i++)
        LOG_I("thread who=%d n=%d end", who, i);
    return NULL;
}

/* Threads: any. Each line arrives whole, once, in its thread's order. */
static void
test_lines_of_threads_do_not_mix(void **state)
{
    (void)state;
    struct t_capture c = t_capture();
    T_TRUE(log_start(LOG_INFO, LOG_TEXT, 4 << 20));
    pthread_t t[4];
    int who[COUNT_OF(t)];
    for (size_t i = 0; i < COUNT_OF(t); i++) {
        who[i] = (int)i;
        T_EQ(pthread_create(&t[i], NULL, write_many, &who[i]), 0);
    }
    for (size_t i = 0; i < COUNT_OF(t); i++)
        T_EQ(pthread_join(t[i], NULL), 0);
    log_stop();
    char *text = t_captured(c), *save = NULL;
    int next[COUNT_OF(t)] = {0};
    for (char *l = strtok_r(text, "\n", &save); l != NULL; l = strtok_r(NULL, "\n", &save)) {
        int from = -1, n = -1, end = 0;
        T_EQ(sscanf(l, "%*s info thread who=%d n=%d end%n", &from, &n, &end), 2);
        T_TRUE(from >= 0 && from < 4 && (size_t)end == strlen(l));
        T_EQ(n, next[from]++);
    }
    for (size_t i = 0; i < COUNT_OF(t); i++)
        T_EQ(next[i], 500);
    free(text);
}

/* A process that dies in a CHECK leaves its last lines behind, those not yet written included. */
static void
test_dump_tail_on_a_failed_check(void **state)
{
    (void)state;
    struct stuck s = stuck_stderr();
    int memory = memfd_create("dump", 0);
    pid_t pid = fork();
    if (pid == 0) {
        check_set_dump(log_dump_tail);
        if (!log_start(LOG_INFO, LOG_TEXT, RING_BYTES))
            _exit(1);
        for (int i = 0; i < 300; i++)
            LOG_I("last n=%d", i);
        dup2(memory, 2); /* the thread hangs on the pipe; the dump must not */
        CHECK(3 < 2);
    }
    int status = 0;
    pid_t waited = waitpid(pid, &status, 0);
    unstick(&s);
    close(s.read_end);
    T_EQ(waited, pid);
    T_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    static char text[1 << 20];
    ssize_t n = pread(memory, text, sizeof(text) - 1, 0);
    close(memory);
    T_TRUE(n > 0);
    T_HAS(text, "check failed: 3 < 2");
    T_HAS(text, "info last n=");
    T_TRUE(lines_in(text) >= 32);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_lines_are_written_directly_without_a_thread),
        TEST(test_stop_writes_what_waits_in_order),
        TEST(test_level_is_a_threshold),
        TEST(test_json_lines),
        TEST(test_journald_prefix_only_for_our_own_stream),
        TEST(test_a_long_line_is_cut_at_the_bound),
        TEST(test_full_ring_drops_counts_and_tells),
        TEST(test_stop_gives_up_on_a_stuck_reader),
        TEST(test_lines_of_threads_do_not_mix),
        TEST(test_dump_tail_on_a_failed_check),
    };
    return TEST_MAIN(tests);
}
