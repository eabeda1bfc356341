#ifndef CHMUX_CTL_OUT_H
#define CHMUX_CTL_OUT_H
/*
 * out: stdout and stderr.
 */
#include "base/buf.h"

#define OUT_MAX (256u << 20) /* of one text */

/* Writes b to stdout and empties it. false: it could not be written, or b had failed; it is said
 * why. */
MUST_USE bool out_print(struct buf *b);
/* One line for stderr, made harmless. */
void out_complain(struct str text);
#endif
