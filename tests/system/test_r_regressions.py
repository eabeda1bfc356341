"""r: what was once wrong. Each test failed before its fix."""
import contextlib
import os
import select
import signal
import socket
import subprocess

import pytest

from helpers import INSERT, OK, Background, chmux_error, chunk, fill_send_buffer, insert, parallel, q
from recode import encode, mine
from rig.chmuxd import EXIT_START, Chmuxd, binary
from rig.clickhouse import die_with_parent
from rig.fake import serve_ok
from rig.http1 import Closed, request
from rig.wait import wait_until

pytestmark = pytest.mark.san
IDLE = 'chmux_upstream_connections{state="idle"}'
FROM_UPSTREAM = 'chmux_bytes_total{side="upstream",direction="in"}'
EXPECT = [("Expect", "100-continue")]


def ends_after_the_body(conn):
    conn.request()


# ---- 100 Continue is no answer yet
def test_an_upstream_lost_after_100_continue_is_an_error_status(chmuxd, fake):
    """The 100 counted as the first bytes of a response, so a failure after it could only cut."""
    c = chmuxd(fake(ends_after_the_body).url)
    with c.client() as k:
        k.send(request("POST", INSERT, EXPECT + [("Content-Length", "4")]))
        assert k.until(b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        k.send(b"1\ta\n")
        chmux_error(k.response(), "upstream_closed", 502)


def test_a_bad_chunk_after_100_continue_is_an_error_status(chmuxd, fake):
    c = chmuxd(fake(lambda conn: conn.wait_eof()).url)
    with c.client() as k:
        k.send(request("POST", INSERT, EXPECT + [("Transfer-Encoding", "chunked")]))
        k.until(b"\r\n\r\n")
        k.send(b"4\r\n1\ta\n\r\nxyz\r\n")
        chmux_error(k.response(), "bad_request", 400)


def test_a_retry_after_100_continue_that_finds_no_server_is_an_error_status(chmuxd, fake):
    """A request that waited for its second connection had bytes out already: chmuxd aborted."""

    def script(conn):
        conn.request()
        conn.send(OK)
        conn.head()
        conn.fake.sock.shutdown(socket.SHUT_RDWR)  # nobody listens any more
        conn.fake.sock.close()
        conn.take(8)

    c = chmuxd(fake(script).url)
    with c.client() as k:
        k.send(request("GET", "/ping"))
        assert k.response().status == 200
        k.send(request("POST", "/", EXPECT + [("Content-Length", "8")]))
        assert k.until(b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        k.send(b"SELECT 1")
        chmux_error(k.response(), "upstream_connect", 503)
    assert c.metric("chmux_upstream_retries_total") == 1


def test_an_early_hint_is_no_answer_yet(chmuxd, fake, gate):
    g = gate()

    def script(conn):
        conn.request()
        conn.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
        conn.stall(g)

    c = chmuxd(fake(script).url)
    with c.client() as k:
        k.send(insert(b"x"))
        assert k.until(b"\r\n\r\n").startswith(b"HTTP/1.1 103 ")
        g.set()
        chmux_error(k.response(), "upstream_closed", 502)


# ---- interim responses of a server that means harm, or is broken
def test_progress_lines_of_a_100_stay_here(chmuxd, fake, gate):
    """They went out at once, and the head that was then dropped lacked its end."""
    g = gate()

    def script(conn):
        conn.request()
        conn.send(b"HTTP/1.1 100 Continue\r\nX-ClickHouse-Progress: {}\r\n")
        conn.stall(g)
        conn.send(b"\r\n" + OK)

    c = chmuxd(fake(script).url)
    with c.client() as k:
        k.send(request("GET", "/"))
        c.wait_metric(FROM_UPSTREAM, lambda v: v > 0)
        g.set()
        r = k.response()
        assert r.status == 200 and r.complete and r.header("X-ClickHouse-Progress") is None


def test_an_endless_interim_head_is_an_error_and_no_hang(chmuxd, fake):
    def script(conn):
        conn.request()
        conn.send(b"HTTP/1.1 103 Early Hints\r\n" + b"Link: </xxxxxxxxxxxxxxxxxxxxxx>\r\n" * 4000 + b"\r\n" + OK)
        conn.wait_eof()

    chmux_error(chmuxd(fake(script).url).ask("GET", "/"), "upstream_closed", 502)


def test_a_101_nobody_asked_for_is_an_error(chmuxd, fake):
    """It passed as an interim response, and a client would have spoken another protocol then."""

    def script(conn):
        conn.request()
        conn.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        conn.wait_eof()

    up = fake(script)
    chmux_error(chmuxd(up.url).ask("GET", "/"), "upstream_closed", 502)
    up.wait_open(0)


@pytest.mark.parametrize("flood", [b"HTTP/1.1 100 Continue\r\n\r\n", b"Keep-Alive: timeout=3\r\n"], ids=["100", "field"])
def test_a_flood_of_what_stays_here_starves_nobody(chmuxd, fake, flood):
    """Nothing of it reaches the client, so nothing ended the loop that read it."""

    def script(conn):
        conn.request()
        if flood.startswith(b"Keep"):
            conn.send(b"HTTP/1.1 200 OK\r\n")
        while not conn.eof.is_set():
            conn.send(flood * 40000)

    up = fake([script, script, serve_ok])
    c = chmuxd(up.url)
    with c.client() as a, c.client() as b:
        a.send(request("GET", "/a"))
        b.send(request("GET", "/b"))
        up.wait_heads(2)
        for _ in range(5):
            assert c.ask("GET", "/other", timeout=10).status == 200


def test_an_interim_response_to_a_kill_is_not_its_answer(chmuxd, fake, gate):
    """The connection went back to the pool before the answer, which then met the next request."""
    g = gate()

    def kill(conn):
        conn.request()
        conn.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        conn.stall(g)
        conn.send(OK)
        serve_ok(conn)

    up = fake([lambda conn: (conn.request(), conn.wait_eof()), kill, serve_ok])
    c = chmuxd(up.url, upstream__pool_size=2)
    k = c.client()
    k.send(request("POST", "/", (), b"SELECT slow"))
    up.wait_heads(1)
    k.close()
    up.wait_heads(2)
    assert c.ask("GET", "/").status == 200  # on the third: by now the 100 has been read
    assert c.metric('chmux_kill_queries_total{result="ok"}') == 0
    g.set()
    c.wait_metric('chmux_kill_queries_total{result="ok"}', 1)
    assert c.ask("GET", "/").status == 200 and up.accepted == 3


# ---- the way up
def test_a_tls_server_that_resets_a_stalled_upload_is_noticed_at_once(chmuxd, fake, pki, gate):
    """The failed write forgot that the end could still be read: the exchange hung for stall_timeout."""
    g = gate()

    def script(conn):
        conn.head()
        conn.stall(g)
        conn.reset()

    up = fake(script, tls=pki.server_context())
    c = chmuxd(up.url, upstream__tls_ca_file=pki.ca)
    with c.client(timeout=15) as k:
        k.send(request("POST", INSERT, [("Content-Length", str(256 << 20))]))
        up.wait_heads(1)
        fill_send_buffer(k.sock, b"x" * 65536, 256 << 20)
        g.set()
        k.sock.settimeout(15)
        chmux_error(k.response(), "upstream_closed", 502)


@pytest.mark.parametrize("chunked", [True, False])
def test_a_cut_upload_is_reset_upstream(chmuxd, fake, chunked):
    """18.16 takes a plain end of stream for the end of the data and commits what came."""
    up = fake(lambda conn: (conn.head(), conn.wait_eof()))
    c = chmuxd(up.url)
    k = c.client()
    k.send(insert(b"1\ta\n" * 1000, chunked=chunked)[:-6])
    up.wait_heads(1)
    wait_until(lambda: up.conns[0].received_count > 3000)
    k.close()
    up.wait_open(0)
    assert up.conns[0].was_reset, "the server saw a plain end of stream"


# ---- clients that leave, or come, at the wrong moment
def stopped(c, act):
    """Runs act() while chmuxd is stopped, so that it then sees everything at once."""
    c.signal(signal.SIGSTOP)
    try:
        return act()
    finally:
        c.signal(signal.SIGCONT)


def test_a_client_that_sent_and_closed_in_one_go_does_not_queue(chmuxd, fake, gate):
    """The event that told of its end had come with its request: no other would."""
    g = gate()

    def script(conn):
        while conn.request() is not None:
            conn.stall(g)
            conn.send(OK)

    up = fake(script)
    c = chmuxd(up.url, upstream__pool_size=1)
    first = Background(lambda: c.ask("GET", "/first"))
    up.wait_heads(1)

    def come_and_go():
        for target in ("/gone", "/?session_id=s&query=SELECT+1", "/?session_id=s&query=SELECT+2"):
            with c.client() as k:
                k.send(request("GET", target))

    stopped(c, come_and_go)
    c.wait_metric('chmux_exchanges_finished_total{result="client_gone"}', 3)
    assert c.metric("chmux_queue_waiting") == 0
    g.set()
    assert first.result().status == 200 and len(up.heads) == 1


def test_a_request_that_came_with_sigterm_is_served(chmuxd, fake):
    """Accepted and closed unread, as an idle client, by the drain."""
    c = chmuxd(fake(serve_ok).url)

    def come():
        clients = [c.client() for _ in range(10)]
        for k in clients:
            k.send(request("GET", "/"))
        c.signal(signal.SIGTERM)
        return clients

    for k in stopped(c, come):
        r = k.response()
        assert r.status == 200 and r.complete and r.header("Connection") == "Close", r
        k.close()
    assert c.wait_exit() == 0


# ---- no memory left
def test_admin_answers_when_the_budget_is_spent(chmuxd, fake):
    """/live failed and /metrics came back empty exactly when they were needed."""
    c = chmuxd(fake().url, chmux__memory_limit="8m", chmux__buffer_size="16k", chmux__head_timeout="10m")
    held = []
    for size in (100000, 10000, 1000):  # unfinished heads, smaller and smaller, until one is refused
        batch = [c.client() for _ in range(150)]
        for k in batch:
            try:
                k.send(b"GET / HTTP/1.1\r\nX: " + b"x" * size)
            except (BrokenPipeError, ConnectionResetError):
                pass  # refused already
        held += batch
        assert select.select([k.sock for k in batch], [], [], 20)[0], "never refused"
    m = c.metrics()
    assert m["chmux_memory_limit_bytes"] - m["chmux_memory_used_bytes"] < 64 << 10
    assert m['chmux_refused_total{reason="memory"}'] >= 3
    assert c.admin("/live").body == b"ok\n"
    assert c.admin("/ready").status == 200
    for k in held:
        k.close()
    wait_until(lambda: c.ask("GET", "/").status == 200)


# ---- what one client sends must not become another's answer
@pytest.mark.parametrize("name", ["a body behind a GET to a page", "a chunk size of ten digits", "trailers"])
def test_no_request_of_one_client_answers_another_on_18(ch18, chmuxd, name):
    """18.16 ends these requests elsewhere than we do; their connection was used again."""
    inner = request("GET", q("SELECT 7777"))
    post = request("POST", q("SELECT 1"), [("Transfer-Encoding", "chunked")])
    evil = {
        "a body behind a GET to a page": request("GET", "/ping", (), inner),
        "a chunk size of ten digits": post + b"%010x\r\n" % (len(inner) + 2) + b"\r\n" + inner + b"\r\n0\r\n\r\n",
        "trailers": post + b"0\r\nX: y\r\n\r\n",
    }[name]
    c = chmuxd(ch18.url, upstream__pool_size=1)
    for _ in range(10):
        with c.client() as a, c.client() as b:
            a.send(evil)
            a.response()
            b.send(request("GET", q("SELECT 2")))
            r = b.response()
            assert r.status == 200 and r.body == b"2\n", r


def test_pipelined_answers_keep_their_order_whatever_they_are(chmuxd, fake):
    """Served, refused and broken ones behind each other, in one write."""

    def script(conn):
        while (h := conn.head()) is not None:
            conn.body(h)
            if "die" in h.target:
                return
            text = h.target.encode()
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))

    c = chmuxd(fake(script).url)
    targets = ["/0", "/die", "/2", "/3", "/die", "/5"]
    with c.client() as k:
        k.send(b"".join(request("POST", t, (), b"x" * 10) for t in targets))
        for t in targets:
            r = k.response()
            if t == "/die":
                chmux_error(r, "upstream_closed", 502)
            else:
                assert r.status == 200 and r.body == t.encode(), r
        k.send(b"BAD\r\n\r\n")
        assert k.response().status == 400
        with pytest.raises(Closed):
            k.fill()


