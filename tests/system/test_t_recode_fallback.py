"""t: re-encoding where the server or the user's rights do not allow it: served without, found out once, counted,
and never an error that the client would not have had."""
import threading
import time

import pytest

import recode
from helpers import parallel, q
from recode import BLOCKS, LINKS, compressed, decode_all, encode
from rig import chblocks, http1
from rig.wait import wait_until

ROWS = b"".join(b"%d\trow %d\n" % (i, i) for i in range(5000))
SELECT = "SELECT number AS n, toString(number) AS s FROM system.numbers LIMIT 20000"
INSERT = {"query": "INSERT INTO rec FORMAT TSV"}
STORED = "SELECT count(), sum(a), sum(cityHash64(s)) FROM rec"
FALLBACKS = "chmux_coding_fallbacks_total"


def login(user, password):
    return [("X-ClickHouse-User", user), ("X-ClickHouse-Key", password)]


READER = login("reader", "readerpw")  # readonly=1
QUIET = login("quiet", "quietpw")  # its profile has enable_http_compression=0
QUIET_READER = login("quietreader", "quietreaderpw")  # both


@pytest.fixture
def one(cleanup):
    """one(server, codec, **options): a Link of its own, whose memory of the server is empty."""

    def make(server, codec="zstd", **options):
        return cleanup.add(recode.Link(server, upstream__request_compression=codec, upstream__response_compression=codec, **options))

    return make


@pytest.fixture
def rec(server):
    server.sql("CREATE TABLE IF NOT EXISTS rec (a Int32, s String) ENGINE = Memory")
    server.sql("TRUNCATE TABLE rec")
    r = http1.ask(server.addr, "POST", q(INSERT["query"]), (), ROWS)
    assert r.status == 200, r
    server.want = server.sql(STORED)
    server.sql("TRUNCATE TABLE rec")
    return server


def probes(link):
    return [e for e in link.tap.exchanges() if not (e.head.query_id or "").startswith("recode-")]


# ---- an old server
@pytest.mark.parametrize("codec", LINKS)
def test_an_old_server_gets_what_it_knows(ch18, one, codec):
    """18.16 has gzip, and only when asked for by enable_http_compression: used, the very first time as well."""
    link = one(ch18, codec)
    plain = link.direct(SELECT).body
    for accept in (None, "gzip", "zstd", "deflate"):
        r, e = link.select(SELECT, accept)
        assert r.status == 200 and r.complete, r
        recode.not_visible(r)
        assert r.header("Content-Encoding") in (None, accept)
        assert decode_all(r.header("Content-Encoding"), r.body) == plain
        assert e.encoding in ("gzip", "deflate"), (accept, e)
    moved = link.chmux.metric(f'{FALLBACKS}{{direction="response"}}')
    assert moved == 0 if codec == "gzip" else moved > 0


@pytest.mark.parametrize("side", ["plain", "gzip", "deflate", *BLOCKS])
@pytest.mark.parametrize("codec", LINKS)
def test_inserts_into_an_old_server(ch18, one, codec, side):
    """All of what it takes straight, it takes through chmux: never a zstd body that it would answer by a 500."""
    ch18.sql("CREATE TABLE IF NOT EXISTS rec (a Int32, s String) ENGINE = Memory")
    ch18.sql("TRUNCATE TABLE rec")
    assert http1.ask(ch18.addr, "POST", q(INSERT["query"]), (), ROWS).status == 200
    want = ch18.sql(STORED)
    link = one(ch18, codec)
    params = {**INSERT, **({"decompress": "1"} if side in BLOCKS else {})}
    headers = [("Content-Encoding", side)] if side in ("gzip", "deflate") else []
    for chunked in (False, True):
        ch18.sql("TRUNCATE TABLE rec")
        r, e = link.ask("POST", params, headers, encode(side, ROWS), chunked=chunked)
        assert r.status == 200 and r.complete, r
        assert ch18.sql(STORED) == want
        assert e.head.header("Content-Encoding") in ("gzip", "deflate"), e
        assert decode_all(e.head.header("Content-Encoding"), e.body) == ROWS
    moved = link.chmux.metric(f'{FALLBACKS}{{direction="request"}}')
    assert moved == 0 if codec == "gzip" else moved > 0


@pytest.mark.parametrize("side", ["zstd", "lz4", "br"])
def test_codings_an_old_server_never_knew(ch18, one, side):
    """Straight they are refused. Through chmux: stored whole, or refused; nothing in between."""
    ch18.sql("CREATE TABLE IF NOT EXISTS rec (a Int32, s String) ENGINE = Memory")
    ch18.sql("TRUNCATE TABLE rec")
    link = one(ch18)
    r, e = link.ask("POST", INSERT, [("Content-Encoding", side)], encode(side, ROWS))
    count = ch18.sql("SELECT count() FROM rec")
    assert r.complete and (r.status, count) in ((200, "5000\n"), (500, "0\n")), (r, count)


