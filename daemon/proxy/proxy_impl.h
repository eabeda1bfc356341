#ifndef CHMUX_PROXY_PROXY_IMPL_H
#define CHMUX_PROXY_PROXY_IMPL_H
/*
 * proxy_impl: the objects of the proxy layer, shared by its files and nobody else.
 *
 *   proxy     listeners, drain, the lists
 *   client    a local connection: reads heads, one exchange at a time, keep-alive, farewell
 *   shake     TLS handshakes with clients
 *   upstream  what belongs to one [upstream] section: its pool, its sessions, its caps
 *   exchange  one request's life, tied to at most one lease
 *   session   requests of one session_id, one after another, on one address
 *   errand    a small request of our own on a lease
 *   kill      KILL QUERY for a query whose client left: an errand
 *   caps      what codings each server allows each user, learned by errands
 *   recode    the compression policy of one exchange, and its pipes
 *   errors    the last errors, kept to be shown
 */
#include "base/err.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metric.h"
#include "clickhouse/ch_coding.h"
#include "http/http.h"
#include "net/tls_server.h"
#include "net/tube.h"
#include "proxy/proxy_view.h"
#include "proxy/users.h"
#include "rt/pipe.h"

struct caps;
struct exchange;
struct recode;
struct session;
struct sessions;

/* ---- errors ---- */

#define ERRORS_KEPT 128

struct error_entry { /* texts are terminated, and cut to fit */
    struct mono at;
    const char *token;    /* X-Chmux-Error, or a word of our own; static */
    const char *upstream; /* its name; lives as long as the proxy */
    int status, code;     /* 0: none */
    uint64_t exchange, client, times;
    char user[64], query_id[64], detail[192];
    char peer[ADDR_TEXT_MAX]; /* of the client; "": of none */
};

struct errors { /* a ring: entry[count % ERRORS_KEPT] is the next to be written */
    struct error_entry entry[ERRORS_KEPT];
    uint64_t count;
};

/* Keeps e, whose texts are filled by the two calls below. What repeats the newest entry only makes
 * that one newer and counts there, so that a storm does not push everything else out. */
void errors_note(struct errors *r, const struct error_entry *e) LOOP_ONLY;
/* An error of this request: one that chmux makes, one that ClickHouse told (code), ... */
void ex_note_error(struct exchange *ex, const char *token, int status, int code, const char *detail)
    LOOP_ONLY;

#define DOOR_NAME_MAX 63
/* Those that a reload has closed keep their place as long as a client that came in by them is here.
 */
#define DOORS_MAX (2 * CONFIG_MAX_LISTEN)

/* The TLS of a listener. */
struct door_tls {
    struct tls_server *server; /* shares; NULL: plain HTTP */
    uint64_t print;            /* of the files and options it was made of */
};

/* Who may come in by it, and as whom. */
struct door_policy {
    char user[64];      /* the [user NAME] of those who bring no credentials; "": none */
    size_t allow_count; /* 0: whoever reaches it */
    struct ip_net allow[CONFIG_MAX_NETS];
};

/* A listener, and what holds for those who come in by it. */
struct door {
    struct proxy *px;
    struct listener listener;
    char name[DOOR_NAME_MAX + 1]; /* of its section, or of the passed socket; cut to fit */
    struct door_tls tls;          /* clients keep the one they met */
    struct door_policy policy;
};

/* TLS handshakes under way. */
struct shakes {
    struct list ready;      /* clients whose socket woke, oldest first */
    struct list waiting;    /* those who wait until fewer are running */
    size_t running, queued; /* queued: on waiting */
    struct loop_task task;
};

/* ---- upstream ---- */

/* What belongs to one [upstream] section. */
struct upstream {
    struct proxy *px;
    const struct config_upstream *cfg; /* borrowed */
    struct upool *pool;                /* borrowed */
    unsigned metrics;                  /* the set they are counted in */
    struct sessions *sessions;         /* owned */
    struct caps *caps;                 /* owned; NULL until compression is asked for */
    size_t kill_count;
    size_t gate_queued; /* requests for it that wait for others of their user */
};

