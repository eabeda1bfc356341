#ifndef CHMUX_CTL_TEXT_H
#define CHMUX_CTL_TEXT_H
/*
 * text: words and figures for people: what a server says made harmless, sizes, durations, widths.
 */
#include "base/buf.h"

#define TEXT_FIGURE_MAX 32

/* Appends s with everything a terminal might obey or use to deceive written out: control characters
 * (line ends too), C1 ones, marks that turn or hide text, and bytes that are no UTF-8. */
void text_clean(struct buf *out, struct str s);
/* The same for JSON, which has such characters inside strings only, so that it stays the same JSON:
 * what a JSON parser accepts has no other control character than DEL and C1. */
void text_clean_json(struct buf *out, struct str json);
/* Columns on a terminal, of what text_clean() made; wide characters count as the locale says. */
size_t text_width(struct str clean);
/* Appends as much of one line as fits into so many columns. */
void text_clip(struct buf *out, struct str clean, size_t columns);

/* "512 B", "1.2 MiB" */
void text_size(double bytes, char out[TEXT_FIGURE_MAX]);
/* "50 us", "12.3 ms", "3.4 s", "2m 05s", "3h 04m", "5d 03h" */
void text_duration(double ms, char out[TEXT_FIGURE_MAX]);
/* "12.3", "4.5 k", "1.2 M" */
void text_count(double n, char out[TEXT_FIGURE_MAX]);
/* "2026-11-23 12:34:56Z", of milliseconds since 1970 */
void text_time(double ms, char out[TEXT_FIGURE_MAX]);
#endif