def test_an_old_server_is_asked_once(ch18, one):
    """By the first request of a kind (with a body to code, without), not by those behind it: a few questions of one
    user."""
    link = one(ch18)
    asked = []
    for i in range(10):
        assert link.select("SELECT 1")[0].body == b"1\n"
        assert link.ask("POST", {"query": "SELECT 1"}, (), b" " * 3000)[0].body == b"1\n"
        asked.append(len(probes(link)))
    assert asked == asked[:1] * 10 and asked[0] <= 6, [e.head.line for e in probes(link)]


def test_many_first_requests_at_once(ch18, one):
    """All of them are served while it is still being found out. (Large results: a small one in blocks is lost by 18.16
    itself when it is passed through meanwhile.)"""
    link = one(ch18, upstream__pool_size=16)
    sql = "SELECT number, number FROM system.numbers LIMIT 200000"
    plain = link.direct(sql).body

    def client(i):
        r = link.chmux.ask("POST", "/?compress=1" if i % 2 else "/", (), sql.encode())
        assert r.status == 200 and r.complete, r
        assert (chblocks.decode(r.body, verify=False) if i % 2 else r.body) == plain

    parallel(32, client)


def test_a_small_result_in_blocks_of_an_old_server(ch18, one):
    """18.16 loses a result under 1 MiB that it is to send in blocks; rebuilt by chmux it is whole."""
    link = one(ch18)
    r, e = link.select("SELECT 'not lost'", params={"compress": "1"})
    assert r.status == 200 and r.complete and chblocks.decode(r.body) == b"not lost\n", r


def test_tiny_bodies_and_gets_of_an_old_server(ch18, one):
    link = one(ch18)
    r, e = link.ask("GET", {"query": "SELECT 7"})
    assert r.body == b"7\n" and r.complete and e.head.method == "GET"
    r, e = link.ask("POST", {}, (), b"SELECT 8")
    assert r.body == b"8\n" and r.complete


# ---- users
def test_a_readonly_user_is_served(server, one):
    """readonly=1: no setting may be changed. 26.7 needs none; 18.16 sends plain then."""
    link = one(server)
    plain = link.direct(SELECT).body
    for i in range(3):
        for params in ({}, {"compress": "1"}):
            r, e = link.select(SELECT, headers=READER, params=params)
            assert r.status == 200 and r.complete, r
            if params and not e.encoding:
                assert r.body == e.response.body  # passed through; 18.16 loses small ones here, with or without chmux
            else:
                assert (chblocks.decode(r.body) if params else r.body) == plain
        r, e = link.ask("GET", {"query": SELECT}, READER)
        assert r.status == 200 and r.complete and r.body == plain, r
    if server.version == "26.7":
        compressed(e, "zstd", plain)
        assert "enable_http_compression" not in e.head.target
        assert link.chmux.metric(FALLBACKS) == 0
    else:
        assert e.encoding is None
        assert link.chmux.metric(f'{FALLBACKS}{{direction="response"}}') > 0
    # its own refusal, not one of chmux's making
    r, e = link.ask("POST", {"query": "INSERT INTO rec FORMAT TSV"}, READER, ROWS)
    straight = http1.ask(server.addr, "POST", q("INSERT INTO rec FORMAT TSV"), READER, ROWS)
    assert (r.status, r.header("X-ClickHouse-Exception-Code")) == (straight.status, straight.header("X-ClickHouse-Exception-Code")), (r, straight)
    assert r.status != 200


def test_another_user_is_not_judged_by_the_first(server, one):
    """A user who may not set it takes nothing from one who may, and the other way round."""
    link = one(server)
    plain = link.direct(SELECT).body
    for user in (READER, (), READER, ()):
        r, e = link.select(SELECT, headers=user)
        assert r.status == 200 and r.body == plain and r.complete, r
        if server.version == "26.7":
            compressed(e, "zstd", plain)
        else:
            assert e.encoding == (None if user else "gzip"), (user, e)