struct proxy {
    struct loop *loop;
    const struct config *cfg;
    struct upstream upstreams[CONFIG_MAX_UPSTREAM]; /* as in cfg: the first is the default */
    size_t upstream_count;
    struct workers *workers;
    struct users *users;
    struct gates gates;
    struct door doors[DOORS_MAX]; /* the first door_count; one without a descriptor is closed */
    size_t door_count;
    struct shakes shakes;
    struct list clients;
    size_t client_count;
    struct list exchanges; /* that run, oldest first */
    struct errors errors;
    struct list starved; /* exchanges that wait for memory */
    struct tubes tubes;
    struct timer starved_timer;
    struct list spare; /* exchanges to use again */
    size_t spare_count;
    struct mono withheld_told; /* when credentials_withheld was last logged */
    struct list kills;         /* KILL QUERY requests under way */
    size_t kill_count;
    struct http_req req;                                /* scratch: the head being parsed */
    struct buf busy_reply, nomem_reply, stranger_reply; /* made at boot: telling needs no memory */
    char keep_alive_lines[80];
    size_t keep_alive_len;
    bool draining, listening;
    struct timer drain_timer, quiet_timer;
    struct notify *keeper; /* borrowed; NULL: nobody keeps clients for the next process */
    size_t keep_left;
    loop_fn drain_done;
    void *drain_arg;
    struct loop_task drain_task;
    uint64_t next_client_id, next_exchange_id;
};

/* What one too many is told in its own language. */
struct str door_busy_reply(const struct proxy *px, const struct door *d) LOOP_ONLY;
/* The same for who may not come in. */
struct str door_stranger_reply(const struct proxy *px, const struct door *d) LOOP_ONLY;
/* What its section says now; NULL: it has none. */
const struct config_listen *door_section(const struct door *d) LOOP_ONLY;
/* May this peer come in by it? NULL: by none of ours, see struct client. */
bool door_allows(const struct door *d, const struct addr *peer) LOOP_ONLY;
/* Everything in the plan is in force from now on. Has any listener got another TLS? */
bool proxy_take_plan(struct proxy *px, struct proxy_plan *plan) LOOP_ONLY;
/* A place for one more, closed yet. NULL: why. */
struct door *door_place(struct proxy *px, char *why, size_t why_len) LOOP_ONLY;
void door_set_name(struct door *d, const char *name) LOOP_ONLY;
/* Opens what the i-th [listen] section of cfg says, which has an address. */
MUST_USE bool door_open(struct proxy *px, struct door *d, const struct config *cfg, size_t i,
    char *why, size_t why_len) LOOP_ONLY;
/* Accepts from now on. */
MUST_USE bool door_start(struct door *d) LOOP_ONLY;
/* Who may use the pool is decided by who reaches the socket, however it came to be. */
MUST_USE bool door_may_be(const struct config *cfg, const struct addr *a, char *why, size_t why_len)
    LOOP_ONLY;
/* Was it only that the machine has no IPv6, or no IPv4? Then one of the built-in pair may lack. */
bool door_may_lack(const struct door *d, const struct config *cfg, size_t i) LOOP_ONLY;
/* Puts the listeners of the plan in force: opened, closed, with other names. */
void doors_commit(struct proxy *px, struct proxy_plan *plan) LOOP_ONLY;
void door_tls_fini(struct door_tls *t) LOOP_ONLY;
/* Something ended: if the drain waited for it, say so. */
void proxy_check_drained(struct proxy *px) LOOP_ONLY;

/* ---- client ---- */

