#include "proxy/users.h"

#include <fcntl.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"

#include "base/no_block.h"

#define SECRET_MAX  16384
#define FIELD_MAX   (SECRET_MAX * 2) /* base64 of name, colon and secret, or a token */
#define PASSWD_ROOM 16384            /* what getpwnam_r() may need */
#define PAIRS_MAX   (2 * CONFIG_MAX_PAIRS)

struct user {
    struct str name;        /* borrowed from names */
    struct str upstream;    /* the same; empty for a token, which says it */
    const char *secret;     /* kind of */
    struct buf credentials; /* a field line; wiped before it is freed */
    bool override, trust;
    struct gate_limits limits;
    struct gate *gate; /* counted */
    uint32_t *uids;    /* owned */
    size_t uid_count;
    struct ch_setting *settings; /* owned; texts in `texts` */
    size_t setting_count;
    struct buf texts; /* of settings; does not move once they point into it */
};

struct users {
    size_t count;
    char *names; /* owned: all of them, each terminated, so that no configuration is borrowed */
    struct user *by_default;
    struct user *by_name[CONFIG_MAX_USER]; /* sorted */
    struct user item[CONFIG_MAX_USER];     /* as in the configuration */
    bool want_uid;
};

/* ---- what is read ---- */

/* Wipes what it holds, too. */
static void
secret_fini(struct buf *b)
{
    if (b->p != NULL)
        explicit_bzero(b->p, b->cap);
    buf_fini(b);
}

/* The whole of a small file. NULL: it is in b; else what is wrong. */
static const char *
read_all(int fd, struct buf *b)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return strerror(errno);
    if (!S_ISREG(st.st_mode))
        return "it is not a regular file";
    while (b->len <= SECRET_MAX) {
        ssize_t n = read(fd, b->p + b->len, SECRET_MAX + 1 - b->len);
        if (n < 0)
            return strerror(errno);
        if (n == 0)
            break;
        b->len += (size_t)n;
    }
    if (b->len > SECRET_MAX)
        return "it is larger than 16 KiB";
    return NULL;
}

/* One newline at the end is an editor's. */
static const char *
trim_secret(struct buf *b, bool token)
{
    if (b->len > 0 && b->p[b->len - 1] == '\n')
        b->len--;
    if (b->len > 0 && b->p[b->len - 1] == '\r')
        b->len--;
    if (b->len == 0)
        return "it is empty";
    for (size_t i = 0; i < b->len; i++) {
        unsigned char c = (unsigned char)b->p[i];
        if (c == '\n' || c == '\r' || c == '\0')
            return "it has more than one line, or a zero byte";
        if (token && (c <= ' ' || c >= 0x7f))
            return "a token has no spaces, control characters or bytes over 126";
    }
    return NULL;
}

/* The secret is in b, which has room for it already, so that no copy of it is left behind. */
static bool
read_secret(
    const char *section, const char *path, bool token, struct buf *b, char *why, size_t why_len)
{
    const char *wrong = "no memory";
    struct stat st;
    int fd = -1;
    if (buf_reserve(b, SECRET_MAX + 1)) {
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        wrong = fd < 0 ? strerror(errno) : read_all(fd, b);
    }
    if (wrong == NULL)
        wrong = trim_secret(b, token);
    if (wrong != NULL)
        snprintf(why, why_len, "[user %s] %s %s: %s", section,
            token ? "token_file" : "password_file", path, wrong);
    else if (fstat(fd, &st) == 0 && (st.st_mode & S_IROTH) != 0)
        LOG_W("secret_readable_by_all user=%s file=\"%s\" hint=\"chmod o-r\"", section, path);
    if (fd >= 0)
        close(fd);
    return wrong == NULL;
}

static bool
load_credentials(
    struct user *u, const struct config_user *cfg, const char *name, char *why, size_t why_len)
{
    struct buf secret, plain;
    bool token = cfg->token_file[0] != '\0';
    const char *path = token ? cfg->token_file : cfg->password_file;
    bool ok = true;
    buf_init(&secret, SECRET_MAX + 1);
    buf_init(&plain, FIELD_MAX);
    u->secret = token ? "token" : path[0] != '\0' ? "password" : "none";
    if (path[0] != '\0')
        ok = read_secret(name, path, token, &secret, why, why_len);
    struct buf *line = &u->credentials;
    if (ok && buf_reserve(&plain, u->upstream.len + 1 + secret.len) &&
        buf_reserve(line, 64 + (u->upstream.len + 1 + secret.len) / 3 * 4)) {
        buf_str(&plain, u->upstream);
        buf_str(&plain, STR(":"));
        buf_add(&plain, secret.p, secret.len);
        buf_str(line, token ? STR("Authorization: Bearer ") : STR("Authorization: Basic "));
        if (token)
            buf_add(line, secret.p, secret.len);
        else
            ch_base64(line, str_n(plain.p, plain.len));
        buf_str(line, STR("\r\n"));
    } else if (ok) {
        snprintf(why, why_len, "[user %s]: no memory", name);
        ok = false;
    }
    secret_fini(&secret);
    secret_fini(&plain);
    return ok;
}

