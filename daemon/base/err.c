#include "base/err.h"

#include "base/check.h"

static const struct err_info infos[ERR_COUNT] = {
    [ERR_OK] = {"ERR_OK", 200, 0, "", 0, "OK", ""},
#define X(e, status, retry, token, code, cname, text)                                              \
    [e] = {#e, status, retry, token, code, cname, text},
#include "base/err.def"
#undef X
};

const struct err_info *
err_info(enum err e)
{
    CHECK(e > ERR_OK && e < ERR_COUNT);
    return &infos[e];
}