enum client_state {
    CLIENT_SHAKING, /* TLS is not up yet */
    CLIENT_IDLE,    /* between requests, or inside a head */
    CLIENT_BUSY,    /* an exchange runs */
    CLIENT_LINGER,  /* answered and shut down; reads what still comes, so that no reset eats the
                       answer */
    CLIENT_CUTTING, /* answered in part; a reset follows once that has arrived */
    CLIENT_CLOSED,
};

#define CLIENT_MAGIC 0x636c6e74u

struct client {
    uint32_t magic;
    enum client_state state;
    struct proxy *px;
    const struct door *door; /* that it came in by; NULL: none of ours, in another process */
    struct exchange *ex;     /* owned while BUSY */
    struct conn conn;
    struct timer timer; /* head, idle, linger; lent to the exchange while BUSY */
    struct list link;
    struct loop_task task; /* go on reading, or free */
    struct buf in;         /* read and not used yet: part of a head, or what follows a request */
    size_t in_scanned;
    uint64_t id, served, peer_key;
    union { /* of a TCP client; the kernel forgets it with a reset */
        struct sockaddr sa;
        struct sockaddr_in in4;
        struct sockaddr_in6 in6;
    } peer;
    struct mono since;
    int64_t linger_left;
    struct mono unsent_since; /* CLIENT_CUTTING: so many bytes since then */
    size_t unsent;
    struct tls_server *tls; /* shares; NULL: plain */
    struct tls_peer *cert;  /* owned; NULL: it showed no certificate */
    struct list shake_link;
    bool shaking;      /* one of those that run */
    bool shake_queued; /* one of those that wait */
    bool patient;      /* lingers for longer, once */
    uid_t uid;         /* see client_uid() */
    bool uid_known;
    bool is_unix;
    bool keep; /* draining, and the manager is to keep it for the next process */
};

/* Takes fd. door may be NULL, see struct client. */
void client_accept(struct proxy *px, const struct door *door, int fd, const struct addr *peer)
    LOOP_ONLY;
enum farewell {
    FAREWELL_KEEP,   /* the connection may serve another request */
    FAREWELL_CLOSE,  /* all that the client sent was read */
    FAREWELL_LINGER, /* the client may still be sending */
    FAREWELL_CUT,    /* what it got must not look whole, but arrive */
    FAREWELL_RESET,  /* what it got must not look whole, and nobody waits for it */
    FAREWELL_GONE,   /* it left */
};
/* The exchange is over and its answer is flushed. *rest: unused bytes behind the request (taken,
 * nulled); may be NULL. */
void client_exchange_done(struct client *c, struct blk **rest, enum farewell how) LOOP_ONLY;
/* Closes now, whatever runs. */
void client_close(struct client *c) LOOP_ONLY;
/* Draining: if no request runs and no head has begun, it is left to the next process at once, or
 * closed after drain_idle, unless it speaks until then. Closing at once would reset a request that
 * is on its way to us. */
void client_leave_soon(struct client *c) LOOP_ONLY;
/* The TLS handshake is done. */
void client_secured(struct client *c) LOOP_ONLY;
/* What came first is no TLS: tells so in words, and closes. */
void client_refuse_plain(struct client *c, char first) LOOP_ONLY;
/* Ends the connection so that the peer gets all that was written. */
void client_linger(struct client *c) LOOP_ONLY;
/* The common name of the client's verified certificate; empty: none, or none fit to be compared. */
static inline struct str
client_cert_cn(const struct client *c)
{
    return c->cert == NULL ? STR("") : str_of(c->cert->cn);
}
/* "127.0.0.1:40000", "unix:uid=33", "unix". */
void client_peer(struct client *c, char out[ADDR_TEXT_MAX]) LOOP_ONLY;
/* Of a unix peer, as it connected; -1: it is none, or not known. */
int64_t client_uid(struct client *c) LOOP_ONLY;
/* Whose turn a request of this client counts as. */
uint64_t client_flow_key(struct client *c, struct str user) LOOP_ONLY;

/* ---- shake ---- */

