"""f: P5 Prompt: bytes go out when they come in. P8: the loop never blocks. Body timeouts.

Order is proven with barriers: the fake upstream sends the next piece only after the client has seen the
one before, so a proxy that holds anything back would end in a deadline."""
import time

import pytest

from helpers import CHUNKED, OK, Background, chmux_error, chunk, insert, q
from rig.http1 import RawClient, request
from rig.wait import wait_until

pytestmark = pytest.mark.san


def test_each_chunk_goes_out_before_the_next_comes_in(chmuxd, fake, gate):
    gates = [gate() for _ in range(20)]

    def script(conn):
        conn.request()
        conn.send(CHUNKED)
        for i, g in enumerate(gates):
            conn.send(chunk(b"row %d\n" % i))
            conn.stall(g)
        conn.send(b"0\r\n\r\n")
        conn.wait_eof()

    c = chmuxd(fake(script).url)
    with c.client() as k:
        k.send(request("GET", "/?query=SELECT"))
        k.head()
        for i, g in enumerate(gates):
            want = chunk(b"row %d\n" % i)
            assert k.take(len(want)) == want
            g.set()
        assert k.take(5) == b"0\r\n\r\n"


def test_single_bytes_of_a_body_go_out_at_once(chmuxd, fake, gate):
    gates = [gate() for _ in range(10)]

    def script(conn):
        conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
        for g in gates:
            conn.send(b"x")
            conn.stall(g)
        conn.wait_eof()

    c = chmuxd(fake(script).url)
    with c.client() as k:
        k.send(request("GET", "/"))
        assert k.head().status == 200
        for g in gates:
            assert k.take(1) == b"x"
            g.set()


def test_progress_header_lines_go_out_one_by_one(chmuxd, fake, gate):
    """While the header block is still open, and before the framing is known."""
    gates = [gate() for _ in range(6)]
    lines = [b"HTTP/1.1 200 OK\r\n"] + [b'X-ClickHouse-Progress: {"read_rows":"%d"}\r\n' % i for i in range(5)]

    def script(conn):
        conn.request()
        for line, g in zip(lines, gates):
            conn.send(line)
            conn.stall(g)
        conn.send(b"X-ClickHouse-Summary: {}\r\nConnection: Keep-Alive\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n1\n\r\n0\r\n\r\n")
        conn.wait_eof()

    c = chmuxd(fake(script).url)
    with c.client() as k:
        k.send(request("GET", "/?query=SELECT"))
        gates[0].set()  # a status line alone may wait for the first header line
        for i in range(5):
            while f'"{i}"'.encode() not in k.buf or not k.buf.endswith(b"\r\n"):
                k.fill()
            gates[i + 1].set()
        r = k.response()
        assert r.body == b"1\n" and r.complete and len(r.all("X-ClickHouse-Progress")) == 5


def test_the_head_goes_out_before_the_body_comes(chmuxd, fake, gate):
    g = gate()

    def script(conn):
        conn.request()
        conn.send(CHUNKED)
        conn.stall(g)
        conn.send(chunk(b"late") + b"0\r\n\r\n")

    c = chmuxd(fake(script).url)
    with c.client() as k:
        k.send(request("GET", "/?query=SELECT"))
        assert k.head().status == 200
        g.set()
        assert k.take(len(chunk(b"late"))) == chunk(b"late")


def test_each_part_of_an_upload_goes_out_before_the_next_comes_in(chmuxd, fake, gate):
    seen = [gate() for _ in range(10)]

    def script(conn):
        conn.head()
        for i, s in enumerate(seen):
            want = chunk(b"%d\tx\n" % i)
            assert conn.take(len(want)) == want
            s.set()
        assert conn.take(5) == b"0\r\n\r\n"
        conn.send(OK)

    c = chmuxd(fake(script).url)
    with c.client() as k:
        k.send(request("POST", "/?query=INSERT", [("Transfer-Encoding", "chunked")]))
        for i, s in enumerate(seen):
            k.send(chunk(b"%d\tx\n" % i))
            assert s.wait(10), f"part {i} of the upload is held back"
        k.send(b"0\r\n\r\n")
        assert k.response("POST").status == 200