@pytest.mark.parametrize("user", [QUIET, QUIET_READER], ids=["may-set-it", "may-not"])
def test_a_profile_without_http_compression(server, one, user):
    """enable_http_compression=0 in the profile: asked for where that is allowed, else plain and counted."""
    link = one(server)
    plain = http1.ask(server.addr, "POST", "/", user, SELECT.encode())
    assert plain.status == 200 and plain.header("Content-Encoding") is None, plain
    for accept, params in ((None, {}), ("gzip", {}), (None, {"compress": "1"})):
        for _ in range(2):
            r, e = link.select(SELECT, accept, headers=user, params=params)
            assert r.status == 200 and r.complete, r
            if params and not e.encoding:
                assert r.body == e.response.body  # as above
            else:
                assert (chblocks.decode(r.body) if params else decode_all(r.header("Content-Encoding"), r.body)) == plain.body
            recode.not_visible(r)
    if user is QUIET:
        assert e.encoding == ("zstd" if server.version == "26.7" else "gzip"), e
    else:
        assert e.encoding is None
        assert link.chmux.metric(f'{FALLBACKS}{{direction="response"}}') > 0


@pytest.mark.parametrize("headers", [login("alice", "wrong"), login("nobody", "x"), [("Authorization", "Basic YWxpY2U6d3Jvbmc=")], [("Authorization", "Bearer nonsense")]],
                         ids=["password", "user", "basic", "bearer"])
def test_a_login_that_fails_is_clickhouses_own_error(server, one, headers):
    """For a query, for an insert, for blocks: status, code and text as straight."""
    link = one(server)
    for _ in range(2):  # the first may bring a question along, the second not
        for params, body in (({}, SELECT.encode()), (INSERT, ROWS), ({"compress": "1"}, SELECT.encode()), ({**INSERT, "decompress": "1"}, encode("blocks-lz4", ROWS))):
            straight = http1.ask(server.addr, "POST", "/?" + "&".join(f"{n}={v.replace(' ', '+')}" for n, v in params.items()), headers, body)
            assert straight.status in (400, 401, 403, 500), straight
            r, e = link.ask("POST", params, headers, body)
            assert (r.status, r.header("X-ClickHouse-Exception-Code"), r.header("X-Chmux-Error")) == (straight.status, straight.header("X-ClickHouse-Exception-Code"), None), (r, straight)
            assert r.complete and r.body[:60] == straight.body[:60], (r, straight)
            assert r.header("WWW-Authenticate") == straight.header("WWW-Authenticate")
    # a good login behind the same user name is not spoilt by a bad one
    r, e = link.select("SELECT 'let in'", headers=login("alice", "secret"))
    assert r.status == 200 and r.body == b"let in\n", r


def test_a_user_without_grants(ch26, one):
    """roled may read system.one and nothing else: his query runs, chmux's own questions need no more."""
    link = one(ch26)
    roled = login("roled", "roledpw")
    sql = "SELECT dummy /* " + "x" * 2000 + " */ FROM system.one"
    r, e = link.ask("POST", {}, roled, sql.encode())
    assert r.status == 200 and r.body == b"0\n", r
    assert e.head.header("Content-Encoding") == "zstd"


def test_questions_of_chmux_leave_no_trace_for_the_client(ch18, one):
    """No session is locked by them, no query id is used twice, and the pool's cap holds."""
    link = one(ch18, upstream__pool_size=1)
    for sid in ("recode-a", "recode-b"):
        for sql in ("CREATE TEMPORARY TABLE tt (a Int8)", "INSERT INTO tt VALUES (1), (2)", "SELECT count() FROM tt"):
            r, _ = link.ask("POST", {"session_id": sid}, (), sql.encode())
            assert r.status == 200 and r.complete, r
        assert r.body == b"2\n", r
    assert link.tap.peak == 1, link.tap.peak
    assert all("session_id" not in e.head.target for e in probes(link))


@pytest.mark.parametrize("sets", [["SET readonly=1"], ["SET enable_http_compression=0", "SET readonly=1"]], ids=["readonly", "off-and-readonly"])
@pytest.mark.parametrize("user", [(), QUIET], ids=["default", "quiet"])
def test_a_session_that_made_itself_readonly(server, one, user, sets):
    """No setting of chmux's own is added in a session: it goes on as straight."""
    link = one(server)
    plain = http1.ask(server.addr, "POST", "/", user, SELECT.encode()).body
    in_session = {"params": {"session_id": recode.new_id()}, "headers": user}
    assert link.select("SELECT 1", headers=user)[0].body == b"1\n"  # what the user may have is known
    for sql in sets:
        assert link.select(sql, **in_session)[0].status == 200
    for _ in range(3):
        r, e = link.select(SELECT, **in_session)
        assert r.status == 200 and r.complete and r.body == plain, r
        assert "enable_http_compression" not in e.head.target
    r, e = link.select(SELECT, headers=user)
    assert r.body == plain and e.encoding, "those without a session are coded as before"


