#ifndef CHMUX_BASE_ERR_H
#define CHMUX_BASE_ERR_H
/*
 * err: the one table of errors chmux itself reports (err.def). Flow results are enums of their own.
 */
#include "base/base.h"

enum err {
    ERR_OK = 0,
#define X(name, ...) name,
#include "base/err.def"
#undef X
    ERR_COUNT
};

struct err_info {
    const char *name; /* "ERR_NOMEM" */
    int status;
    int retry_after_s; /* 0: none */
    const char *token; /* X-Chmux-Error */
    int code;          /* ClickHouse error number */
    const char *code_name;
    const char *text;
};

/* Static; e != ERR_OK. */
const struct err_info *err_info(enum err e);
#endif