/* A number, or a name of this machine. */
static bool
find_uid(const char *text, uint32_t *uid)
{
    uint64_t n;
    if (str_to_u64(str_of(text), UINT32_MAX - 1, &n)) {
        *uid = (uint32_t)n;
        return true;
    }
    struct passwd pw, *found = NULL;
    char *room = mem_alloc(PASSWD_ROOM);
    if (room == NULL || getpwnam_r(text, &pw, room, PASSWD_ROOM, &found) != 0)
        found = NULL;
    if (found != NULL)
        *uid = found->pw_uid;
    mem_free(room);
    return found != NULL;
}

static bool
load_uids(
    struct user *u, const struct config_user *cfg, const char *name, char *why, size_t why_len)
{
    if (cfg->uids.count == 0)
        return true;
    u->uids = mem_zalloc(cfg->uids.count * sizeof u->uids[0]);
    if (u->uids == NULL) {
        snprintf(why, why_len, "[user %s]: no memory", name);
        return false;
    }
    for (size_t i = 0; i < cfg->uids.count; i++) {
        if (!find_uid(cfg->uids.item[i], &u->uids[u->uid_count++])) {
            snprintf(why, why_len, "[user %s] uids: this machine has no user %s", name,
                cfg->uids.item[i]);
            return false;
        }
    }
    return true;
}

/* Texts first, spans into them when they move no more. */
static void
put_texts(struct user *u, const struct config_pairs *pairs, size_t at[PAIRS_MAX], size_t *count)
{
    for (size_t i = 0; i < pairs->count; i++) {
        at[(*count)++] = u->texts.len;
        ch_setting_pair(&u->texts, str_of(pairs->item[i].name), str_of(pairs->item[i].value));
    }
}

static bool
load_settings(struct user *u, const struct config_user *cfg)
{
    size_t at[PAIRS_MAX], count = 0;
    put_texts(u, &cfg->set, at, &count);
    put_texts(u, &cfg->preset, at, &count);
    if (count == 0)
        return true;
    u->settings = mem_zalloc(count * sizeof u->settings[0]);
    if (u->settings == NULL || !buf_ok(&u->texts))
        return false;
    for (size_t i = 0; i < count; i++) {
        size_t end = i + 1 < count ? at[i + 1] : u->texts.len;
        struct str pair = str_n(u->texts.p + at[i], end - at[i]);
        struct str name = str_n(pair.p, (size_t)str_find(pair, '='));
        bool known = false; /* set.X and default.X: set wins, it stands first */
        for (size_t k = 0; k < u->setting_count && !known; k++)
            known = str_eq(u->settings[k].name, name);
        if (!known)
            u->settings[u->setting_count++] =
                (struct ch_setting){.name = name, .pair = pair, .forced = i < cfg->set.count};
    }
    return true;
}

/* ---- a generation ---- */

static int
compare_names(struct str a, struct str b)
{
    int r = memcmp(a.p, b.p, size_min(a.len, b.len));
    if (r != 0)
        return r;
    return a.len == b.len ? 0 : a.len < b.len ? -1 : 1;
}

static int
compare_users(const void *a, const void *b)
{
    const struct user *const *x = a, *const *y = b;
    return compare_names((*x)->name, (*y)->name);
}

