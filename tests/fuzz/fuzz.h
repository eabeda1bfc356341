#ifndef CHMUX_TESTS_FUZZ_H
#define CHMUX_TESTS_FUZZ_H
/*
 * fuzz: the one function a fuzz target defines. It may be called any number of times in one
 * process, must not keep state between calls, and returns 0. A broken promise aborts (CHECK).
 */
#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
#endif
