#ifndef CHMUX_CTL_RUN_H
#define CHMUX_CTL_RUN_H
/*
 * run: carries out what the command line says, and prints the outcome.
 */
#include "ctl/args.h"

enum run_exit { RUN_OK = 0, RUN_FAILED = 1, RUN_USAGE = 2 };

MUST_USE enum run_exit run(const struct args *a);
#endif
