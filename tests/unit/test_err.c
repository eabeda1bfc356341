#include "base/err.h"
#include "base/check.h"

#include "t.h"

static bool
is_one_of(const char *z, const char *const *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(z, list[i]) == 0)
            return true;
    return false;
}

/* The words of design section 4: users match on them. */
static void
test_every_token_is_a_promised_one(void **state)
{
    (void)state;
    static const char *const promised[] = {"queue_full", "queue_timeout", "max_clients",
        "upstream_connect", "upstream_timeout", "upstream_closed", "bad_request", "too_large",
        "bad_encoding", "draining", "memory", "killed", "user_queue_full", "not_allowed"};
    for (int e = ERR_OK + 1; e < ERR_COUNT; e++)
        T_TRUE(is_one_of(err_info((enum err)e)->token, promised, COUNT_OF(promised)));
}

static void
test_every_row_is_whole(void **state)
{
    (void)state;
    for (int e = ERR_OK + 1; e < ERR_COUNT; e++) {
        const struct err_info *i = err_info((enum err)e);
        T_TRUE(strncmp(i->name, "ERR_", 4) == 0);
        T_TRUE(i->status >= 400 && i->status <= 599);
        T_TRUE(i->code > 0 && i->code_name[0] != '\0' && i->text[0] != '\0');
        /* The text becomes one line of a response and of the log. */
        T_TRUE(strchr(i->text, '\n') == NULL && strchr(i->text, '"') == NULL);
    }
}

static void
test_retry_after_only_where_waiting_helps(void **state)
{
    (void)state;
    for (int e = ERR_OK + 1; e < ERR_COUNT; e++) {
        const struct err_info *i = err_info((enum err)e);
        T_TRUE(i->retry_after_s >= 0);
        if (i->retry_after_s > 0)
            T_EQ(i->status, 503);
    }
    T_TRUE(err_info(ERR_QUEUE_FULL)->retry_after_s > 0);
    T_EQ(err_info(ERR_QUEUE_FULL)->code, 202);
}

static void
test_no_row_for_success(void **state)
{
    (void)state;
    T_ABORTS((void)err_info(ERR_OK));
    T_ABORTS((void)err_info(ERR_COUNT));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_every_token_is_a_promised_one),
        TEST(test_every_row_is_whole),
        TEST(test_retry_after_only_where_waiting_helps),
        TEST(test_no_row_for_success),
    };
    return TEST_MAIN(tests);
}