void shakes_init(struct shakes *s);
/* The socket of a client in handshake woke; c may be closed on return. */
void shake_on_stream(struct client *c) LOOP_ONLY;
/* It took too long. */
void shake_on_timer(struct client *c) LOOP_ONLY;
/* The client goes: another one may have its turn. */
void shake_leave(struct client *c) LOOP_ONLY;

/* ---- exchange ---- */

/* state, successors, what ends it */
#define EX_STATES(X)                                                                               \
    X(QUEUED, TO(PROBING) | TO(SENDING) | TO(REPLYING) | TO(DONE))                                 \
    /* waits for its session or a lease */                                                         \
    X(PROBING, TO(QUEUED) | TO(SENDING) | TO(REPLYING) | TO(DONE))                                 \
    /* has a lease, and first asks the server which codings it allows */                           \
    X(SENDING, TO(QUEUED) | TO(RECEIVING) | TO(REPLYING) | TO(FLUSHING) | TO(DONE))                \
    /* request streams up, the response may have begun; QUEUED again: retry */                     \
    X(RECEIVING, TO(QUEUED) | TO(SENDING) | TO(REPLYING) | TO(FLUSHING) | TO(DONE))                \
    /* request sent whole; response streams down; SENDING again: a tunnel began */                 \
    X(FLUSHING, TO(REPLYING) | TO(DONE))                                                           \
    /* the lease is gone; what was received goes to the client. REPLYING: nothing of it could be   \
       decoded */                                                                                  \
    X(REPLYING, TO(DONE))                                                                          \
    /* an error of our own goes to the client */                                                   \
    X(DONE, 0)

enum ex_state {
#define X(name, next) EX_##name,
    EX_STATES(X)
#undef X
};

enum ex_phase { PHASE_STATUS, PHASE_FIELDS, PHASE_BODY, PHASE_END }; /* of the response */

#define EXCHANGE_MAGIC 0x65786368u

/*
 * Two streams, each "source, framing check, sink". They copy nothing: the bytes of a block are
 * checked in place and written from there. Where a body is recoded (rc), a pipe stands between
 * framing check and sink, and the sink frames anew.
 *
 *   up    client (or what came with the head) -> up_body -> [rc->up] -> upstream, after the head
 *   down  upstream -> response head, then down_body -> [rc->down] -> client
 */
struct exchange {
    uint32_t magic;
    enum ex_state state;
    struct client *client;
    struct proxy *px;
    struct upstream *upstream; /* where it goes; never NULL */
    struct uconn *uc;          /* the lease, or NULL */
    struct upool_waiter waiter;
    struct list starved_link;
    struct list link;      /* on px->exchanges, or on px->spare */
    struct loop_task task; /* budget spent: go on later */
    uint64_t id;

    /* the request */
    enum http_method method;
    int minor;
    bool client_keep; /* the client allows another request after this one */
    bool expect, upgrade, names_host;
    struct ch_request ch;
    struct session *session;
    struct list session_link; /* waits for its turn in the session */
    struct gate_pass pass;    /* at its user's gate */
    bool given_user;          /* goes out with the credentials of a [user NAME], not the client's */

    /* up */
    struct buf head;          /* as ClickHouse gets it */
    size_t host_at, host_len; /* the Host line inside it */
    size_t head_sent;
    struct http_body up_body;
    struct blk *up;     /* body bytes from the socket; else they are in client->in */
    size_t up_valid;    /* checked and unsent bytes at the front of the source */
    struct buf replay;  /* a copy of the body sent so far, while that is complete */
    size_t replay_sent; /* on a retry: how much of it has gone again */
    bool keep_replay, replaying;
    uint64_t up_bytes; /* all body bytes sent */
    bool up_done, up_broken;