# ---- a body that was checked but not sent is no next request
def test_body_bytes_left_behind_are_not_taken_for_the_next_request(chmuxd, fake, gate):
    """The server stops reading while chmux holds the last block of a body: its answer was a 504 that kept the
    connection, and the block became the beginning of the next request, whose method was then unknown. Which size
    leaves the last block behind depends on the kernel's buffers, so all of them are tried, in steps of less than
    a block."""
    g = gate()

    def stops_reading(conn):
        if conn.head().method == "POST":
            g.wait()

    up = fake(stops_reading, keep_bytes=False)
    c = chmuxd(up.url, upstream__pool_size=32, chmux__stall_timeout="1s", upstream__response_timeout="2s")

    def one(i):
        with c.client() as k:
            try:
                k.send(request("POST", INSERT, (), b"x" * (400_000 * (i + 1))))
            except (BrokenPipeError, ConnectionResetError):
                pass
            r = k.response()
            if r.complete and r.header("Connection", "").lower() != "close":
                k.send(request("GET", "/ping"))
                k.response()

    parallel(30, one)
    assert c.metric('chmux_refused_total{reason="upstream_timeout"}') > 0, "the server took everything"
    g.set()
    assert not {h.method for _, h in up.heads} - {"POST", "GET"}
    assert c.metric('chmux_refused_total{reason="bad_request"}') == 0


