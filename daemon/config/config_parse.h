#ifndef CHMUX_CONFIG_CONFIG_PARSE_H
#define CHMUX_CONFIG_CONFIG_PARSE_H
/*
 * config_parse: the small languages values are written in, as functions of text alone: numbers with
 * units, URLs, listener addresses. What others may use of it is declared in config.h.
 * Errors: where there is a why, it is one sentence without a full stop, without line ends, and
 * shows no credentials.
 */
#include "config/config.h"

enum config_unit {
    CONFIG_UNIT_OK,
    CONFIG_UNIT_NO_NUMBER, /* does not begin with a digit, or is empty */
    CONFIG_UNIT_MISSING,   /* a bare number that is not 0 */
    CONFIG_UNIT_UNKNOWN,
    CONFIG_UNIT_TOO_LARGE, /* for the type that holds it */
};

MUST_USE enum config_unit config_read_duration(struct str text, int64_t *us);
MUST_USE enum config_unit config_read_size(struct str text, size_t *bytes);

/* What net/addr.h will accept as a place to listen: HOST:PORT with a numeric host or *, [V6]:PORT,
 * unix:/path, unix:@name. */
struct config_address {
    bool is_unix;
    bool is_loopback; /* 127/8, ::1, ::ffff:127/8 or unix */
    uint16_t port;    /* 0 for unix */
};
MUST_USE bool config_parse_address(
    struct str text, struct config_address *out, char *why, size_t why_len);
#endif
