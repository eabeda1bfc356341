#ifndef CHMUX_CTL_TERM_H
#define CHMUX_CTL_TERM_H
/*
 * term: the terminal while a live view has it: a screen of its own, keys as they are typed, signals
 * as events, and everything as it was when it ends.
 *
 * While it is open SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP and SIGWINCH come from term_event()
 * only, so no code is interrupted in the middle.
 */
#include <signal.h>
#include <termios.h>

#include "base/buf.h"

struct term { /* fields are the terminal's */
    int signal_fd;
    bool has_keys; /* stdin is a terminal too */
    struct termios before;
    sigset_t mask_before;
};

enum term_event {
    TERM_NOTHING, /* no event */
    TERM_QUIT,    /* q, Ctrl-C */
    TERM_KEY,     /* any other key */
    TERM_RESIZE,
    TERM_STOP, /* Ctrl-Z */
    TERM_DIE,  /* told to end: term_close(), then term_die() */
};

/* false: errno says why; nothing has changed. */
MUST_USE bool term_open(struct term *t);
void term_close(struct term *t);
/* Gives the terminal back, stops this process, and takes the terminal again when it goes on. */
void term_stop(struct term *t);
/* What has happened, if anything; never waits. *signo is set for TERM_DIE. */
enum term_event term_event(struct term *t, int *signo);
/* Ends this process by the signal, as it would have ended without us. */
NO_RETURN void term_die(int signo);
/* Readable when there may be an event; -1: none. */
int term_signal_fd(const struct term *t);
int term_key_fd(const struct term *t);
/* Of now; 80x24 where the terminal does not say. */
void term_size(size_t *columns, size_t *lines);
#endif
