/*
 * replay_main: runs a fuzz target over files and folders of inputs, without libFuzzer. An empty or
 * missing corpus is a failure: a replay of nothing proves nothing.
 */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fuzz.h"

static bool
replay_file(const char *path, size_t size)
{
    FILE *f = fopen(path, "rb");
    /* Exactly as large as the input, so that a sanitizer sees the first byte read past it. */
    uint8_t *data = malloc(size > 0 ? size : 1);
    bool ok = f != NULL && data != NULL && fread(data, 1, size, f) == size;
    if (ok)
        ok = LLVMFuzzerTestOneInput(data, size) == 0;
    else
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
    free(data);
    if (f != NULL)
        fclose(f);
    return ok;
}

static long
replay_folder(const char *path)
{
    struct dirent **names = NULL;
    int n = scandir(path, &names, NULL, alphasort);
    if (n < 0) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return -1;
    }
    long done = 0;
    for (int i = 0; i < n; i++) {
        char file[PATH_MAX];
        struct stat st;
        int len = snprintf(file, sizeof(file), "%s/%s", path, names[i]->d_name);
        bool usable = len > 0 && (size_t)len < sizeof(file) && stat(file, &st) == 0;
        if (done >= 0 && usable && S_ISREG(st.st_mode))
            done = replay_file(file, (size_t)st.st_size) ? done + 1 : -1;
        free(names[i]);
    }
    free(names);
    return done;
}

int
main(int argc, char **argv)
{
    long total = 0;
    for (int i = 1; i < argc; i++) {
        struct stat st;
        if (stat(argv[i], &st) != 0) {
            fprintf(stderr, "%s: %s\n", argv[i], strerror(errno));
            return 1;
        }
        long n = S_ISDIR(st.st_mode) ? replay_folder(argv[i])
                                     : (replay_file(argv[i], (size_t)st.st_size) ? 1 : -1);
        if (n < 0)
            return 1;
        total += n;
    }
    printf("%ld inputs replayed\n", total);
    return total > 0 ? 0 : 1;
}
