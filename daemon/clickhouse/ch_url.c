#include "clickhouse/ch.h"

#include "clickhouse/ch_private.h"

bool
ch_param_next(struct str *query, struct ch_param *p)
{
    while (query->len > 0) {
        struct str all = *query;
        const char *amp = memchr(all.p, '&', all.len);
        if (amp != NULL) {
            all.len = (size_t)(amp - all.p);
            query->len -= all.len + 1;
            query->p = amp + 1;
        } else {
            query->p += all.len;
            query->len = 0;
        }
        if (all.len == 0)
            continue;
        const char *eq = memchr(all.p, '=', all.len);
        size_t name_len = eq == NULL ? all.len : (size_t)(eq - all.p);
        p->name = str_n(all.p, name_len);
        p->value = eq == NULL ? str_n(all.p + all.len, 0) : str_n(eq + 1, all.len - name_len - 1);
        return true;
    }
    return false;
}

struct str
ch_target_query(struct str target)
{
    ssize_t hash = str_find(target, '#');
    if (hash >= 0)
        target.len = (size_t)hash;
    ssize_t mark = str_find(target, '?');
    if (mark < 0)
        return STR_NULL;
    return str_n(target.p + mark + 1, target.len - (size_t)mark - 1);
}

size_t
ch_url_decode(struct str s, char *out, size_t cap)
{
    /* Most values hold no escape at all, and memchr() finds that out many bytes at a time. */
    if (LIKELY(str_find(s, '%') < 0 && str_find(s, '+') < 0)) {
        if (s.len > 0)
            memcpy(out, s.p, size_min(s.len, cap));
        return s.len;
    }
    size_t len = 0;
    for (int c; (c = ch_url_next(&s)) >= 0; len++)
        if (len < cap)
            out[len] = (char)c;
    return len;
}

bool
ch_url_eq(struct str encoded, const char *lit)
{
    for (; *lit != '\0'; lit++)
        if (ch_url_next(&encoded) != (unsigned char)*lit)
            return false;
    return encoded.len == 0;
}

/* Does the decoded name hold one of the words that mark a secret, whatever the case? The text of a
 * query, and what is put into it, hold what people look for. */
static bool
name_is_secret(struct str name)
{
    static const char *const words[] = {"password", "passwd", "token", "secret", "key"};
    char text[256];
    size_t len = ch_url_decode(name, text, sizeof(text));
    if (len > sizeof(text))
        return true; /* no parameter of ClickHouse is that long: hide what we cannot read */
    struct str all = str_n(text, len);
    if (str_eq(all, STR("query")) || str_starts_nocase(all, STR("param_")))
        return true;
    for (size_t w = 0; w < COUNT_OF(words); w++) {
        struct str word = str_of(words[w]);
        for (size_t at = 0; at + word.len <= len; at++)
            if (str_starts_nocase(str_n(text + at, len - at), word))
                return true;
    }
    return false;
}

/* Copies s while there is room below max, and counts what it would have been. */
static void
mask_copy(struct buf *out, size_t max, size_t *len, struct str s)
{
    for (size_t i = 0; i < s.len && *len <= max; i++) {
        unsigned char c = (unsigned char)s.p[i];
        char hex[4];
        bool control = c < 0x20 || c == 0x7f;
        size_t n = control ? 3 : 1;
        if (*len + n > max) {
            *len = max + 1;
            return;
        }
        if (control)
            snprintf(hex, sizeof(hex), "%%%02X", c);
        buf_add(out, control ? hex : s.p + i, n);
        *len += n;
    }
}

/* The part before '?', without the user:password@ of a target in absolute form. */
static void
mask_path(struct buf *out, size_t max, size_t *len, struct str path)
{
    ssize_t colon = str_find(path, ':');
    if (colon < 0 || path.len < (size_t)colon + 3 || memcmp(path.p + colon, "://", 3) != 0) {
        mask_copy(out, max, len, path);
        return;
    }
    size_t start = (size_t)colon + 3;
    struct str host = str_n(path.p + start, path.len - start);
    ssize_t slash = str_find(host, '/');
    if (slash >= 0)
        host.len = (size_t)slash;
    const char *at = host.len == 0 ? NULL : memrchr(host.p, '@', host.len);
    if (at == NULL) {
        mask_copy(out, max, len, path);
        return;
    }
    mask_copy(out, max, len, str_n(path.p, start));
    mask_copy(out, max, len, STR("***"));
    mask_copy(out, max, len, str_n(at, (size_t)(path.p + path.len - at)));
}

void
ch_mask_target(struct buf *out, struct str target, size_t max)
{
    size_t begin = out->len;
    size_t len = 0;
    ssize_t hash = str_find(target, '#');
    struct str head = str_n(target.p, hash < 0 ? target.len : (size_t)hash);
    ssize_t mark = str_find(head, '?');

    mask_path(out, max, &len, str_n(head.p, mark < 0 ? head.len : (size_t)mark));
    for (size_t at = mark < 0 ? head.len : (size_t)mark; at < head.len && len <= max;) {
        struct str one = str_n(head.p + at + 1, head.len - at - 1);
        ssize_t amp = str_find(one, '&');
        if (amp >= 0)
            one.len = (size_t)amp;
        ssize_t eq = str_find(one, '=');
        mask_copy(out, max, &len, str_n(head.p + at, 1));
        if (eq >= 0 && name_is_secret(str_n(one.p, (size_t)eq))) {
            mask_copy(out, max, &len, str_n(one.p, (size_t)eq + 1));
            mask_copy(out, max, &len, STR("***"));
        } else {
            mask_copy(out, max, &len, one);
        }
        at += 1 + one.len;
    }
    /* A '#' typed raw into a password starts a fragment: what follows may be a secret's tail. */
    if (hash >= 0)
        mask_copy(out, max, &len, STR("#***"));
    if (len > max && buf_ok(out)) {
        out->len = begin + size_min(out->len - begin, max < 3 ? 0 : max - 3);
        buf_add(out, "...", size_min(max, 3));
    }
}