    /* down */
    enum ex_phase phase;
    struct http_status status;
    struct http_meta meta;
    enum http_framing framing;
    struct http_body down_body;
    struct blk *down;
    size_t down_valid; /* checked and unsent bytes at the front of down */
    struct tube *tube; /* owned, while bytes are in it: those before the ones in down */
    bool splices;      /* its runs go through tubes */
    bool in_run;       /* what came last did, and more of the same run does too */
    bool no_splice;    /* it cannot: not for this response */
    struct buf out;    /* head, or our own reply, for the client */
    size_t out_ready;  /* of out, may be written: heads wait until they are whole */
    size_t out_sent;
    size_t out_mark;     /* where the current response head begins in out */
    struct buf listed;   /* what its Connection field names, if it does */
    bool got_byte;       /* the upstream answered something */
    bool saw_progress;   /* unfinished head holds lines that must not wait */
    bool dechunk;        /* HTTP/1.0 client: payload only */
    bool tunnel;         /* after 101 */
    bool cut;            /* ends short for the client */
    bool down_closing;   /* Connection: close was told */
    uint64_t down_bytes; /* everything written to the client */
    uint64_t interim;    /* how much of that, or of what waits in out, is 1xx responses */
    int exception_code;

    struct recode *rc; /* owned; NULL: nothing of this request is recoded */

    /* life */
    bool retried, reused;
    bool waited; /* for a connection, its session or its user; counted */
    bool looked; /* whether the client is still there, once the query proved to be no short one */
    enum err err;
    struct mono start, leased, first, progress;
    struct mono
        unsent_at; /* so many bytes were in the socket that does not move, see stall_timeout */
    size_t unsent;
};

/* Takes a parsed head: r is the scratch, b the block its bytes are in (NULL: client->in). On return
 * the client may be busy, answered already, or closed. */
void exchange_start(struct client *c, const struct http_req *r, struct blk *b) LOOP_ONLY;
/* The client's socket or timer woke. */
void exchange_on_client(struct exchange *ex) LOOP_ONLY;
void exchange_on_timer(struct exchange *ex) LOOP_ONLY;
/* Its user's other requests have made room for it. */
void exchange_on_gate(struct gate_pass *p) LOOP_ONLY;
/* The session's turn has come. */
void exchange_on_session(struct exchange *ex) LOOP_ONLY;
/* Chmux stops: cut it. */
void exchange_abort(struct exchange *ex) LOOP_ONLY;
/* An administrator ends it: its query is killed, its client gets an error, or a cut if the answer
 * has begun. */
void exchange_kill(struct exchange *ex) LOOP_ONLY;
/* Whose waiter it is; NULL: not an exchange's. */
struct exchange *exchange_of_waiter(const struct upool_waiter *w) LOOP_ONLY;
const char *exchange_state_name(enum ex_state s);
void exchange_on_memory(struct exchange *ex) LOOP_ONLY;
void exchange_free_spares(struct proxy *px) LOOP_ONLY;

/* Between the files of the exchange. */
void ex_goto(struct exchange *ex, enum ex_state to) LOOP_ONLY;
void ex_pump(struct exchange *ex) LOOP_ONLY;
/* Others first, then ex_pump(). */
void ex_later(struct exchange *ex) LOOP_ONLY;
/* Ends the tie to ClickHouse: lease, place in the queue, turn in the session. */
void ex_leave_upstream(struct exchange *ex, enum metric_id reason) LOOP_ONLY;
/* The only way out. The exchange lets go of everything and the client goes on without it. */
void ex_end(struct exchange *ex, enum farewell how) LOOP_ONLY;
/* Our own error, or a cut when the response has begun. detail may be NULL. */
void ex_fail(struct exchange *ex, enum err e, const char *detail) LOOP_ONLY;
void ex_client_gone(struct exchange *ex) LOOP_ONLY;
/* A recoded response broke off with e: what came of it still goes to the client, then it ends
 * short.
 */
