"""d: P3 Honest: the client sees a complete response if and only if the upstream's was complete."""
import gzip
import threading

import pytest

from helpers import CHUNKED, OK, chmux_error, chunk, fill_send_buffer, insert, parallel, q, small_buffers
from rig.http1 import Closed, RawClient, request
from rig.wait import wait_until

pytestmark = [pytest.mark.san, pytest.mark.loop]
LEN10 = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: Keep-Alive\r\n\r\n"

# What the upstream sends before it ends the connection: never a complete response.
CUTS = {
    "length, no body": LEN10,
    "length, half a body": LEN10 + b"12345",
    "length, one byte short": LEN10 + b"123456789",
    "chunked, no chunk": CHUNKED,
    "chunked, inside a size": CHUNKED + b"1",
    "chunked, after a size": CHUNKED + b"5\r\n",
    "chunked, inside a chunk": CHUNKED + b"5\r\n123",
    "chunked, no CRLF after a chunk": CHUNKED + b"5\r\n12345",
    "chunked, half a CRLF": CHUNKED + b"5\r\n12345\r",
    "chunked, between chunks": CHUNKED + b"5\r\n12345\r\n",
    "chunked, inside the 0 chunk": CHUNKED + b"5\r\n12345\r\n0\r\n",
    "chunked, one byte short": CHUNKED + b"5\r\n12345\r\n0\r\n\r",
    "chunked, inside a trailer": CHUNKED + b"5\r\n12345\r\n0\r\nX-T: v",
}
BROKEN = {
    "bad size": CHUNKED + b"5\r\n12345\r\nxyz\r\n12345\r\n0\r\n\r\n",
    "size over 2^63": CHUNKED + b"5\r\n12345\r\nffffffffffffffff\r\nabc",
    "empty size": CHUNKED + b"5\r\n12345\r\n\r\n12345\r\n0\r\n\r\n",
    "no CRLF after data": CHUNKED + b"5\r\n123456789\r\n0\r\n\r\n",
    "negative size": CHUNKED + b"5\r\n12345\r\n-1\r\n0\r\n\r\n",
    "bare LF after size": CHUNKED + b"5\n12345\r\n0\r\n\r\n",
}


def ends_with(data, how):
    def script(conn):
        conn.request()
        conn.send(data)
        if how == "reset":
            conn.reset()
        elif how == "half":
            conn.half_close()
            conn.wait_eof()

    return script


@pytest.mark.parametrize("how", ["eof", "reset", "half"])
@pytest.mark.parametrize("name", CUTS)
def test_a_cut_response_ends_short(chmuxd, fake, name, how):
    up = fake(ends_with(CUTS[name], how))
    c = chmuxd(up.url)
    r = c.ask("POST", "/?query=INSERT", (), b"x")
    if r.status == 502:  # nothing had reached the client yet: an error status is as honest
        chmux_error(r, "upstream_closed", 502)
    else:
        assert not r.complete, r
        expect = CUTS[name].partition(b"\r\n\r\n")[2]
        assert how == "reset" or len(r.body) <= len(expect)
    assert up.accepted == 1, "sent again"
    m = c.metrics()
    assert m['chmux_upstream_connections{state="idle"}'] == 0, "a broken connection went back to the pool"
    assert m['chmux_exchanges_finished_total{result="complete"}'] == 0


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_chunk_ends_short(chmuxd, fake, name):
    def script(conn):
        conn.request()
        conn.send(BROKEN[name])
        conn.wait_eof()

    up = fake(script)
    c = chmuxd(up.url)
    r = c.ask("POST", "/?query=INSERT", (), b"x")
    assert not r.complete or r.status == 502, r
    up.wait_open(0)


def test_the_part_before_a_cut_arrives(chmuxd, fake):
    data = b"".join(chunk(b"%d\n" % i) for i in range(1000))
    r = chmuxd(fake(ends_with(CHUNKED + data, "eof")).url).ask("GET", q("SELECT"))
    assert not r.complete and r.body == b"".join(b"%d\n" % i for i in range(1000))


