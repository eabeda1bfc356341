#include "ctl/term.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

/* Another screen without a cursor; and back. */
#define ENTER "\x1b[?1049h\x1b[?25l\x1b[H\x1b[2J"
#define LEAVE "\x1b[?25h\x1b[?1049l"

static void
say(const char *sequence)
{
    size_t len = strlen(sequence);
    while (len > 0) {
        ssize_t n = write(1, sequence, len);
        if (n < 0 && errno != EINTR)
            return; /* no terminal any more: nothing to restore */
        if (n > 0) {
            sequence += n;
            len -= (size_t)n;
        }
    }
}

/* Ctrl-C, Ctrl-Z and Ctrl-\ stay signals. */
static bool
take_keys(struct term *t)
{
    struct termios raw = t->before;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    raw.c_cc[VMIN] = 0;
    raw.c_cc[VTIME] = 0;
    return !t->has_keys || tcsetattr(0, TCSANOW, &raw) == 0;
}

static void
give_keys_back(const struct term *t)
{
    if (t->has_keys)
        (void)tcsetattr(0, TCSANOW, &t->before);
}

bool
term_open(struct term *t)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGWINCH};
    sigset_t set;
    *t = (struct term){.signal_fd = -1, .has_keys = isatty(0) && tcgetattr(0, &t->before) == 0};
    if (t->has_keys && tcgetattr(0, &t->before) != 0)
        return false;
    sigemptyset(&set);
    for (size_t i = 0; i < COUNT_OF(signals); i++)
        sigaddset(&set, signals[i]);
    if (sigprocmask(SIG_BLOCK, &set, &t->mask_before) != 0)
        return false;
    t->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (t->signal_fd < 0 || !take_keys(t)) {
        int err = errno;
        if (t->signal_fd >= 0)
            close(t->signal_fd);
        (void)sigprocmask(SIG_SETMASK, &t->mask_before, NULL);
        errno = err;
        return false;
    }
    say(ENTER);
    return true;
}

void
term_close(struct term *t)
{
    say(LEAVE);
    give_keys_back(t);
    close(t->signal_fd);
    t->signal_fd = -1;
    (void)sigprocmask(SIG_SETMASK, &t->mask_before, NULL);
}

void
term_stop(struct term *t)
{
    say(LEAVE);
    give_keys_back(t);
    (void)raise(SIGSTOP);
    (void)take_keys(t);
    say(ENTER);
}

static enum term_event
event_of(int signo)
{
    switch (signo) {
    case SIGINT: return TERM_QUIT;
    case SIGTSTP: return TERM_STOP;
    case SIGWINCH: return TERM_RESIZE;
    default: return TERM_DIE;
    }
}

/* A terminal that is gone can be read for ever: there is nothing in it. */
static bool
is_hung_up(void)
{
    struct pollfd p = {.fd = 0, .events = POLLIN};
    return poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR | POLLNVAL)) != 0;
}

enum term_event
term_event(struct term *t, int *signo)
{
    struct signalfd_siginfo info;
    char key = 0;
    if (read(t->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        *signo = (int)info.ssi_signo;
        return event_of(*signo);
    }
    if (!t->has_keys)
        return TERM_NOTHING;
    ssize_t n = read(0, &key, 1);
    if (n <= 0 && is_hung_up()) {
        *signo = SIGHUP;
        return TERM_DIE;
    }
    if (n <= 0)
        return TERM_NOTHING;
    return key == 'q' || key == 'Q' || key == 3 ? TERM_QUIT : TERM_KEY;
}

void
term_die(int signo)
{
    sigset_t set;
    (void)signal(signo, SIG_DFL);
    sigemptyset(&set);
    sigaddset(&set, signo);
    (void)sigprocmask(SIG_UNBLOCK, &set, NULL);
    (void)raise(signo);
    _exit(128 + signo); /* the signal was ignored by who started us */
}

int
term_signal_fd(const struct term *t)
{
    return t->signal_fd;
}

int
term_key_fd(const struct term *t)
{
    return t->has_keys ? 0 : -1;
}

void
term_size(size_t *columns, size_t *lines)
{
    struct winsize w = {0};
    bool ok = ioctl(1, TIOCGWINSZ, &w) == 0 && w.ws_col > 0 && w.ws_row > 0;
    *columns = ok ? w.ws_col : 80;
    *lines = ok ? w.ws_row : 24;
}
