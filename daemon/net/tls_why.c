#include "net/tls.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "net/tls_private.h"

#include "base/no_block.h"

#define NAMES_SHOWN 4

const char *
tls_reason(unsigned long e)
{
    if (e == 0)
        return "unknown reason";
    if (ERR_SYSTEM_ERROR(e))
        return strerror(ERR_GET_REASON(e));
    const char *text = ERR_reason_error_string(e);
    return text == NULL ? "unknown reason" : text;
}

void
tls_text_add(char *text, size_t cap, const char *s, size_t len)
{
    size_t at = strlen(text);
    for (size_t i = 0; i < len && at + 1 < cap; i++) {
        unsigned char c = (unsigned char)s[i];
        text[at++] = c < 0x20 || c == 0x7f ? '?' : (char)c;
    }
    text[at] = '\0';
}

static void
add_general_name(char *text, size_t cap, const GENERAL_NAME *n)
{
    if (n->type == GEN_DNS) {
        tls_text_add(text, cap, (const char *)ASN1_STRING_get0_data(n->d.dNSName),
            (size_t)ASN1_STRING_length(n->d.dNSName));
        return;
    }
    char ip[INET6_ADDRSTRLEN];
    int len = ASN1_STRING_length(n->d.iPAddress);
    const unsigned char *bytes = ASN1_STRING_get0_data(n->d.iPAddress);
    if ((len == 4 || len == 16) &&
        inet_ntop(len == 4 ? AF_INET : AF_INET6, bytes, ip, sizeof(ip)) != NULL)
        tls_text_add(text, cap, ip, strlen(ip));
}

static void
add_common_name(char *text, size_t cap, const X509_NAME *name)
{
    int at = X509_NAME_get_index_by_NID(name, NID_commonName, -1);
    X509_NAME_ENTRY *entry = at < 0 ? NULL : X509_NAME_get_entry(name, at);
    const ASN1_STRING *cn = entry == NULL ? NULL : X509_NAME_ENTRY_get_data(entry);
    if (cn != NULL)
        tls_text_add(
            text, cap, (const char *)ASN1_STRING_get0_data(cn), (size_t)ASN1_STRING_length(cn));
    else
        tls_text_add(text, cap, "someone without a name", strlen("someone without a name"));
}

/* The names a certificate is good for: its DNS and IP entries, or its common name. */
static void
add_names(char *text, size_t cap, X509 *cert)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    int shown = 0;
    for (int i = 0; names != NULL && i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *n = sk_GENERAL_NAME_value(names, i);
        if (n->type != GEN_DNS && n->type != GEN_IPADD)
            continue;
        if (shown > 0)
            tls_text_add(text, cap, ", ", 2);
        if (shown++ == NAMES_SHOWN) {
            tls_text_add(text, cap, "...", 3);
            break;
        }
        add_general_name(text, cap, n);
    }
    GENERAL_NAMES_free(names);
    if (shown == 0)
        add_common_name(text, cap, X509_get_subject_name(cert));
}

void
tls_text_date(char *text, size_t cap, const ASN1_TIME *when)
{
    struct tm tm;
    char date[32];
    if (ASN1_TIME_to_tm(when, &tm) == 1 && strftime(date, sizeof(date), "%Y-%m-%d", &tm) > 0)
        tls_text_add(text, cap, date, strlen(date));
}

/* Keeps what is worth telling of the certificate that was refused: later it is gone. */
int
tls_on_verify(int ok, X509_STORE_CTX *store)
{
    if (ok == 1)
        return 1;
    SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct tls_link *link = OBJ_CAST(struct tls_link, SSL_get_app_data(ssl), TLS_LINK_MAGIC);
    X509 *cert = X509_STORE_CTX_get_current_cert(store);
    if (cert == NULL)
        return 0;
    char *text = link->cert_text;
    size_t cap = sizeof(link->cert_text);
    text[0] = '\0';
    switch (X509_STORE_CTX_get_error(store)) {
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH: add_names(text, cap, cert); break;
    case X509_V_ERR_CERT_HAS_EXPIRED: tls_text_date(text, cap, X509_get0_notAfter(cert)); break;
    case X509_V_ERR_CERT_NOT_YET_VALID: tls_text_date(text, cap, X509_get0_notBefore(cert)); break;
    default: add_common_name(text, cap, X509_get_issuer_name(cert)); break;
    }
    return 0;
}

/* Called only when the server asks for a certificate and the context has none. */
int
tls_on_cert_wanted(SSL *ssl, X509 **cert, EVP_PKEY **key)
{
    (void)cert, (void)key;
    struct tls_link *link = OBJ_CAST(struct tls_link, SSL_get_app_data(ssl), TLS_LINK_MAGIC);
    link->cert_wanted = true;
    return 0; /* go on without: it may be optional */
}