def test_request_and_response_stream_at_the_same_time(chmuxd, fake):
    """Ping-pong: each answer chunk comes before the next request chunk is sent."""

    def script(conn):
        conn.head()
        conn.send(CHUNKED)
        for i in range(10):
            want = chunk(b"ping %d" % i)
            assert conn.take(len(want)) == want
            conn.send(chunk(b"pong %d" % i))
        assert conn.take(5) == b"0\r\n\r\n"
        conn.send(b"0\r\n\r\n")

    c = chmuxd(fake(script).url)
    with c.client() as k:
        k.send(request("POST", "/?query=X", [("Transfer-Encoding", "chunked")]))
        assert k.head().status == 200
        for i in range(10):
            k.send(chunk(b"ping %d" % i))
            want = chunk(b"pong %d" % i)
            assert k.take(len(want)) == want
        k.send(b"0\r\n\r\n")
        assert k.take(5) == b"0\r\n\r\n"


def test_sleepeachrow_rows_arrive_one_by_one(ch26, chmux26):
    """Eight rows, 0.15 s apart: the first long before the last, as direct. (18.16 holds such rows back itself.)"""
    spreads = []
    for where in (ch26, chmux26):
        with RawClient(where.addr) as k:
            k.send(request("GET", q("SELECT number, sleepEachRow(0.15) FROM numbers(8)", max_block_size=1)))
            r = k.response()
        assert r.complete and r.status == 200 and len(r.chunks) == 8, r
        spreads.append(r.chunks[-1][0] - r.chunks[0][0])
    assert min(spreads) > 0.5, f"direct {spreads[0]:.2f} s between first and last row, through {spreads[1]:.2f} s"


def test_progress_headers_arrive_while_the_query_runs(chmux26):
    with chmux26.client() as k:
        begin = time.monotonic()
        k.send(request("GET", q("SELECT sum(sleepEachRow(0.1)) FROM numbers(15)", send_progress_in_http_headers=1, max_block_size=1)))
        k.until(b"X-ClickHouse-Progress: ")
        first = time.monotonic() - begin
        k.until(b"\r\n\r\n")
        whole = time.monotonic() - begin
    assert whole > 1.2 and first < 0.9 * whole, (first, whole)


def test_a_slow_upload_that_moves_is_never_cut(chmuxd, fake):
    """Longer than stall_timeout in all, but never as long without a byte."""
    up = fake()
    c = chmuxd(up.url, chmux__stall_timeout="2s", chmux__head_timeout="2s")
    with c.client() as k:
        k.send(request("POST", "/?query=INSERT", [("Content-Length", "8")]))
        pace(k.send, [b"x"] * 8, 0.3)
        assert k.response("POST").status == 200


def test_a_slow_response_that_moves_is_never_cut(chmuxd, fake):
    def script(conn):
        conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n")
        pace(conn.send, [b"x"] * 8, 0.3)
        conn.wait_eof()

    c = chmuxd(fake(script).url, chmux__stall_timeout="1s")
    r = c.ask("GET", "/?query=SELECT")
    assert r.complete and r.body == b"x" * 8


def pace(send, parts, seconds):
    """The one place where time must really pass: sends parts that far apart."""
    import select

    for p in parts:
        send(p)
        select.select([], [], [], seconds)


def test_a_query_may_be_silent_longer_than_stall_timeout(chmuxd, fake, gate):
    """Not one byte comes while ClickHouse computes; that is no stall."""
    g = gate()

    def script(conn):
        conn.request()
        conn.stall(g)
        conn.send(OK)

    up = fake(script)
    c = chmuxd(up.url, chmux__stall_timeout="1s", chmux__idle_timeout="1s")
    answer = Background(lambda: c.ask("POST", "/", (), b"SELECT slow()"))
    up.wait_heads(1)
    answer.thread.join(2.5)
    assert answer.running, answer.result()
    g.set()
    assert answer.result().status == 200