void ex_cut(struct exchange *ex, enum err e) LOOP_ONLY;
/* The upstream connection ended or broke before the response was whole. */
void ex_upstream_lost(struct exchange *ex, const char *why) LOOP_ONLY;
void ex_starve(struct exchange *ex) LOOP_ONLY;
/* May somebody else's web page have sent it, as far as that matters (not on a unix socket)? Counts
 * and logs that it may. foreign.c */
bool ex_is_foreign(struct exchange *ex, const struct http_req *r) LOOP_ONLY;
/* The lease is given up, and another one waited for, ahead of the queue. */
void ex_requeue(struct exchange *ex, enum metric_id reason, bool fresh) LOOP_ONLY;
/* It has a lease and knows what it may do with it: the request goes out. */
void ex_send(struct exchange *ex) LOOP_ONLY;
enum step { STEP_DRY, STEP_MOVED, STEP_ENDED }; /* ENDED: the exchange has changed state */
enum step ex_pump_up(struct exchange *ex) LOOP_ONLY;
enum step ex_pump_down(struct exchange *ex) LOOP_ONLY;
/* ERR_NOMEM, or ERR_TOO_LARGE: the settings of its user do not fit into the URL. */
MUST_USE enum err ex_compose_head(
    struct exchange *ex, const struct http_req *r, const struct users_given *given) LOOP_ONLY;
MUST_USE bool ex_set_host(struct exchange *ex) LOOP_ONLY;
void ex_log(const struct exchange *ex, bool complete) LOOP_ONLY;
/* What had no head that could be used was refused; so many bytes were sent. */
void client_log_refused(struct client *c, enum err e, size_t sent) LOOP_ONLY;
/* Is there anything for the client that has not been written? */
bool ex_has_output(const struct exchange *ex) LOOP_ONLY;
/* Arms the timer for whatever would have to move now. */
void ex_watch(struct exchange *ex) LOOP_ONLY;
/* Of the answer something went to the client already, or is on its way there. */
bool ex_has_begun(const struct exchange *ex) LOOP_ONLY;

/* ---- errand ---- */

struct errand {
    struct buf request; /* filled before the first step */
    struct buf answer;
    size_t sent;
    const char *why; /* after ERRAND_FAILED */
    /* after ERRAND_DONE */
    int status, exception_code;
    enum codec_id coding; /* of the answer's body; CODEC_COUNT: an unknown one */
    bool keep;            /* the connection may serve another request */
    struct uconn_end end;
};
enum errand_result { ERRAND_WAIT, ERRAND_DONE, ERRAND_FAILED };
void errand_init(struct errand *e);
void errand_fini(struct errand *e);
void errand_reset(struct errand *e); /* for another request */
/* Sends and reads what it can. */
enum errand_result errand_step(struct errand *e, struct conn *s) LOOP_ONLY;

/* ---- caps ---- */

struct caps_entry {
    uint64_t key;     /* 0: empty */
    uint64_t version; /* a new one with every change of the below, and with every new key */
    struct mono since;
    enum codec_id request; /* what bodies may be coded in; while !request_known: what to try next */
    bool request_known;
    bool response_known;
    bool response_ok;   /* the server codes results when asked */
    bool with_setting;  /* and enable_http_compression=1 must be (or is tried to be) set for it */
    struct mono ask_at; /* not before, after a question that failed */
    int64_t pause_us;   /* that this made: it grows with each in a row */
};
/* An entry as it was. */
struct caps_ref {
    struct caps_entry *entry; /* borrowed; it may serve another key by now */
    uint64_t version;
};
/* What was asked, and on behalf of which entry. Several may ask for one entry at the same time: the
 * first answer counts, and who gets a later one looks again what is left to be asked. */
struct caps_question {
    struct caps_ref of;
    enum codec_id request; /* coding of the body; CODEC_IDENTITY: that was not the question */
    bool response;         /* whether results are coded */
    bool setting;          /* with enable_http_compression=1 */
};
MUST_USE struct caps *caps_new(void) LOOP_ONLY;
void caps_free(struct caps **cp) LOOP_ONLY;
/* What is known, or an entry that says that nothing is. Good until the next call. */
struct caps_entry *caps_find(struct caps *c, const struct exchange *ex, struct mono now) LOOP_ONLY;
/* The next question, put into rc->question and rc->probe; r is the caller's own request. false:
 * none is left, it is too early for another, or no memory. */
