"""a: it starts, it answers, HTTP/1.1 on both sides works."""
import re

import pytest

from helpers import OK, q
from rig.http1 import RawClient, request

pytestmark = [pytest.mark.san, pytest.mark.loop]


def test_start_prints_one_line_per_bound_address(chmuxd, fake):
    c = chmuxd(fake().url, listen=("127.0.0.1:0", "127.0.0.1:0"))
    lines = [l for l in c.stdout_lines if l.startswith("chmuxd: ")]
    assert sum(l.startswith("chmuxd: listening on ") for l in lines) == 2
    assert sum(l.startswith("chmuxd: admin on ") for l in lines) == 1
    assert len({a for a in c.addrs}) == 2 and all(port > 0 for _, port in c.addrs)


def test_select_through_chmux(through, server):
    assert through.sql("SELECT 1 + 1") == "2\n"
    assert through.sql("SELECT version()") == server.sql("SELECT version()")


def test_many_requests_on_one_client_connection(through):
    with through.client() as c:
        for i in range(200):
            c.send(request("POST", "/", (), f"SELECT {i}".encode()))
            r = c.response()
            assert r.status == 200 and r.complete and r.body == b"%d\n" % i


def test_pipelined_requests_are_answered_in_order(chmux26):
    """ClickHouse itself throws pipelined requests away; chmux queues them."""
    with chmux26.client() as c:
        c.send(b"".join(request("GET", q(f"SELECT {i}")) for i in range(20)))
        for i in range(20):
            r = c.response()
            assert r.status == 200 and r.body == b"%d\n" % i


def test_pipelined_requests_with_bodies(through):
    with through.client() as c:
        c.send(b"".join(request("POST", "/", (), f"SELECT {i}".encode(), chunked=i % 2 == 0) for i in range(20)))
        assert [c.response().body for _ in range(20)] == [b"%d\n" % i for i in range(20)]


def test_pipelined_requests_cut_at_every_byte(chmuxd, fake):
    """Two requests and a body in one stream, split at each position in turn."""
    up = fake()
    c = chmuxd(up.url)
    stream = request("POST", "/?query=SELECT", (), b"abc") + request("GET", "/ping")
    with c.client() as client:
        for cut in range(1, len(stream)):
            client.send(stream[:cut])
            client.send(stream[cut:])
            assert client.response().body == b"ok\n" and client.response().body == b"ok\n"


def test_connection_close_is_honoured(through):
    with through.client() as c:
        c.send(request("GET", "/ping", [("Connection", "close")]))
        r = c.response()
        assert r.body == b"Ok.\n" and r.header("Connection", "").lower() == "close"
        assert c.at_eof()


def test_http10_is_answered_and_closed(through):
    with through.client() as c:
        c.send(request("GET", q("SELECT 1"), version="HTTP/1.0"))
        r = c.response()
        assert r.status == 200 and r.body == b"1\n" and r.framing != "chunked"
        assert c.at_eof()


def test_http10_keep_alive_works_or_closes(through):
    """ClickHouse 26.7 hangs such a client for 30 s; through chmux it gets an end it can see."""
    with through.client() as c:
        c.send(request("GET", q("SELECT 1"), [("Connection", "keep-alive")], version="HTTP/1.0"))
        r = c.response()
        assert r.status == 200 and r.body == b"1\n" and r.complete


def test_requests_are_forwarded_byte_for_byte(chmuxd, fake):
    """Order, case and spelling of every end-to-end field, and the target but for the query_id."""
    up = fake()
    c = chmuxd(up.url)
    fields = [("x-lower", "1"), ("X-UPPER", "2"), ("X-Dup", "a"), ("X-Other", ""), ("X-Dup", "b"),
              ("Authorization", "Bearer t"), ("User-Agent", "odd/agent (x; y)"), ("Accept-Encoding", "gzip;q=0, zstd")]
    target = "/?query=SELECT+1%2B1&&a=%7e&A=~&a=[]&query=2"
    assert c.ask("GET", target, fields).status == 200
    h = up.heads[0][1]
    assert h.method == "GET" and h.version == "HTTP/1.1"
    assert [(n, v) for n, v in h.headers if n not in ("Host", "Connection")] == fields
    assert re.sub(r"query_id=[0-9a-f-]{36}&|&query_id=[0-9a-f-]{36}$", "", h.target, count=1) == target, h.target


def test_the_clients_host_is_forwarded(chmuxd, fake):
    """ClickHouse compares it with Origin before it upgrades to a WebSocket."""
    up = fake()
    c = chmuxd(up.url)
    assert c.ask("GET", "/ping", host="app.test:1234").status == 200
    assert up.heads[0][1].header("Host") == "app.test:1234"


def test_a_query_gets_a_query_id_and_keeps_its_own(chmuxd, fake):
    up = fake()
    c = chmuxd(up.url)
    for target, headers in (("/?query=SELECT+1", []), ("/?query=SELECT+1&query_id=mine", []),
                            ("/?query=SELECT+1", [("X-ClickHouse-Query-Id", "header-mine")]), ("/ping", []), ("/play?query=x", [])):
        c.ask("GET", target, headers)
    heads = [h for _, h in up.heads]
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", heads[0].query_id)
    assert heads[1].target == "/?query=SELECT+1&query_id=mine"
    assert heads[2].target == "/?query=SELECT+1" and heads[2].query_id == "header-mine"
    assert heads[3].target == "/ping" and heads[4].target == "/play?query=x"