def test_a_stalled_upload_is_given_up(chmuxd, fake):
    def script(conn):
        h = conn.head()
        assert conn.body(h) is None
        conn.wait_eof()

    up = fake(script)
    c = chmuxd(up.url, chmux__stall_timeout="1s")
    with c.client() as k:
        k.send(insert(b"1\ta\n" * 100)[:-10])
        r = k.response("POST")
        assert (r.status == 408 and r.header("X-Chmux-Error")) or r.status == 0, r
    up.wait_open(0)
    c.wait_metric('chmux_stalls_total{side="client"}', 1)


def test_a_reader_that_stops_for_ever_is_given_up(chmuxd, fake):
    from helpers import small_buffers

    def script(conn):
        conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        for _ in range(100):
            conn.send(bytes(1000000))

    up = fake(script)
    c = chmuxd(up.url, chmux__stall_timeout="1s")
    k = RawClient(None, sock=small_buffers(c.addr))
    k.send(request("GET", "/?query=SELECT"))
    k.head()
    up.wait_open(0)
    c.wait_metric('chmux_stalls_total{side="client"}', 1)
    k.close()


def test_a_server_silent_inside_a_body_is_waited_for(chmuxd, fake, gate):
    """A query may be silent for as long as it computes: stall_timeout is for those who should move.
    An upload that stalls, begun later, is given up meanwhile: so the time has passed."""
    g = gate()

    def script(conn):
        conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")
        g.wait()
        conn.send(b"more")
        conn.wait_eof()

    up = fake(script)
    c = chmuxd(up.url, chmux__stall_timeout="1s")
    silent = Background(lambda: c.ask("GET", "/?query=SELECT"))
    up.wait_heads(1)
    with c.client() as k:
        k.send(b"POST /?query=INSERT HTTP/1.1\r\nContent-Length: 10\r\n\r\nhalf")
        chmux_error(k.response(), "bad_request", 408)
    g.set()
    r = silent.result()
    assert r.status == 200 and r.complete and r.body == b"halfmore"


def test_a_slow_head_is_a_408(chmuxd, fake):
    """Counted from the first byte, whole head, however it drips."""
    up = fake()
    c = chmuxd(up.url, chmux__head_timeout="300ms")
    with c.client() as k:
        k.send(b"GET / HTTP/1.1\r\nX-Slow: ")
        r = k.response()
        chmux_error(r, "bad_request", 408)
        assert k.at_eof()
    assert up.accepted == 0


def test_an_idle_client_is_no_slow_head(chmuxd, fake):
    c = chmuxd(fake().url, chmux__head_timeout="100ms")
    with c.client() as k:
        k.sock.settimeout(0.5)
        with pytest.raises(TimeoutError):
            k.fill()
        k.sock.settimeout(10)
        k.send(request("GET", "/ping"))
        assert k.response().status == 200


def test_names_that_do_not_resolve_do_not_stop_the_loop(chmuxd):
    c = chmuxd("http://no-such-host.invalid:8123", upstream__connect_timeout="2s")
    waiting = Background(lambda: c.ask("GET", "/ping", timeout=60))
    begin = time.monotonic()
    assert c.admin("/live").status == 200
    assert time.monotonic() - begin < 3
    chmux_error(waiting.result(), "upstream_connect", 503, 210)
    wait_until(lambda: c.metric('chmux_resolves_total{result="failed"}') >= 1)


def test_the_loop_is_never_held_for_long(chmuxd, fake):
    """Callbacks over 10 ms are counted; a busy run has next to none (the machine may preempt us; blocking would show in most of the 320)."""
    from rig import chmuxd as rig

    if rig.sanitizer():
        pytest.skip("a sanitizer build is slow")
    c = chmuxd(fake().url)
    from helpers import parallel

    parallel(16, lambda i: [c.ask("POST", "/?query=INSERT", (), bytes(200000)) for _ in range(20)])
    assert c.metric("chmux_loop_slow_callbacks_total") < 32