bool caps_ask(struct caps_entry *c, const struct exchange *ex, const struct http_req *r,
    struct recode *rc, struct mono now) LOOP_ONLY;
/* false: the answer says nothing (the user is not let in, the server is busy). */
bool caps_learn(struct caps *c, const struct caps_question *q, const struct errand *e) LOOP_ONLY;
/* The question had no answer, or one that says nothing: the next one is not asked at once. */
void caps_failed(const struct caps_question *q, struct mono now) LOOP_ONLY;
/* A request that was sent as the entry said was answered by an error with this code (0: the head
 * names none). If that may be for what we changed in it, it is asked anew. */
void caps_doubt(const struct recode *rc, int code, struct mono now) LOOP_ONLY;

/* ---- recode ---- */

/* The sink side of a pipe: its output, framed in chunks. */
struct pipe_sink {
    struct pipe *pipe;   /* owned; NULL: not recoded */
    struct blk *cur;     /* owned: being written */
    bool raw;            /* without chunk framing, for HTTP/1.0 */
    bool ended;          /* the last chunk is in cur, or final_left counts it */
    unsigned final_left; /* bytes of a last chunk of its own */
    bool unflushed;      /* the source seemed to have more behind what was put last */
};
/* Has it bytes to write? Takes the next block from the pipe if need be. */
bool sink_ready(struct pipe_sink *s) LOOP_ONLY;
/* Adds them to v; sink_ready() said yes. */
void sink_iov(struct pipe_sink *s, struct iovec *v, int *count) LOOP_ONLY;
void sink_sent(struct pipe_sink *s, size_t n) LOOP_ONLY;
/* All of a whole stream is written. */
bool sink_done(const struct pipe_sink *s) LOOP_ONLY;
void sink_close(struct pipe_sink *s) LOOP_ONLY;
/* Puts *bp; `more`: the source seems to have more at hand. */
void sink_put(struct pipe_sink *s, struct blk **bp, bool more) LOOP_ONLY;
/* The source had no more after all. */
void sink_flush(struct pipe_sink *s) LOOP_ONLY;

struct recode {
    enum codec_id want_request, want_response; /* CODEC_IDENTITY: leave it as it is */
    struct ch_coding asked;                    /* by the client */
    struct buf origin;                         /* the head before any edit of ours */
    struct errand probe;
    struct caps_question question; /* that the probe asks */
    int probes;
    bool planned;
    struct caps_ref plan; /* what the plan was made of */

    struct pipe_spec up_spec;
    struct pipe_sink up;
    bool up_on, up_fed; /* recoded; and its pipe has got the whole body */
    bool check_only;    /* the client's coding is the link's: nothing changes but that it is
                           checked */
    struct pipe_spec down_spec;
    struct pipe_sink down;
    bool down_asked; /* we chose what the response may be coded in */
    bool set;        /* and added enable_http_compression=1 */
    bool down_on;    /* and it needs a codec, in down_spec */
    bool down_cut;   /* the upstream broke off: short for the client too */
    enum err cut_err;
    enum codec_id coding; /* of the response, as its head says */
    struct buf held;      /* framing lines of the response head, until that is decided */
};

/* Looks at a new request: is there anything to recode? Sets ex->rc. On ERR_BAD_REQUEST *why says
 * what is wrong with X-Chmux-Compression. */
MUST_USE enum err recode_start(struct exchange *ex, const struct http_req *r, const char **why)
    LOOP_ONLY;
void recode_free(struct exchange *ex) LOOP_ONLY;
/* The exchange has a lease. true: its head is as it has to be for that server, and it may be sent.
 * false: it probes, or waits for another lease, or has failed. */