def test_until_close_responses_pass_and_a_reset_of_one_is_no_end(chmuxd, fake, gate):
    g = gate()
    head = b"HTTP/1.1 404 Not Found\r\nConnection: Close\r\n\r\n"
    r = chmuxd(fake(ends_with(head + b"There is no handle", "eof")).url).ask()
    assert r.status == 404 and r.complete and r.body == b"There is no handle"

    def script(conn):
        conn.request()
        conn.send(head + b"x" * 10)
        conn.stall(g)
        conn.reset()

    c = chmuxd(fake(script).url)
    with c.client() as k:
        k.send(request("GET", "/"))
        k.head()
        assert k.take(10) == b"x" * 10
        g.set()
        with pytest.raises(Closed) as e:
            k.take(1)
        assert "reset" in str(e.value), "a reset of an until-close body looked like its end"


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 20", b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n"])
@pytest.mark.parametrize("how", ["eof", "reset"])
def test_no_whole_head_is_an_error(chmuxd, fake, data, how):
    up = fake(ends_with(data, how))
    r = chmuxd(up.url).ask("POST", "/?query=INSERT", (), b"x")
    if r.status == 200:
        assert not r.complete  # header lines had gone out as they came
    else:
        chmux_error(r, "upstream_closed", 502)
    assert up.accepted == 1


