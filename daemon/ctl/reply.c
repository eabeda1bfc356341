#include "ctl/reply.h"

#include "ctl/out.h"
#include "ctl/text.h"

#define LINE_MAX_SHOWN 200 /* of an answer that is not JSON */

json_t *
reply_parse(const struct answer *an, char why[ASK_WHY_MAX])
{
    json_error_t e;
    json_t *root = json_loadb(an->body.p, an->body.len, 0, &e);
    if (root == NULL)
        snprintf(why, ASK_WHY_MAX, "the answer is not JSON: %s", e.text);
    else if (!json_is_object(root))
        snprintf(why, ASK_WHY_MAX, "the answer is not what chmuxd says: no JSON object");
    if (json_is_object(root))
        return root;
    json_decref(root);
    return NULL;
}

struct str
reply_string(const json_t *root, const char *key)
{
    const json_t *v = json_object_get(root, key);
    return v == NULL ? STR_NULL : str_n(json_string_value(v), json_string_length(v));
}

void
reply_refusal(const struct answer *an, json_t *root, struct buf *out)
{
    struct str message = reply_string(root, "message"), hint = reply_string(root, "allowed_by");
    struct str text = str_n(an->body.p, an->body.len);
    ssize_t line = str_find(text, '\n');
    if (message.len > 0) {
        bool forbidden = str_eq(reply_string(root, "error"), STR("permission"));
        buf_str(out, message);
        if (hint.len > 0)
            buf_addf(out, "%s" STR_FMT, forbidden ? "; allowed by: " : "; ", STR_ARG(hint));
        return;
    }
    buf_addf(out, "answered %d %s", an->status, http_reason(an->status));
    text.len = line < 0 ? text.len : (size_t)line;
    if (root == NULL && text.len > 0)
        buf_addf(out, ": " STR_FMT, STR_ARG(str_n(text.p, size_min(text.len, LINE_MAX_SHOWN))));
}

enum ask_result
reply_fetch(const struct ask *to, const char *what, json_t **root, char why[ASK_WHY_MAX])
{
    struct answer an;
    char target[128];
    snprintf(target, sizeof target, REPLY_API "%s", what);
    enum ask_result r = ask(to, HTTP_M_GET, target, &an, why);
    if (r != ASK_OK)
        return r;
    *root = reply_parse(&an, why);
    if (an.status != 200) {
        struct buf text, clean;
        buf_init(&text, OUT_MAX);
        buf_init(&clean, OUT_MAX);
        reply_refusal(&an, *root, &text);
        text_clean(&clean, str_n(text.p, text.len));
        snprintf(why, ASK_WHY_MAX, STR_FMT, STR_ARG(str_n(clean.p, clean.len)));
        buf_fini(&clean);
        buf_fini(&text);
        json_decref(*root);
        *root = NULL;
    }
    answer_fini(&an);
    return *root == NULL ? ASK_FAILED : ASK_OK;
}