static struct user *
find_user(const struct users *us, struct str name)
{
    size_t low = 0, high = us->count;
    while (low < high) {
        size_t mid = (low + high) / 2;
        int r = compare_names(name, us->by_name[mid]->name);
        if (r == 0)
            return us->by_name[mid];
        if (r < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return NULL;
}

/* Copies every name that users keep. */
static bool
copy_names(struct users *us, const struct config *cfg)
{
    size_t bytes = 1;
    for (size_t i = 0; i < us->count; i++)
        bytes += strlen(cfg->user_name[i]) + strlen(cfg->user[i].upstream_user);
    us->names = mem_alloc(bytes);
    if (us->names == NULL)
        return false;
    char *p = us->names;
    for (size_t i = 0; i < us->count; i++) {
        struct user *u = &us->item[i];
        const struct config_user *cu = &cfg->user[i];
        size_t len = strlen(cfg->user_name[i]), up_len = strlen(cu->upstream_user);
        memcpy(p, cfg->user_name[i], len);
        u->name = u->upstream = str_n(p, len);
        p += len;
        memcpy(p, cu->upstream_user, up_len);
        if (up_len > 0)
            u->upstream = str_n(p, up_len);
        if (cu->token_file[0] != '\0')
            u->upstream = STR("");
        p += up_len;
    }
    return true;
}

static bool
load_user(
    struct user *u, const struct config_user *cfg, const char *name, char *why, size_t why_len)
{
    buf_init(&u->credentials, FIELD_MAX);
    buf_init(&u->texts, CONFIG_MAX_PAIRS * (size_t)32768);
    u->override = cfg->override;
    u->trust = cfg->local_auth == LOCAL_AUTH_TRUST;
    u->limits = (struct gate_limits){
        .max_in_flight = (size_t)cfg->max_in_flight, .queue_share = (unsigned)cfg->queue_share};
    snprintf(why, why_len, "[user %s]: no memory", name);
    u->gate = gate_new();
    return u->gate != NULL && load_settings(u, cfg) && load_uids(u, cfg, name, why, why_len) &&
           load_credentials(u, cfg, name, why, why_len);
}

struct users *
users_new(const struct config *cfg, char *why, size_t why_len)
{
    struct users *us = mem_zalloc(sizeof *us);
    snprintf(why, why_len, "no memory for [user NAME] sections");
    if (us == NULL)
        return NULL;
    us->count = cfg->user_count;
    if (!copy_names(us, cfg))
        goto fail;
    for (size_t i = 0; i < us->count; i++) {
        us->by_name[i] = &us->item[i];
        if (!load_user(&us->item[i], &cfg->user[i], cfg->user_name[i], why, why_len))
            goto fail;
        us->want_uid = us->want_uid || us->item[i].uid_count > 0;
    }
    if (us->count > 0)
        qsort(us->by_name, us->count, sizeof us->by_name[0], compare_users);
    us->by_default = find_user(us, str_of(cfg->chmux.default_user));
    return us;
fail:
    users_free(&us);
    return NULL;
}

void
users_free(struct users **up)
{
    struct users *us = *up;
    *up = NULL;
    if (us == NULL)
        return;
    for (size_t i = 0; i < us->count; i++) {
        struct user *u = &us->item[i];
        secret_fini(&u->credentials);
        buf_fini(&u->texts);
        gate_unref(&u->gate);
        mem_free(u->settings);
        mem_free(u->uids);
    }
    mem_free(us->names);
    mem_free(us);
}

void
users_take_over(struct users *now, struct users *before, struct gates *gates)
{
    for (size_t i = 0; i < now->count; i++) {
        struct user *u = &now->item[i];
        struct user *same = before == NULL ? NULL : find_user(before, u->name);
        if (same == NULL) {
            gate_open(u->gate, gates, &u->limits);
            continue;
        }
        gate_unref(&u->gate);
        u->gate = gate_ref(same->gate);
        gate_set_limits(u->gate, &u->limits);
    }
}

/* ---- whose a request is ---- */

static bool
has_uid(const struct user *u, int64_t uid)
{
    for (size_t i = 0; i < u->uid_count && uid >= 0; i++)
        if (u->uids[i] == uid)
            return true;
    return false;
}

/* Whom the connection is given. */
static const struct user *
user_of_connection(const struct users *us, const struct users_asked *a, enum metric_id *counter)
{
    *counter = M_CREDENTIALS_UID;
    for (size_t i = 0; i < us->count && us->want_uid; i++)
        if (has_uid(&us->item[i], a->uid))
            return &us->item[i];
    if (a->foreign)
        return NULL;
    bool listener = a->of_listener != NULL && a->of_listener[0] != '\0';
    *counter = listener ? M_CREDENTIALS_LISTENER : M_CREDENTIALS_DEFAULT;
    return listener ? find_user(us, str_of(a->of_listener)) : us->by_default;
}

void
users_find(const struct users *us, const struct users_asked *a, struct users_given *out)
{
    enum metric_id counter;
    struct str name = str_n(a->ch->user, a->ch->user_len);
    const struct user *given = user_of_connection(us, a, &counter);
    const struct user *named = find_user(us, name);
    *out = (struct users_given){.user = given, .replace = true, .counter = counter};
    if (given != NULL && given->override)
        return;
    switch (ch_claim_of(a->req)) {
    case CH_CLAIM_OWN: *out = (struct users_given){.user = named}; return;
    case CH_CLAIM_NAME:
        if (named != NULL &&
            (named == given || (named->trust && !a->foreign) || has_uid(named, a->uid))) {
            *out = (struct users_given){named, true, M_CREDENTIALS_NAME};
            return;
        }
        if (!str_eq(name, STR("default"))) {
            *out = (struct users_given){.user = named};
            return;
        }
        break;
    case CH_CLAIM_NONE: break;
    }
    if (given == NULL)
        *out = (struct users_given){.user = named};
}

bool
users_want_uid(const struct users *us)
{
    return us->want_uid;
}

bool
users_is_empty(const struct users *us)
{
    return us->count == 0;
}

struct str
user_name(const struct user *u)
{
    return u->name;
}

struct str
user_credentials(const struct user *u)
{
    return str_n(u->credentials.p, u->credentials.len);
}

const struct ch_setting *
user_settings(const struct user *u, size_t *count)
{
    *count = u->setting_count;
    return u->settings;
}

struct gate *
user_gate(const struct user *u)
{
    return u->gate;
}

bool
users_view(const struct users *us, size_t i, struct user_view *out)
{
    if (i >= us->count)
        return false;
    const struct user *u = &us->item[i];
    *out = (struct user_view){.name = u->name, .upstream_user = u->upstream, .secret = u->secret};
    gate_view(u->gate, &out->gate);
    return true;
}
