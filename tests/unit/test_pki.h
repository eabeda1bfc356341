#ifndef CHMUX_TESTS_PKI_H
#define CHMUX_TESTS_PKI_H
/*
 * test_pki: certificates, made by OpenSSL in a folder of our own, and OpenSSL's memory made to
 * fail.
 */
#include "t.h"

#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"

static char folder[] = "/tmp/test_tls.XXXXXX";

struct identity {
    EVP_PKEY *key;
    X509 *cert;
};

static inline const char *
path_of(const char *name)
{
    static char paths[8][64];
    static size_t next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
    return path;
}

static inline void
add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    CHECK(e != NULL && X509_add_ext(cert, e, -1) == 1);
    X509_EXTENSION_free(e);
}

/* issuer NULL: signed by itself. san NULL: no names but the common one. */
static inline struct identity
make_identity(
    const struct identity *issuer, const char *name, const char *san, long from_s, long until_s)
{
    static long serial = 1;
    struct identity id = {.key = EVP_EC_gen("P-256"), .cert = X509_new()};
    CHECK(id.key != NULL && id.cert != NULL);
    X509 *signer = issuer == NULL ? id.cert : issuer->cert;
    X509_set_version(id.cert, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(id.cert), serial++);
    X509_gmtime_adj(X509_getm_notBefore(id.cert), from_s);
    X509_gmtime_adj(X509_getm_notAfter(id.cert), until_s);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(id.cert), "CN", MBSTRING_UTF8,
        (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(id.cert, X509_get_subject_name(signer));
    X509_set_pubkey(id.cert, id.key);
    add_extension(id.cert, signer, NID_basic_constraints,
        issuer == NULL && san == NULL ? "critical,CA:TRUE" : "CA:FALSE");
    if (san != NULL)
        add_extension(id.cert, signer, NID_subject_alt_name, san);
    CHECK(X509_sign(id.cert, issuer == NULL ? id.key : issuer->key, EVP_sha256()) > 0);
    return id;
}

static inline void
write_pem(const char *name, const struct identity *cert, const struct identity *key,
    const char *passphrase)
{
    FILE *f = fopen(path_of(name), "w");
    CHECK(f != NULL);
    if (cert != NULL)
        CHECK(PEM_write_X509(f, cert->cert) == 1);
    if (key != NULL)
        CHECK(PEM_write_PrivateKey(f, key->key, passphrase == NULL ? NULL : EVP_aes_128_cbc(),
                  (const unsigned char *)passphrase,
                  passphrase == NULL ? 0 : (int)strlen(passphrase), NULL, NULL) == 1);
    fclose(f);
}

static inline void
write_text(const char *name, const char *text)
{
    FILE *f = fopen(path_of(name), "w");
    CHECK(f != NULL);
    fputs(text, f);
    fclose(f);
}

static inline void
free_identity(struct identity *id)
{
    EVP_PKEY_free(id->key);
    X509_free(id->cert);
}

/* ---- OpenSSL's memory: its n-th allocation from now fails (0: none) ---- */

static uint64_t openssl_fail_at;

static inline bool
openssl_fails(void)
{
    return openssl_fail_at > 0 && --openssl_fail_at == 0;
}

static inline void *
openssl_malloc(size_t n, const char *file, int line)
{
    (void)file, (void)line;
    return openssl_fails() ? NULL : malloc(n);
}

static inline void *
openssl_realloc(void *p, size_t n, const char *file, int line)
{
    (void)file, (void)line;
    return openssl_fails() ? NULL : realloc(p, n);
}

static inline void
openssl_free(void *p, const char *file, int line)
{
    (void)file, (void)line;
    free(p);
}
#endif
