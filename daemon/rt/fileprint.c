#include "rt/fileprint.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"

/* not on the loop: boot, and the thread that prepares a reload */

#define PART_BYTES ((size_t)8 << 10)
#define FILE_BYTES ((size_t)16 << 20) /* no certificate or secret is larger */

static uint64_t
mix(uint64_t print, const void *p, size_t len)
{
    return hash64(print, str_n(p, len));
}

uint64_t
fileprint_text(uint64_t print, const char *text)
{
    return mix(print, text, strlen(text) + 1); /* "a", "bc" is not "ab", "c" */
}

static uint64_t
print_file(uint64_t print, int fd)
{
    char part[PART_BYTES];
    size_t all = 0;
    while (all < FILE_BYTES) {
        ssize_t n = read(fd, part, sizeof part);
        if (n <= 0)
            break;
        print = mix(print, part, (size_t)n);
        all += (size_t)n;
    }
    return mix(print, &all, sizeof all);
}

/* The sum over the entries does not depend on their order. */
static uint64_t
print_folder(uint64_t print, DIR *dir)
{
    uint64_t sum = 0;
    const struct dirent *e;
    while ((e = readdir(dir)) != NULL) {
        struct stat st;
        if (e->d_name[0] == '.' || fstatat(dirfd(dir), e->d_name, &st, 0) != 0)
            continue;
        const int64_t facts[] = {st.st_size, st.st_mtim.tv_sec, st.st_mtim.tv_nsec};
        sum += mix(fileprint_text(print, e->d_name), facts, sizeof facts);
    }
    return mix(print, &sum, sizeof sum);
}

uint64_t
fileprint_path(uint64_t print, const char *path)
{
    struct stat st;
    print = fileprint_text(print, path);
    if (path[0] == '\0')
        return print;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) != 0) {
        print = fileprint_text(print, "unreadable");
    } else if (S_ISREG(st.st_mode)) {
        print = print_file(print, fd);
    } else if (S_ISDIR(st.st_mode)) {
        DIR *dir = fdopendir(fd);
        if (dir == NULL) {
            close(fd);
            return fileprint_text(print, "unreadable");
        }
        print = print_folder(print, dir);
        closedir(dir); /* and fd */
        return print;
    }
    if (fd >= 0)
        close(fd);
    return print;
}