bool recode_lease(struct exchange *ex) LOOP_ONLY;
/* The client's body has been put whole: ends the pipe. false: no memory. */
MUST_USE bool recode_end_up(struct exchange *ex) LOOP_ONLY;
/* The probe takes too long. */
void recode_probe_timeout(struct exchange *ex) LOOP_ONLY;
/* A line of the response head that recoding may change: held back. */
bool recode_holds(struct exchange *ex, const struct http_field *f) LOOP_ONLY;
/* The response head is complete and its framing known: decides about its body, and puts into out
 * the lines that say so. */
void recode_response(struct exchange *ex) LOOP_ONLY;
/* Makes the response's pipe if there is none yet. false: it waits for memory. */
bool recode_open_down(struct exchange *ex) LOOP_ONLY;
/* Neither stream is recoded any more: what is in the pipes is dropped. */
void recode_close_pipes(struct exchange *ex) LOOP_ONLY;
/* The response broke off with e: what came before goes through the codec to the client, which then
 * ends short. */
void recode_cut_down(struct exchange *ex, enum err e) LOOP_ONLY;
/* Looks whether the codecs found an end or an error. ENDED: the exchange has changed state. */
enum step recode_check_up(struct exchange *ex) LOOP_ONLY;
enum step recode_check_down(struct exchange *ex) LOOP_ONLY;

static inline bool
ex_recodes_up(const struct exchange *ex)
{
    return ex->rc != NULL && ex->rc->up_on;
}
static inline bool
ex_recodes_down(const struct exchange *ex)
{
    return ex->rc != NULL && ex->rc->down_on;
}

/* What to ask a server for when `want` is wanted: it, or gzip, which every version has. */
struct str recode_accept(enum codec_id want);

enum payload { PAYLOAD_OK, PAYLOAD_BAD, PAYLOAD_NO_MEMORY };
/* Moves the payload at the front of *bp, up to the end of the message, into *out (NULL: there is
 * none), a block of its own size or *bp itself; what follows the message stays in *bp. *lost: that
 * could not be kept. PAYLOAD_NO_MEMORY: nothing was done. */
MUST_USE enum payload payload_take(
    struct http_body *body, struct blk **bp, struct blk **out, bool *lost) LOOP_ONLY;
/* The same from the front of a buffer. */
MUST_USE enum payload payload_copy(struct http_body *body, struct buf *in, struct blk **out)
    LOOP_ONLY;

/* ---- sessions ---- */

MUST_USE struct sessions *sessions_new(struct upstream *up) LOOP_ONLY;
void sessions_free(struct sessions **sp) LOOP_ONLY;
enum session_result { SESSION_GO, SESSION_WAIT, SESSION_NOMEM };
/* Joins ex to its session: GO when it may run now (ex->session->addr is the pin, or NULL). */
MUST_USE enum session_result session_enter(struct sessions *ss, struct exchange *ex) LOOP_ONLY;
/* ex ran on this address: the session stays there. */
void session_ran_on(struct session *s, struct uconn *uc) LOOP_ONLY;
struct uaddr *session_pin(const struct session *s) LOOP_ONLY;
uint64_t session_last_conn(const struct session *s) LOOP_ONLY;
/* ex has finished with ClickHouse, or stopped waiting. The next one's turn comes from a deferred
 * call. */
void session_leave(struct exchange *ex) LOOP_ONLY;
size_t sessions_waiting(const struct sessions *ss) LOOP_ONLY;

/* ---- kill ---- */

/* Ends the query of this request on the server too, with KILL QUERY on the address it runs on, if
 * it was sent whole and is worth it: an INSERT's data ends with the connection. */
void kill_query_of(struct exchange *ex) LOOP_ONLY;
/* Gives up those under way; for the end. */
void kills_abort(struct proxy *px) LOOP_ONLY;
#endif