# ---- what is found out
class Server:
    """A script of a server that knows some codings of bodies, and codes results when the setting asks for it. `before`
    is called with each question of chmux, before its answer. refusal: status and code for an unknown coding."""

    def __init__(self, codings=("gzip",), needs_setting=True, before=lambda h: None, refusal=("500 Internal Server Error", 89)):
        self.codings = codings
        self.needs_setting = needs_setting
        self.before = before
        self.refusal = refusal
        self.setting_refusal = None  # the same, for the setting
        self.failure = None  # the same, for what is no question
        self.got = []  # (coding of the body, of the answer), of the requests of a test

    def error(self, status, code):
        text = f"Code: {code}. DB::Exception: no\n".encode()
        return None, b"HTTP/1.1 %s\r\nConnection: Keep-Alive\r\nX-ClickHouse-Exception-Code: %d\r\nContent-Length: %d\r\n\r\n%s" % (
            status.encode(), code, len(text), text)

    def answer(self, h):
        coding = h.header("Content-Encoding")
        if coding and coding not in self.codings:
            return self.error(*self.refusal)
        if self.failure and not recode.is_probe(h):
            return self.error(*self.failure)
        sets = "enable_http_compression=1" in h.target
        if sets and self.setting_refusal:
            return self.error(*self.setting_refusal)
        asked = sets or not self.needs_setting
        out = next((c for c in self.codings if asked and c in recode.accepted(h.header("Accept-Encoding"))), None)
        body = encode(out or "plain", b"1\n")
        return out, b"HTTP/1.1 200 OK\r\nConnection: Keep-Alive\r\n%sContent-Length: %d\r\n\r\n%s" % (
            b"Content-Encoding: %s\r\n" % out.encode() if out else b"", len(body), body)

    def __call__(self, conn):
        while (h := conn.head()) is not None and conn.body(h) is not None:
            if recode.is_probe(h):
                self.before(h)
            out, raw = self.answer(h)
            if not recode.is_probe(h):
                self.got.append((h.header("Content-Encoding"), out))
            conn.send(raw)


def insert_one(c, headers=()):
    return c.ask("POST", q("INSERT INTO t FORMAT TSV", query_id=recode.new_id()), headers, ROWS)


@pytest.mark.parametrize("clients", [2, 3, 8])
def test_first_requests_at_the_same_time_do_not_mislead(chmuxd, fake, clients):
    """Each asks; an answer counts for what was asked, not for what somebody else has found out since."""
    barrier = threading.Barrier(clients)
    first = iter(range(clients))

    def all_ask_before_any_is_answered(h):
        if next(first, None) is not None:
            barrier.wait(30)

    server = Server(before=all_ask_before_any_is_answered)
    up = fake(server)
    c = chmuxd(up.url, upstream__request_compression="zstd", upstream__response_compression="zstd", upstream__pool_size=clients)
    for r in parallel(clients, lambda i: insert_one(c)):
        assert r.status == 200 and r.body == b"1\n", r
    assert server.got == [("gzip", "gzip")] * clients, server.got
    assert insert_one(c).status == 200
    assert server.got[-1] == ("gzip", "gzip"), server.got