/* Looks at the first record header from the server, then takes itself off. OpenSSL throws away what
 * is no record, and that is what the user should be told of. */
void
tls_on_message(
    int is_write, int version, int content_type, const void *bytes, size_t len, SSL *ssl, void *arg)
{
    (void)version, (void)arg;
    if (is_write || content_type != SSL3_RT_HEADER)
        return;
    struct tls_link *link = OBJ_CAST(struct tls_link, SSL_get_app_data(ssl), TLS_LINK_MAGIC);
    link->answered_http = len >= 5 && memcmp(bytes, "HTTP/", 5) == 0;
    SSL_set_msg_callback(ssl, NULL);
}

static void
why_verify(const struct tls_link *link, long result, const char *server_name, char *out, size_t len)
{
    const char *text = link->cert_text;
    switch (result) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
        snprintf(out, len, "certificate has expired (on %s)", text);
        break;
    case X509_V_ERR_CERT_NOT_YET_VALID:
        snprintf(out, len, "certificate is not valid before %s; is the clock right?", text);
        break;
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
        snprintf(out, len, TLS_WRONG_NAME "%s, not for %s", text, server_name);
        break;
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
        snprintf(out, len, "unknown issuer (self-signed certificate); see tls_ca_file");
        break;
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
        snprintf(out, len,
            "unknown issuer (self-signed certificate in chain, by %s); see tls_ca_file", text);
        break;
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
        snprintf(out, len, "unknown issuer (%s); see tls_ca_file", text);
        break;
    default:
        snprintf(out, len, "certificate not trusted: %s", X509_verify_cert_error_string(result));
        break;
    }
}

/* What an alert of the server, or a finding of our side, means to a user; NULL: nothing special. */
static const char *
why_reason(const struct tls_link *link, int reason)
{
    switch (reason) {
    case SSL_R_WRONG_VERSION_NUMBER:
        return link->answered_http ? "the server speaks plain HTTP; use http://"
                                   : "the server does not speak TLS on this port";
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_NO_PROTOCOLS_AVAILABLE:
    case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION: return "no common TLS version; see tls_min_version";
    case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
        return "the server wants a client certificate; see tls_cert_file";
    case SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE:
        return link->cert_wanted ? "the server wants a client certificate; see tls_cert_file"
                                 : "the server found no common TLS parameters (cipher or curve)";
    case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
    case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
    case SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE:
    case SSL_R_TLSV1_ALERT_ACCESS_DENIED:
        return link->has_cert ? "the server does not accept our client certificate"
                              : "the server wants a client certificate; see tls_cert_file";
    case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED: return "our client certificate has expired";
    case SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED: return "our client certificate was revoked";
    case SSL_R_TLSV1_UNRECOGNIZED_NAME:
        return "the server does not know this name; see tls_server_name";
    case SSL_R_UNEXPECTED_EOF_WHILE_READING: return "handshake cut by the server";
    default: return NULL;
    }
}

static void
why_queue(const struct tls_link *link, unsigned long e, char *out, size_t len)
{
    const char *text = ERR_GET_LIB(e) == ERR_LIB_SSL ? why_reason(link, ERR_GET_REASON(e)) : NULL;
    if (text != NULL)
        snprintf(out, len, "%s", text);
    else
        snprintf(out, len, "TLS: %s", tls_reason(e));
}

void
tls_why(SSL *s, int io_result, int sys_errno, const char *server_name, char *out, size_t out_len)
{
    if (SSL_is_server(s)) {
        tls_server_why(s, io_result, sys_errno, out, out_len);
        return;
    }
    const struct tls_link *link = OBJ_CAST(struct tls_link, SSL_get_app_data(s), TLS_LINK_MAGIC);
    int kind = SSL_get_error(s, io_result); /* reads the queue, so before it is emptied */
    unsigned long e = ERR_peek_error();
    long verified = SSL_get_verify_result(s);

    if (verified != X509_V_OK && SSL_get_verify_mode(s) != SSL_VERIFY_NONE)
        why_verify(link, verified, server_name, out, out_len);
    else if (e != 0)
        why_queue(link, e, out, out_len);
    else if (kind == SSL_ERROR_SYSCALL && sys_errno != 0 && sys_errno != ECONNRESET)
        snprintf(out, out_len, "%s", strerror(sys_errno));
    else
        snprintf(out, out_len, "handshake cut by the server");
    ERR_clear_error();
}
