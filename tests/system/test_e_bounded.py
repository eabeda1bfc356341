"""e: P4 Bounded: memory does not grow with bodies, slow peers or idle clients.

The slow reader of 10 MB/s for 1 GiB is scaled in time, not in size: it reads in bursts and between two
bursts waits until the sender has been stopped, so every byte passes under full back pressure, and RSS is
sampled at each such moment. The whole GiB takes seconds instead of a hundred."""
import socket
import threading
import time

import pytest

from helpers import CHUNKED, OK, Background, fill_send_buffer, parallel, small_buffers
from rig.http1 import RawClient, request
from rig.wait import wait_until

MIB = 1 << 20
LIMIT = 32 * MIB
BLOCK = bytes(MIB)


class Sender:
    """A script that sends total bytes as 1 MiB chunks and counts what the socket took."""

    def __init__(self, total, length=False):
        self.total = total
        self.sent = 0
        self.length = length
        self.last = time.monotonic()

    def __call__(self, conn):
        conn.sock.settimeout(120)
        conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 256 * 1024)
        conn.request()
        if self.length:
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % self.total)
        else:
            conn.send(CHUNKED)
        while self.sent < self.total:
            if not self.length:
                conn.send(b"100000\r\n")
            conn.send(BLOCK)
            if not self.length:
                conn.send(b"\r\n")
            self.sent += MIB
            self.last = time.monotonic()
        if not self.length:
            conn.send(b"0\r\n\r\n")

    def blocked(self):
        """Nothing has gone out for a moment: back pressure has reached the sender."""
        return self.sent >= self.total or time.monotonic() - self.last > 0.02


@pytest.mark.slow
@pytest.mark.memory
@pytest.mark.parametrize("framing", ["chunked", "length"])
def test_1_gib_down_to_a_slow_reader_keeps_rss_under_32_mib(chmuxd, fake, framing, summary):
    total = 1024 * MIB
    sender = Sender(total, framing == "length")
    c = chmuxd(fake(sender, keep_bytes=False).url)
    k = RawClient(None, sock=small_buffers(c.addr))
    k.send(request("GET", "/?query=SELECT"))
    assert k.head().status == 200
    got, peak, into, bursts = len(k.buf), 0, bytearray(MIB), 0
    overhead = 0 if framing == "length" else total // MIB * 10 + 5  # "100000\r\n" + "\r\n", "0\r\n\r\n"
    while got < total + overhead:
        target = min(got + 32 * MIB, total + overhead)
        while got < target:
            n = k.sock.recv_into(into, min(MIB, target - got))
            assert n, f"ended after {got} bytes"
            got += n
        wait_until(sender.blocked, 20, "the sender to be stopped")
        peak = max(peak, c.rss())
        bursts += 1
    k.close()
    summary.append(f"1 GiB down ({framing}), reader stopped {bursts} times: peak RSS {c.peak_rss() / MIB:.1f} MiB")
    assert peak < LIMIT and c.peak_rss() < LIMIT, c.peak_rss()


@pytest.mark.slow
@pytest.mark.memory
def test_512_mib_up_to_a_stalled_server_keeps_rss_under_32_mib(chmuxd, fake, gate, summary):
    total = 512 * MIB
    g = gate()
    state = {"got": 0}

    def script(conn):
        conn.sock.settimeout(120)
        h = conn.head()
        assert h.header("Transfer-Encoding") == "chunked"
        conn.stall(g)
        body = conn.buf
        tail = bytes(body[-5:])
        got = len(body)
        conn.buf = bytearray()
        into = bytearray(MIB)
        bursts = 0
        while not tail.endswith(b"0\r\n\r\n"):
            n = conn.sock.recv_into(into)
            if not n:
                return
            got += n
            tail = (tail + bytes(into[max(0, n - 5) : n]))[-5:]
            state["got"] = got
            if got // (64 * MIB) > bursts:  # stall again, until the client has filled everything between
                bursts += 1
                state["stalled"] = threading.Event()
                conn.stall(state["stalled"])
        conn.send(OK)

    up = fake(script, keep_bytes=False, deadline=60, rcvbuf=65536)
    c = chmuxd(up.url)
    progress = {"sent": 0, "last": time.monotonic()}

    def upload():
        with RawClient(c.addr, timeout=120) as k:
            k.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
            k.send(request("POST", "/?query=INSERT", [("Transfer-Encoding", "chunked")]))
            for _ in range(total // MIB):
                k.send(b"100000\r\n")
                k.send(BLOCK)
                k.send(b"\r\n")
                progress["sent"] += MIB
                progress["last"] = time.monotonic()
            k.send(b"0\r\n\r\n")
            return k.response("POST")

    answer = Background(upload)
    up.wait_heads(1)
    stopped = lambda: time.monotonic() - progress["last"] > 0.1  # noqa: E731
    wait_until(stopped, what="the client to be stopped")
    assert progress["sent"] < 64 * MIB, "a stalled server did not stop the client"
    assert c.rss() < LIMIT
    g.set()
    seen = None
    while answer.running:
        barrier = state.get("stalled")
        if barrier is not None and barrier is not seen:
            wait_until(lambda: stopped() or progress["sent"] >= total, 20, "the client to be stopped again")
            assert c.rss() < LIMIT, c.rss()
            seen = barrier
            barrier.set()
        answer.thread.join(0.01)
    r = answer.result()
    assert r.status == 200 and r.complete
    assert state["got"] >= total
    summary.append(f"512 MiB up to a server that stalls: peak RSS {c.peak_rss() / MIB:.1f} MiB")
    assert c.peak_rss() < LIMIT, c.peak_rss()


@pytest.mark.memory
def test_fast_transfers_keep_rss_under_16_mib(chmuxd, fake):
    """256 MiB down and up between fast peers."""

    def script(conn):
        conn.sock.settimeout(60)
        while (h := conn.head()) is not None:
            left = int(h.header("Content-Length") or 0)
            while left:
                n = len(conn.buf) or (conn._fill() and len(conn.buf))
                if not n:
                    return
                left -= n
                conn.buf.clear()
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (256 * MIB if h.method == "GET" else 0))
            if h.method == "GET":
                for _ in range(256):
                    conn.send(BLOCK)

    c = chmuxd(fake(script, keep_bytes=False).url)
    with c.client() as k:
        k.send(request("GET", "/?query=SELECT"))
        k.head()
        got = len(k.buf)
        into = bytearray(MIB)
        while got < 256 * MIB:
            got += k.sock.recv_into(into)
    with c.client() as k:
        k.send(request("POST", "/?query=INSERT", [("Content-Length", str(256 * MIB))]))
        for _ in range(256):
            k.send(BLOCK)
        assert k.response("POST").status == 200
    assert c.peak_rss() < 16 * MIB, c.peak_rss()


