#ifndef CHMUX_PROXY_FOREIGN_H
#define CHMUX_PROXY_FOREIGN_H
/*
 * foreign: may a web page of somebody else be behind a request? Whoever opens a page lets it send
 * requests from his machine, without a secret and with a name in Host that its owner makes point
 * anywhere; so such a request is given nobody's credentials.
 *
 * The rule   Its Origin is not "http://" or "https://" and what Host says; or Sec-Fetch-Site says
 *            cross-site or same-site; or, without TLS, whose certificate would not fit, Host is
 *            neither an IP address, localhost, absent nor one of the names that are known.
 */
#include "config/config.h"
#include "http/http.h"

struct foreign_facts {
    bool tls;
    const struct config_list *names; /* [listen NAME] host_names; NULL: none */
};
/* What says so: "origin", "sec-fetch-site", "host"; NULL: nothing does. */
const char *foreign_why(const struct http_req *r, const struct foreign_facts *f);
#endif
