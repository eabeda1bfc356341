/*
 * tls_files: certificates and keys out of files, and what is wrong with those that cannot be used.
 */
#include <openssl/err.h>

#include "net/tls_private.h"

#include "base/no_block.h"

/* "There is nothing of that kind in the file", as the several readers of OpenSSL say it. */
static bool
is_not_found(unsigned long e)
{
    int reason = ERR_GET_REASON(e);
    switch (ERR_GET_LIB(e)) {
    case ERR_LIB_PEM: return reason == PEM_R_NO_START_LINE;
    case ERR_LIB_X509: return reason == X509_R_NO_CERTIFICATE_OR_CRL_FOUND;
    case ERR_LIB_OSSL_DECODER: return reason == ERR_R_UNSUPPORTED;
    default: return false;
    }
}

void
tls_why_file(char *why, size_t why_len, const char *path)
{
    unsigned long e = ERR_peek_error();
    const char *cause = tls_reason(e);
    if (is_not_found(e))
        cause = "not PEM, or not the kind of object wanted here";
    snprintf(why, why_len, "%s: %s", path, cause);
    ERR_clear_error();
}

/* OpenSSL's own would ask on the terminal. arg: set to true, for the message. */
static int
on_passphrase_wanted(char *buf, int size, int writing, void *arg)
{
    (void)buf, (void)size, (void)writing;
    *(bool *)arg = true;
    return -1;
}

bool
tls_given(const char *path)
{
    return path != NULL && path[0] != '\0';
}

bool
tls_use_identity(
    SSL_CTX *ctx, const char *cert_file, const char *key_file, char *why, size_t why_len)
{
    const char *key = tls_given(key_file) ? key_file : cert_file;
    bool encrypted = false;
    SSL_CTX_set_default_passwd_cb(ctx, on_passphrase_wanted);
    SSL_CTX_set_default_passwd_cb_userdata(ctx, &encrypted);
    if (SSL_CTX_use_certificate_chain_file(ctx, cert_file) != 1) {
        tls_why_file(why, why_len, cert_file);
        return false;
    }
    if (SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) == 1 &&
        SSL_CTX_check_private_key(ctx) == 1) {
        SSL_CTX_set_default_passwd_cb_userdata(ctx, NULL);
        return true;
    }
    unsigned long e = ERR_peek_error();
    bool mismatch =
        ERR_GET_LIB(e) == ERR_LIB_X509 && ERR_GET_REASON(e) == X509_R_KEY_VALUES_MISMATCH;
    if (encrypted)
        snprintf(
            why, why_len, "%s: the key is encrypted; chmux needs it without a passphrase", key);
    else if (mismatch)
        snprintf(
            why, why_len, "%s: the key does not belong to the certificate in %s", key, cert_file);
    else
        tls_why_file(why, why_len, key);
    ERR_clear_error();
    return false;
}