BAD_HEADS = {
    "not HTTP": b"220 ftp.test ready\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.2p1\r\n",
    "bad version": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "bad code": b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    "no code": b"HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    "length beside chunked": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked in 1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nok\n\r\n0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n123456",
    "bad length": b"HTTP/1.1 200 OK\r\nContent-Length: 5x\r\n\r\n12345",
    "folded header": b"HTTP/1.1 200 OK\r\nX-A: 1\r\n folded\r\nContent-Length: 0\r\n\r\n",
    "space before colon": b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "NUL": b"HTTP/1.1 200 OK\r\nX-A: a\0b\r\nContent-Length: 0\r\n\r\n",
    "unknown transfer coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD_HEADS)
def test_a_bad_response_head_never_looks_complete(chmuxd, fake, name):
    def script(conn):
        conn.request()
        conn.send(BAD_HEADS[name])
        conn.wait_eof()

    up = fake(script)
    c = chmuxd(up.url)
    r = c.ask("POST", "/?query=INSERT", (), b"x")
    if r.status == 502:
        chmux_error(r, "upstream_closed", 502)
    else:
        assert not r.complete, r
    up.wait_open(0)
    assert c.metric('chmux_upstream_connections{state="idle"}') == 0


def test_throwif_after_rows_ends_short_on_26_exactly_as_direct(ch26, chmux26):
    target = q("SELECT number, sleepEachRow(0.02), throwIf(number = 8) FROM numbers(20)", max_block_size=1)
    for where in (ch26, chmux26):
        with RawClient(where.addr) as k:
            k.send(request("GET", target))
            r = k.response()
        tag = r.header("X-ClickHouse-Exception-Tag")
        assert r.status == 200 and r.ended == "short" and tag
        assert r.body.startswith(b"0\t0\t0\n1\t0\t0\n")
        assert f"\r\n__exception__\r\n{tag}\r\nCode: 395.".encode() in r.body
        assert r.body.endswith(f" {tag}\r\n__exception__\r\n".encode())
    m = chmux26.metrics()
    assert m['chmux_exchanges_finished_total{result="cut_upstream"}'] >= 1


def test_throwif_after_rows_is_no_clean_end_for_an_http10_client(chmux26):
    """Straight, EOF ends it as it would end a success; chmux knows better and resets."""
    with RawClient(chmux26.addr) as k:
        k.send(request("GET", q("SELECT number, sleepEachRow(0.02), throwIf(number = 6) FROM numbers(10)", max_block_size=1), version="HTTP/1.0"))
        r = k.response()
    assert r.status == 200 and r.ended == "reset", r
    assert r.body.startswith(b"0\t0\t0\n")


def test_throwif_after_rows_on_18_is_as_direct(ch18, chmux18):
    """18.16 appends the text and ends the response normally."""
    target = q("SELECT throwIf(number = 2500000) FROM system.numbers LIMIT 3000000")
    seen = []
    for where in (ch18, chmux18):
        with RawClient(where.addr) as k:
            k.send(request("GET", target))
            r = k.response()
        assert b"Code: 395, e.displayText()" in r.body[-300:]
        seen.append((r.status, r.ended, r.body[-300:]))
    assert seen[0] == seen[1]


def test_progress_headers_then_an_exception_code_in_a_200(chmux26):
    r = chmux26.ask("GET", q("SELECT throwIf(n = 13) FROM (SELECT max(number) AS n, sum(sleepEachRow(0.05)) FROM numbers(14))",
                             send_progress_in_http_headers=1, max_block_size=1))
    assert r.status == 200 and r.complete and r.header("X-ClickHouse-Exception-Code") == "395"
    assert r.all("X-ClickHouse-Progress") and r.body.startswith(b"Code: 395.")


def test_an_insert_is_acknowledged_only_after_clickhouse_did(chmuxd, fake, gate):
    g = gate()

    def script(conn):
        conn.request()
        conn.stall(g)
        conn.send(OK)

    up = fake(script)
    c = chmuxd(up.url)
    with c.client() as k:
        k.send(insert(b"1\ta\n"))
        up.wait_heads(1)
        k.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            k.fill()
        k.sock.settimeout(30)
        g.set()
        assert k.response().status == 200


@pytest.mark.parametrize("chunked", [True, False])
def test_a_cut_upload_never_looks_complete_to_the_server(chmuxd, fake, chunked):
    seen = []

    def script(conn):
        h = conn.head()
        seen.append((h, conn.body(h), bytes(conn.buf)))

    up = fake(script)
    c = chmuxd(up.url)
    data = insert(b"1\ta\n" * 50000, chunked=chunked)
    k = c.client()
    k.send(data[:-3])
    up.wait_heads(1)
    k.close()
    up.wait_open(0)
    (h, body, rest), = seen
    assert body is None, "the server saw the end of a body that had none"
    assert b"0\r\n\r\n" not in rest[-5:]


def test_a_cut_upload_stores_nothing_on_26(ch26, chmux26):
    ch26.sql("TRUNCATE TABLE cmp")
    for chunked in (True, False):
        data = request("POST", "/?query=INSERT+INTO+cmp+FORMAT+TSV&query_id=cut-upload", (), b"1\ta\n" * 1000, chunked=chunked)
        with chmux26.client() as k:
            k.send(data[:-3])
        wait_until(lambda: not ch26.queries("query_id = 'cut-upload'"))
    assert ch26.sql("SELECT count() FROM cmp") == "0\n"


def test_an_early_error_reaches_a_client_that_is_still_sending(chmuxd, fake):
    """The server answers 404 after the head and closes; the client has 64 MB to go."""

    def script(conn):
        conn.head()
        conn.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 8\r\nConnection: Close\r\n\r\nno table")
        conn.half_close()
        conn.wait_eof()

    up = fake(script, keep_bytes=False)
    c = chmuxd(up.url)
    with c.client() as k:
        k.send(request("POST", "/nowhere", [("Content-Length", str(64 << 20))]))
        fill_send_buffer(k.sock, b"x" * 65536, 64 << 20)
        r = k.response("POST")
        assert r.status == 404 and r.body == b"no table", r
        assert k.at_eof() or k.was_reset
    up.wait_open(0)
    assert c.ask("GET", "/ping").status in (200, 404)


def test_an_early_error_from_26_reaches_a_client_that_is_still_sending(chmux26):
    with chmux26.client() as k:
        k.send(request("POST", "/nowhere", [("Content-Length", str(8 << 20))]))
        fill_send_buffer(k.sock, b"x" * 65536, 1 << 20)
        r = k.response("POST")
        assert r.status == 404 and b"There is no handle /nowhere" in r.body


def test_an_answer_before_the_whole_body_is_no_reuse(chmuxd, fake):
    """The response is complete, the request is not: that connection must not serve another."""

    def script(conn):
        h = conn.head()
        if h.method == "POST":
            conn.send(OK)
            conn.wait_eof()
        else:
            conn.send(OK)
            while conn.request() is not None:
                conn.send(OK)

    up = fake(script)
    c = chmuxd(up.url)
    with c.client() as k:
        k.send(request("POST", "/?query=INSERT", [("Content-Length", "1000000")]) + b"x" * 10)
        assert k.response("POST").body == b"ok\n"
    assert c.ask("GET", "/ping").body == b"ok\n"
    assert up.accepted == 2


def test_statuses_and_empty_bodies_survive(chmuxd, fake):
    """An empty 503 stays an empty 503, with no X-Chmux-Error."""
    for status in ("503 Service Unavailable", "500 Internal Server Error", "408 Request Time-out", "429 Too Many Requests"):
        def script(conn, status=status):
            while conn.request() is not None:
                conn.send(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nX-ClickHouse-Exception-Code: 159\r\n\r\n".encode())

        up = fake(script)
        r = chmuxd(up.url).ask("GET", q("SELECT 1"))
        assert r.status_line == f"HTTP/1.1 {status}" and r.body == b"" and r.header("X-Chmux-Error") is None
        assert r.header("X-ClickHouse-Exception-Code") == "159"
        assert len(up.heads) == 1, "an answered request was sent again"


def test_a_response_that_never_comes_is_a_504_with_response_timeout(chmuxd, fake):
    def script(conn):
        conn.request()
        conn.wait_eof()

    up = fake(script)
    c = chmuxd(up.url, upstream__response_timeout="200ms")
    chmux_error(c.ask("POST", "/?query=INSERT", (), b"x"), "upstream_timeout", 504, 209)
    up.wait_open(0)
    assert up.accepted == 1


def test_a_query_given_up_by_response_timeout_is_killed(chmuxd, fake):
    killed = threading.Event()

    def script(conn):
        while (got := conn.request()) is not None:
            if got[1].startswith(b"KILL"):
                killed.set()
                conn.send(OK)
            else:
                conn.wait_eof()

    c = chmuxd(fake(script).url, upstream__response_timeout="200ms")
    chmux_error(c.ask("POST", "/", (), b"SELECT sum(number) FROM numbers(1e12)"), "upstream_timeout", 504, 209)
    assert killed.wait(20)


@pytest.mark.parametrize("framing,version", [("chunked", "HTTP/1.0"), ("close", "HTTP/1.1")])
@pytest.mark.parametrize("how", ["stops reading", "half-closes"])
def test_a_client_given_up_inside_a_body_that_ends_by_close_sees_a_reset(chmuxd, fake, framing, version, how):
    body = bytes(32 << 20)

    def script(conn):
        conn.request()
        conn.send(CHUNKED + chunk(body) if framing == "chunked" else b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body)
        conn.wait_eof()

    c = chmuxd(fake(script, keep_bytes=False).url, chmux__stall_timeout="1s")
    with RawClient(c.addr, sock=small_buffers(c.addr)) as k:
        k.send(request("GET", q("SELECT 1"), version=version))
        while len(k.buf) < 100_000:
            k.fill()
        if how == "half-closes":
            k.half_close()
        c.wait_metric('chmux_exchanges_finished_total{result="client_gone"}', 1)
        r = k.response()
    assert r.status == 200 and r.ended == "reset", r


def test_what_a_client_says_behind_a_closing_answer_costs_it_nothing(chmuxd, fake):
    body = bytes(3 << 20)
    c = chmuxd(fake(ends_with(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body, "half"), keep_bytes=False).url)
    with RawClient(c.addr, sock=small_buffers(c.addr)) as k:
        k.send(request("GET", q("SELECT 1"), [("Connection", "close")]))
        c.wait_metric('chmux_exchanges_finished_total{result="complete"}', 1)
        k.send(b"\r\n")
        r = k.response()
    assert r.complete and r.body == body


def test_framing_fields_that_cannot_be_held_are_a_502(chmuxd, fake):
    one = gzip.compress(b"1\n")

    def script(conn):
        while (got := conn.request()) is not None:
            if got[1] == b"SELECT 2":
                conn.send(b"HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Encoding: " + b"x" * 9000 + b"\r\nContent-Length: 6\r\n\r\nhello\n")
            else:  # what chmux asks once: this server has gzip
                conn.send(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(one) + one)

    c = chmuxd(fake(script).url, upstream__response_compression="gzip")
    chmux_error(c.ask("POST", "/", (), b"SELECT 2"), "upstream_closed", 502)


def test_a_large_result_is_whole(server, through):
    """22.9 MB, compared byte for byte while eight go at once."""
    sql = b"SELECT number FROM system.numbers LIMIT 3000000"
    want = through.ask("POST", "/", (), sql)
    assert want.complete and len(want.body) == 22888890

    def client(i):
        r = through.ask("POST", "/", (), sql)
        assert r.complete and r.body == want.body

    parallel(4, client)


def test_a_large_insert_is_whole(server, through):
    server.sql("TRUNCATE TABLE cmp")
    rows = b"".join(b"%d\trow %d\n" % (i, i) for i in range(300000))
    for chunked in (False, True):
        r = through.ask("POST", q("INSERT INTO cmp FORMAT TSV"), (), rows, chunked=chunked)
        assert r.status == 200 and r.complete, r
    n = 300000
    assert server.sql("SELECT count(), sum(a), uniqExact(s) FROM cmp") == f"{2 * n}\t{n * (n - 1)}\t{n}\n"
    server.sql("TRUNCATE TABLE cmp")


def test_background_results_are_not_mixed_up(chmux26):
    """Answers belong to their requests, whatever finishes first."""
    def client(i):
        for n in range(20):
            r = chmux26.ask("POST", "/", (), f"SELECT {i}, {n}, sleepEachRow({(i + n) % 3 / 100})".encode())
            assert r.body == b"%d\t%d\t0\n" % (i, n)

    parallel(16, client)