# ---- what codec threads finish while the loop is on its way elsewhere
@contextlib.contextmanager
def late_loop(c, by):
    """Every turn of chmuxd's loop begins `by` seconds after what woke it, so that events and timers meet."""
    delay = f"inject=epoll_wait,epoll_pwait,epoll_pwait2:delay_exit={by * 1e6:.0f}"
    cmd = ["strace", "-f", "-p", str(c.pid), "-o", "/dev/null", "-e", "trace=epoll_wait,epoll_pwait,epoll_pwait2", "-e", delay]
    with subprocess.Popen(cmd, stderr=subprocess.PIPE, text=True) as tracer:
        try:
            assert "attached" in tracer.stderr.readline()
            yield
        finally:
            tracer.terminate()


def test_output_of_a_pipe_that_came_just_now_is_no_stalled_client(fake, gate):
    """Two races: the timer that looks after a client found output that a codec thread had just finished, and took
    it for a client that does not read; and a body left before its head."""
    plain = b"".join(b"%d\trow\n" % i for i in range(4000))
    part = chunk(encode("zstd", plain))
    n = 32
    gates = [gate(), gate()]

    def script(conn):
        while (h := mine(conn)) is not None:
            conn.body(h)
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Encoding: zstd\r\nTransfer-Encoding: chunked\r\n\r\n" + part)
            conn.stall(gates[int(h.query_id[-1])])
            conn.send(part + b"0\r\n\r\n")

    up = fake(script, deadline=120)
    with Chmuxd(up.url, chmux__inline_limit=0, chmux__workers=2, upstream__pool_size=n,
                upstream__response_compression="zstd") as c:
        clients = [c.client() for _ in range(n)]

        def ask(turn):
            for i, k in enumerate(clients):
                k.send(request("GET", f"/?query_id=recode-{i}-{turn}"))
            for k in clients:
                assert k.until(b"3999\trow\n").startswith(b"HTTP/1.1 200 OK\r\n")
            gates[turn].set()
            for k in clients:
                assert k.until(b"\r\n0\r\n\r\n").endswith(b"3999\trow\n\r\n0\r\n\r\n")

        ask(0)
        with late_loop(c, 0.15):  # that timer's time is 0.1 s from the request
            ask(1)
        assert c.metric('chmux_stalls_total{side="client"}') == 0