def test_each_query_gets_an_id_of_its_own(chmuxd, fake):
    up = fake()
    c = chmuxd(up.url)
    for _ in range(50):
        c.ask("GET", "/?query=SELECT+1")
    assert len({h.query_id for _, h in up.heads}) == 50


def test_hop_by_hop_fields_stay_on_their_hop(chmuxd, fake):
    def script(conn):
        conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nX-A: 1\r\nConnection: Keep-Alive, X-Hop\r\nX-Hop: secret\r\nKeep-Alive: timeout=3, max=7\r\n"
                  b"Proxy-Authenticate: Basic\r\nX-B: 2\r\nContent-Length: 0\r\n\r\n")

    up = fake(script)
    c = chmuxd(up.url)
    r = c.ask("GET", "/ping", [("X-A", "1"), ("Connection", "X-Gone, keep-alive"), ("X-Gone", "1"), ("Keep-Alive", "timeout=1"), ("TE", "trailers"),
                               ("Proxy-Authorization", "Basic x"), ("Proxy-Connection", "keep-alive"), ("Upgrade", "h2c"), ("X-B", "2")])
    sent = {n.lower() for n, _ in up.heads[0][1].headers}
    assert {"x-a", "x-b"} <= sent
    assert not sent & {"x-gone", "keep-alive", "te", "proxy-authorization", "proxy-connection", "upgrade"}, sent
    assert r.header("X-A") == "1" and r.header("X-B") == "2"
    assert r.header("X-Hop") is None and r.header("Proxy-Authenticate") is None
    assert not re.search(r"timeout=3\b", r.header("Keep-Alive") or ""), "the client was told the server's idle timeout"


def test_the_client_is_told_chmux_own_keep_alive(chmuxd, fake):
    c = chmuxd(fake().url, chmux__idle_timeout="77s")
    assert "timeout=77" in c.ask("GET", "/ping").header("Keep-Alive", "")


def test_expect_is_answered_by_chmux_and_not_forwarded(chmuxd, fake):
    up = fake()
    c = chmuxd(up.url)
    with c.client() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 8\r\n\r\n")
        assert client.line() == b"HTTP/1.1 100 Continue\r\n" and client.line() == b"\r\n"
        client.send(b"SELECT 1")
        assert client.response().body == b"ok\n"
    assert up.heads[0][1].header("Expect") is None


def test_interim_responses_pass(chmuxd, fake):
    def script(conn):
        conn.request()
        conn.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK)

    c = chmuxd(fake(script).url)
    r = c.ask()
    assert r.interim == ["HTTP/1.1 103 Early Hints"] and r.body == b"ok\n"


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_responses_without_a_body(chmuxd, fake, status):
    def script(conn):
        while conn.request():
            conn.send(f"HTTP/1.1 {status}\r\nConnection: Keep-Alive\r\n\r\n".encode())

    up = fake(script)
    c = chmuxd(up.url)
    with c.client() as client:
        for _ in range(3):
            client.send(request("GET", "/x"))
            assert client.response().status_line == f"HTTP/1.1 {status}"
    assert up.accepted == 1


def test_head_of_a_chunked_response_keeps_the_connection(chmuxd, fake):
    def script(conn):
        while conn.request():
            conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")

    up = fake(script)
    c = chmuxd(up.url)
    with c.client() as client:
        for _ in range(3):
            client.send(request("HEAD", "/"))
            r = client.response("HEAD")
            assert r.status == 200 and r.header("Transfer-Encoding") == "chunked"
    assert up.accepted == 1


def test_the_webterminal_websocket_carries_bytes_both_ways(chmuxd, fake):
    def script(conn):
        h = conn.head()
        assert h.header("Upgrade") == "websocket" and "upgrade" in h.header("Connection").lower()
        conn.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello")
        assert conn.take(4) == b"ping"
        conn.send(b"pong")
        conn.wait_eof()

    c = chmuxd(fake(script).url)
    with c.client() as client:
        client.send(request("GET", "/webterminal", [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="), ("Sec-WebSocket-Version", "13")]))
        assert client.response().status == 101
        assert client.take(5) == b"hello"
        client.send(b"ping")
        assert client.take(4) == b"pong"


def test_request_trailers_and_extensions_pass(chmuxd, fake):
    body = b"3;ext=1\r\nabc\r\n0\r\nX-Trailer: v\r\n\r\n"

    def script(conn):
        conn.head()
        while b"X-Trailer: v\r\n\r\n" not in conn.buf:
            assert conn._fill()
        conn.send(CHUNKED_TRAILERS)

    CHUNKED_TRAILERS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n"
    c = chmuxd(fake(script).url)
    with c.client() as client:
        client.send(request("POST", "/", [("Transfer-Encoding", "chunked")]) + body)
        r = client.response()
        assert r.body == b"hi" and r.trailers == b"X-Sum: 1\r\n" and r.complete


def test_a_response_in_1_byte_pieces(chmuxd, fake):
    def script(conn):
        while conn.request():
            conn.send_pieces(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")

    c = chmuxd(fake(script).url)
    with c.client() as client:
        for _ in range(5):
            client.send_pieces(request("POST", "/", (), b"12345", chunked=True))
            r = client.response()
            assert r.body == b"abcde" and r.complete and r.header("X-A") == "b"


def test_an_idle_client_is_closed_after_idle_timeout(chmuxd, fake):
    c = chmuxd(fake().url, chmux__idle_timeout="1s")
    with RawClient(c.addr) as client:
        client.send(request("GET", "/ping"))
        assert client.response().complete
        assert client.at_eof()