# ---- servers that change
def test_a_server_that_is_updated_gets_its_coding(chmuxd, fake):
    """The same address, first old, then new: found out again after its connections were lost, at the latest."""
    state = {"codings": ("gzip",)}

    def script(conn):
        while (h := conn.head()) is not None:
            if recode.is_probe(h):
                body = conn.body(h)
                coding = h.header("Content-Encoding")
                if coding and coding not in state["codings"]:
                    conn.send(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 5\r\n\r\nwhat?")
                    continue
                answered = next((c for c in state["codings"] if c in recode.accepted(h.header("Accept-Encoding"))), None)
            else:
                body = conn.body(h)
                coding = h.header("Content-Encoding")
                assert coding is None or coding in state["codings"], f"{coding} to a server that knows {state['codings']}"
                answered = next((c for c in state["codings"] if c in recode.accepted(h.header("Accept-Encoding"))), None)
            if body is None:
                return
            out = encode(answered or "plain", b"1\n")
            conn.send(b"HTTP/1.1 200 OK\r\nConnection: Keep-Alive\r\n%sContent-Length: %d\r\n\r\n%s" % (
                b"Content-Encoding: %s\r\n" % answered.encode() if answered else b"", len(out), out))

    up = fake(script)
    c = chmuxd(up.url, upstream__request_compression="zstd", upstream__response_compression="zstd")
    for _ in range(3):
        r = c.ask("POST", q("INSERT INTO t FORMAT TSV", query_id=recode.new_id()), (), ROWS)
        assert r.status == 200 and r.complete, r
        r = c.ask("GET", q("SELECT 1", query_id=recode.new_id()))
        assert r.status == 200 and r.body == b"1\n", r


@pytest.mark.parametrize("status,code", [("500 Internal Server Error", 89), ("501 Not Implemented", 48)])
def test_a_server_that_is_replaced_by_an_older_one(chmuxd, fake, status, code):
    """What worked a moment ago is refused: one request fails, the next one finds out anew."""
    server = Server(codings=("zstd", "gzip"), needs_setting=False, refusal=(status, code))
    c = chmuxd(fake(server).url, upstream__request_compression="zstd")
    assert insert_one(c).status == 200
    server.codings = ("gzip",)
    r = insert_one(c)
    assert r.status == int(status[:3]) and f"Code: {code}".encode() in r.body, r
    assert [insert_one(c).status for _ in range(3)] == [200] * 3
    assert [coding for coding, _ in server.got] == ["zstd", "zstd"] + ["gzip"] * 3, server.got


ANSWERS = {
    "garbage": b"hello\r\n\r\n",
    "busy": b"HTTP/1.1 500 Internal Server Error\r\nX-ClickHouse-Exception-Code: 202\r\nContent-Length: 2\r\n\r\nno",
    "somebody-else": b"HTTP/1.1 301 Moved\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
    "none": None,
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_question_without_an_answer_is_not_asked_by_everybody(chmuxd, fake, name):
    """Requests go plain meanwhile; there is at least a second between two questions (or their second attempts on a
    fresh connection), and once they are answered bodies are coded."""
    server = Server(codings=("zstd",), needs_setting=False)
    healed = threading.Event()

    def script(conn):
        while (h := conn.head()) is not None and conn.body(h) is not None:
            if recode.is_probe(h) and not healed.is_set():
                if ANSWERS[name] is None:
                    return
                conn.send(ANSWERS[name])
                continue
            server.got.append((h.header("Content-Encoding"), None))
            conn.send(server.answer(h)[1])

    up = fake(script)
    c = chmuxd(up.url, upstream__request_compression="zstd", upstream__pool_size=2)
    began = time.monotonic()
    for _ in range(30):
        assert insert_one(c).status == 200
    questions = len([h for _, h in up.heads if recode.is_probe(h)])
    assert questions <= 2 * (1 + int(time.monotonic() - began)), questions
    assert server.got == [(None, None)] * 30
    healed.set()
    wait_until(lambda: insert_one(c).status == 200 and server.got[-1][0] == "zstd", what="coded bodies")


@pytest.mark.parametrize("code", [192, 193, 194, 516])
def test_a_refused_login_says_nothing_about_the_next(chmuxd, fake, code):
    """The same user name with the right password is asked for, and coded, at once."""
    server = Server(codings=("zstd",), needs_setting=False)

    def script(conn):
        while (h := conn.head()) is not None and conn.body(h) is not None:
            wrong = h.header("X-ClickHouse-Key") == "wrong"
            conn.send((server.error("500 Internal Server Error", code) if wrong else server.answer(h))[1])

    up = fake(script)
    c = chmuxd(up.url, upstream__request_compression="zstd")
    for _ in range(3):
        assert insert_one(c, login("alice", "wrong")).status == 500
    assert insert_one(c, login("alice", "secret")).status == 200
    assert up.heads[-1][1].header("Content-Encoding") == "zstd", up.heads[-1][1].raw


def test_other_errors_raise_no_question(chmuxd, fake):
    server = Server(codings=("zstd",), needs_setting=False)
    up = fake(server)
    c = chmuxd(up.url, upstream__request_compression="zstd")
    assert insert_one(c).status == 200
    server.failure = ("404 Not Found", 60)
    assert [insert_one(c).status for _ in range(3)] == [404] * 3
    assert [coding for coding, _ in server.got] == ["zstd"] * 4
    assert len([h for _, h in up.heads if recode.is_probe(h)]) == 1


@pytest.mark.parametrize("code", [164, 452])
def test_a_user_who_loses_the_right_to_set_it(chmuxd, fake, code):
    """The setting that was allowed a moment ago is refused: one request fails, the next go without."""
    server = Server(codings=("zstd", "gzip"))
    c = chmuxd(fake(server).url, upstream__response_compression="zstd")

    def select():
        return c.ask("GET", q("SELECT 1", query_id=recode.new_id())).status

    assert select() == 200
    server.setting_refusal = ("500 Internal Server Error", code)
    assert [select() for _ in range(4)] == [500, 200, 200, 200]
    assert [out for _, out in server.got] == ["zstd", None, None, None, None], server.got