# ---- a reset must not overtake what was sent before it
def test_a_cut_answer_that_ends_with_the_connection_arrives_up_to_the_cut(chmuxd, fake):
    """The reset that keeps a cut answer from looking whole threw away what the client had not yet taken: the
    exception at its end above all."""
    body = b"".join(b"%08d\n" % i for i in range(100000)) + b"__exception__\r\nboom"

    def script(conn):
        conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(body) + b"10\r\n")

    c = chmuxd(fake(script).url)
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.settimeout(30)
        s.connect(c.addr)
        s.sendall(b"GET /?query=SELECT+1 HTTP/1.0\r\n\r\n")  # gets no chunks, so the end is a FIN or a reset
        c.wait_metric('chmux_exchanges_finished_total{result="cut_upstream"}', 1)
        got = b""
        with pytest.raises(ConnectionResetError):
            while data := s.recv(65536):
                got += data
    assert got.partition(b"\r\n\r\n")[2] == body
    c.wait_metric("chmux_clients", 0)


def test_a_cut_answer_waits_no_longer_than_for_a_client_that_takes_it(chmuxd, fake):
    def script(conn):
        conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"x" * 900000) + b"10\r\n")

    c = chmuxd(fake(script).url, chmux__stall_timeout="1s")
    for how in ("stays", "leaves"):
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.settimeout(30)
            s.connect(c.addr)
            s.sendall(b"GET /?query=SELECT+1 HTTP/1.0\r\n\r\n")
            c.wait_metric('chmux_exchanges_finished_total{result="cut_upstream"}', 1 if how == "stays" else 2)
            if how == "leaves":
                s.close()
            c.wait_metric("chmux_clients", 0)


