#ifndef CHMUX_RT_FILEPRINT_H
#define CHMUX_RT_FILEPRINT_H
/*
 * fileprint: a number that changes when a file does, so that a reload need not replace what is
 * still the same. It is of this process only.
 * Threads    Any; it reads, so it may block: not on the loop after boot.
 */
#include "base/str.h"
#include "base/thread.h"

/* Mixes text, as a value of its own, into print. */
uint64_t fileprint_text(uint64_t print, const char *text) ANY_THREAD;
/* Mixes in what the file holds; of a folder, what its entries are called, how large and how old
 * they are. "" and what cannot be read count as such. */
uint64_t fileprint_path(uint64_t print, const char *path) ANY_THREAD;
#endif
