/*
 * fileprint: the number changes when a file or a folder does, and only then.
 */
#include <fcntl.h>
#include <sys/stat.h>

#include "base/hash.h"
#include "rt/fileprint.h"
#include "t.h"

static char folder[] = "/tmp/chmux-fileprint-XXXXXX";
static char path[64];

static void
put(const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    T_TRUE(fd >= 0);
    T_EQ(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static void
test_texts_do_not_run_together(void **state)
{
    (void)state;
    uint64_t one = fileprint_text(fileprint_text(0, "a"), "bc");
    T_TRUE(one != fileprint_text(fileprint_text(0, "ab"), "c"));
    T_EQ(one, fileprint_text(fileprint_text(0, "a"), "bc"));
}

static void
test_a_file_by_what_it_holds(void **state)
{
    (void)state;
    unlink(path);
    uint64_t none = fileprint_path(0, path);
    put("one");
    uint64_t one = fileprint_path(0, path);
    T_TRUE(one != none);
    put("two");
    T_TRUE(fileprint_path(0, path) != one);
    put("one"); /* newer, but the same */
    T_EQ(fileprint_path(0, path), one);
    put("onee");
    T_TRUE(fileprint_path(0, path) != one);
}

static void
test_a_folder_by_its_entries(void **state)
{
    (void)state;
    unlink(path);
    uint64_t empty = fileprint_path(0, folder);
    put("one");
    uint64_t one = fileprint_path(0, folder);
    T_TRUE(one != empty);
    T_EQ(fileprint_path(0, folder), one);
    struct timespec old[2] = {{.tv_sec = 1}, {.tv_sec = 1}};
    T_EQ(utimensat(AT_FDCWD, path, old, 0), 0);
    T_TRUE(fileprint_path(0, folder) != one);
    unlink(path);
    T_EQ(fileprint_path(0, folder), empty);
}

int
main(void)
{
    random_init();
    T_TRUE(mkdtemp(folder) != NULL);
    snprintf(path, sizeof path, "%s/f", folder);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts_do_not_run_together),
        cmocka_unit_test(test_a_file_by_what_it_holds),
        cmocka_unit_test(test_a_folder_by_its_entries),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    rmdir(folder);
    return failed;
}