@pytest.mark.memory
def test_64_slow_readers_share_one_budget(chmuxd, fake):
    """More stopped transfers than the budget could buffer: none is lost, RSS stays under the limit."""
    total = 8 * MIB

    def script(conn):
        conn.sock.settimeout(60)
        while conn.request() is not None:
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
            for _ in range(total // MIB):
                conn.send(BLOCK)

    c = chmuxd(fake(script, keep_bytes=False).url, upstream__pool_size=64, chmux__memory_limit="16m", chmux__buffer_size="64k")
    clients = [RawClient(None, sock=small_buffers(c.addr, 16384)) for _ in range(64)]
    for k in clients:
        k.send(request("GET", "/?query=SELECT"))
    c.wait_metric('chmux_upstream_connections{state="active"}', 64)
    wait_until(lambda: c.metric('chmux_bytes_total{side="upstream",direction="in"}') > 64 * 16384)
    assert c.rss() < LIMIT, c.rss()

    def drain(i):
        r = clients[i].response()
        clients[i].close()
        return r.status, r.complete, len(r.body)

    answers = parallel(64, drain)
    for status, complete, size in answers:
        # memory_limit may refuse a request, with its own status; it may not cut or stall one
        assert (status, complete, size) == (200, True, total) or (status == 503 and complete), (status, complete, size)
    assert sum(a[0] == 200 for a in answers) >= 32
    assert c.peak_rss() < LIMIT, c.peak_rss()
    assert c.metric("chmux_memory_used_bytes") <= 16 * MIB


@pytest.mark.memory
def test_bodies_of_queued_requests_cost_next_to_nothing(chmuxd, fake, gate):
    g = gate()

    def script(conn):
        while conn.request() is not None:
            conn.stall(g)
            conn.send(OK)

    up = fake(script, keep_bytes=False, deadline=60)
    c = chmuxd(up.url, upstream__pool_size=1)
    first = Background(lambda: c.ask("GET", "/ping"))
    up.wait_heads(1)
    before = c.rss()
    clients = []
    for _ in range(100):
        k = RawClient(c.addr)
        k.send(request("POST", "/?query=INSERT", [("Content-Length", str(4 * MIB))]))
        k.sock.setblocking(False)
        try:
            k.sent = k.sock.send(bytes(4 * MIB))
        except BlockingIOError:
            k.sent = 0
        k.sock.settimeout(60)
        clients.append(k)
    c.wait_metric("chmux_queue_waiting", 100)
    assert c.rss() - before < 8 * MIB, c.rss() - before
    g.set()
    assert first.result().status == 200

    def finish(i):
        clients[i].send(bytes(4 * MIB - clients[i].sent))
        return clients[i].response("POST").status

    assert parallel(100, finish) == [200] * 100
    assert c.peak_rss() < LIMIT


@pytest.mark.memory
def test_2000_idle_clients_cost_at_most_2_kib_each(chmuxd, fake, summary):
    up = fake()
    c = chmuxd(up.url)
    before = c.rss()
    clients = [RawClient(c.addr) for _ in range(2000)]
    for k in clients:
        k.send(request("GET", "/ping"))
        assert k.response().status == 200
    each = (c.rss() - before) / len(clients)
    summary.append(f"2000 idle keep-alive clients that each made a request: {each:.0f} B of RSS each")
    assert each <= 2048, each
    for k in clients:
        k.close()


@pytest.mark.san
def test_20000_progress_lines_pass_without_a_limit(chmuxd, fake):
    """What a 30-minute query at 100 ms makes: 2.5 MB of header lines in one block."""
    line = b'X-ClickHouse-Progress: {"read_rows":"%d","read_bytes":"%d","total_rows_to_read":"100000000","elapsed_ns":"302967207","memory_usage":"1161943"}\r\n'

    def script(conn):
        conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\n")
        for i in range(0, 20000, 100):
            conn.send(b"".join(line % (n, n * 8) for n in range(i, i + 100)))
        conn.send(b"X-ClickHouse-Summary: {}\r\nConnection: Keep-Alive\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n1\n\r\n0\r\n\r\n")
        conn.wait_eof()

    c = chmuxd(fake(script).url)
    r = c.ask("GET", "/?query=SELECT", timeout=60)
    values = r.all("X-ClickHouse-Progress")
    assert r.complete and r.body == b"1\n" and len(values) == 20000
    assert [v.split('"')[3] for v in values] == [str(i) for i in range(20000)]
    assert r.headers[-2][0] == "X-ClickHouse-Summary" or r.header("X-ClickHouse-Summary") == "{}"


@pytest.mark.memory
def test_a_slow_reader_of_progress_headers_is_bounded_too(chmuxd, fake):
    """Header lines obey back pressure like a body."""
    line = b"X-ClickHouse-Progress: " + b"x" * 4000 + b"\r\n"
    state = {"sent": 0, "last": time.monotonic()}

    def script(conn):
        conn.sock.settimeout(60)
        conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\n")
        for _ in range(32 * MIB // len(line)):
            conn.send(line)
            state["sent"] += len(line)
            state["last"] = time.monotonic()
        conn.send(b"Content-Length: 0\r\n\r\n")

    c = chmuxd(fake(script).url)
    k = RawClient(None, sock=small_buffers(c.addr))
    k.send(request("GET", "/?query=SELECT"))
    assert k.line() == b"HTTP/1.1 200 OK\r\n"
    wait_until(lambda: time.monotonic() - state["last"] > 0.1, what="the server to be stopped")
    assert c.rss() < LIMIT and state["sent"] < 24 * MIB, (c.rss(), state["sent"])
    k.buf[:0] = b"HTTP/1.1 200 OK\r\n"
    r = k.response()
    assert r.complete and len(r.all("X-ClickHouse-Progress")) == 32 * MIB // len(line)
    assert c.peak_rss() < LIMIT


@pytest.mark.san
def test_memory_is_given_back(chmuxd, fake):
    c = chmuxd(fake().url)
    parallel(32, lambda i: [c.ask("POST", "/?query=INSERT", (), bytes(300000)) for _ in range(10)])
    wait_until(lambda: c.metric("chmux_exchanges") == 0)
    assert c.metric("chmux_memory_used_bytes") < 2 * MIB


@pytest.mark.san
def test_a_stopped_reader_stops_the_server(chmuxd, fake):
    sender = Sender(256 * MIB)
    c = chmuxd(fake(sender, keep_bytes=False).url)
    k = RawClient(None, sock=small_buffers(c.addr))
    k.send(request("GET", "/?query=SELECT"))
    k.head()
    wait_until(lambda: sender.sent and sender.blocked() and time.monotonic() - sender.last > 0.2, 30)
    # What TCP itself holds: tcp_rmem may be 32 MiB, tcp_wmem 4.
    assert sender.sent < 64 * MIB, f"{sender.sent >> 20} MiB went towards a reader that does not read"
    k.close()


@pytest.mark.san
def test_a_stopped_server_stops_the_client(chmuxd, fake, gate):
    g = gate()

    def script(conn):
        conn.head()
        conn.stall(g)

    up = fake(script, rcvbuf=65536, keep_bytes=False)
    c = chmuxd(up.url)
    with c.client() as k:
        k.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        k.send(request("POST", "/?query=INSERT", [("Content-Length", str(256 * MIB))]))
        assert fill_send_buffer(k.sock, BLOCK, 256 * MIB) < 32 * MIB
    g.set()


def test_a_reader_that_is_slower_than_its_buffer_is_no_stall(chmuxd, fake):
    """The kernel says "writable" for a third of a megabyte or more: more than it takes in stall_timeout."""
    c = chmuxd(fake(Sender(64 * MIB), keep_bytes=False).url, chmux__stall_timeout="2s")
    with RawClient(c.addr, sock=small_buffers(c.addr)) as k:
        k.send(request("GET", "/?query=SELECT+1"))
        end = time.monotonic() + 6
        while time.monotonic() < end:
            assert k.sock.recv(16384)
            time.sleep(0.1)
        assert c.metric('chmux_stalls_total{side="client"}') == 0
