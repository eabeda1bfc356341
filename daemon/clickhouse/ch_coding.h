#ifndef CHMUX_CLICKHOUSE_CH_CODING_H
#define CHMUX_CLICKHOUSE_CH_CODING_H
/*
 * ch_coding: what a request says about compression, and how to say something else to ClickHouse.
 * Sans-I/O. Facts: docs/HTTP.md (compression).
 *
 * Ownership  Spans borrow the request.
 */
#include "clickhouse/ch.h"
#include "codec/codec.h"

/* Set of codecs: bit 1 << id. */
typedef unsigned codec_set;
#define CODEC_BIT(id) (1u << (id))

/* Of one request. */
struct ch_coding {
    /* Content-Encoding: CODEC_IDENTITY without one; CODEC_COUNT: one we do not know, a list, a
     * second field, or "identity" spelled out (ClickHouse refuses it: not ours to mend). An empty
     * field is none. */
    enum codec_id body;
    bool body_blocks; /* decompress=1 or true */
    /* Accept-Encoding, as 26.x reads it: names in any case and order, "*" is all of ours that are
     * not named, only q=0 (q=0.0, q=0.000) takes one away, of two with one name the first counts,
     * and so does the first of two fields. */
    bool has_accept; /* there is such a field, be it empty */
    codec_set accepts;
    bool refuses_identity; /* identity;q=0, or *;q=0 without identity */
    bool answer_blocks;    /* compress=1 or true */
    /* compress or decompress is said in a way that a server refuses or that 18.16 and 26.x read
     * otherwise ("false" is on for 18.16; of two, it takes the first, 26.x the last). The odd one
     * counts as not said; the request is best left as it is. */
    bool odd_blocks;
    bool names_setting; /* enable_http_compression is in the URL: the caller's own will */
    /* X-Chmux-Compression: both unset without the field. */
    bool has_override, bad_override;
    int override_request, override_response; /* -1: not named; else a codec_id */
};
void ch_coding_parse(struct ch_coding *out, const struct http_req *r);

/* X-Chmux-Compression: "zstd" sets both, "off" (= CODEC_IDENTITY) both; or a list "request=zstd,
 * response=off", each at most once. Codecs: off, zstd, lz4, gzip. false: anything else. */
bool ch_override_parse(struct str value, int *request, int *response);

/* The codec that 26.x would choose for this set (its order: zstd, br, lz4, gzip, deflate); identity
 * for an empty one. */
enum codec_id ch_preferred(codec_set accepts);

/* What to change in a target. Decoded parameter names are compared; the first and every further one
 * of a dropped name goes, with its '&'. Paths are left alone; a fragment stays behind. */
struct ch_target_edit {
    bool drop_compress, drop_decompress;
    bool add_compression; /* enable_http_compression=1, in front */
    struct str query_id;  /* query_id=ID in front, if not empty; needs no escaping (a UUID) */
};
/* Appends the edited target. false: it would grow over the URI limit of 18.16 or of 26.x, or its
 * path is not one on which a parameter more changes nothing else: appended as it is. */
bool ch_target_edit(struct buf *out, struct str target, const struct ch_target_edit *e);

/* A request of our own that asks one thing of a server: can this caller have that coding here? A
 * POST of "SELECT 1", coded or plain, with the caller's own credentials exactly as
 * ch_kill_request() takes them. */
struct ch_probe {
    enum codec_id request; /* CODEC_IDENTITY: body is plain */
    struct str body;       /* "SELECT 1" coded so; not looked at for CODEC_IDENTITY */
    /* Empty: no Accept-Encoding, and then 18.16 says its refusal of a coding in plain text; else
     * its refusals of a coding or of the setting come in gzip. */
    struct str accept;
    bool setting; /* enable_http_compression=1 */
};
void ch_probe_request(
    struct buf *out, const struct http_req *r, struct str host, const struct ch_probe *p);
#endif