# ---- a standard descriptor that is closed at the start is not taken by anything else
def test_closed_standard_descriptors_stay_harmless(fake, tmp_path):
    """epoll got number 2, or a socket, and the log was written into it."""
    def close_them():
        die_with_parent()
        for fd in range(3):
            os.close(fd)

    address = f"{tmp_path}/s"
    p = subprocess.Popen([binary(), "--listen", f"unix:{address}", "--admin", f"unix:{tmp_path}/a", "--upstream", fake().url],
                         preexec_fn=close_them)
    try:
        wait_until(lambda: os.path.exists(address) or p.poll() is not None)
        assert [os.readlink(f"/proc/{p.pid}/fd/{fd}") for fd in range(3)] == ["/dev/null"] * 3
        tool = os.path.join(os.path.dirname(binary()), "chmux")
        assert subprocess.run([tool, "--admin", f"unix:{tmp_path}/a", "wait", "--ready"], preexec_fn=close_them).returncode == 0
        assert subprocess.run([tool, "--admin", f"unix:{tmp_path}/a", "status"], preexec_fn=close_them).returncode == 0
    finally:
        p.terminate()
    assert p.wait(30) == 0


# ---- what cannot be printed is told
@pytest.mark.parametrize("option", ["--check", "--print-config", "--version", "--help"])
def test_an_output_that_is_full_is_an_error(option):
    with open("/dev/full", "w") as full:
        p = subprocess.run([binary(), option], stdout=full, stderr=subprocess.PIPE, text=True)
    assert p.returncode == EXIT_START and "chmuxd: cannot write to the standard output: " in p.stderr
