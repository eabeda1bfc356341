"""c: P2 Capped: never more than pool_size upstream connections; more work waits in a bounded queue."""
import socket

import pytest

from helpers import OK, Background, chmux_error, fill_send_buffer, insert, parallel, q
from rig.fake import Silent
from rig.http1 import RawClient, ask, request
from rig.wait import wait_until

pytestmark = [pytest.mark.san, pytest.mark.loop]
CONNECTIONS = "chmux_upstream_connections"


def holding(gate):
    """A script that answers each request only when the gate is open."""

    def script(conn):
        while conn.request() is not None:
            conn.stall(gate)
            conn.send(OK)

    return script


def test_64_keep_alive_clients_never_open_more_than_pool_size(chmuxd, fake):
    up = fake()
    c = chmuxd(up.url, upstream__pool_size=16)

    def client(i):
        with c.client() as k:
            for n in range(30):
                k.send(request("POST", "/", (), b"SELECT %d" % n))
                r = k.response()
                assert r.status == 200 and r.body == b"ok\n"

    parallel(64, client)
    assert up.peak <= 16 and up.accepted <= 16, (up.peak, up.accepted)
    assert len(up.heads) == 64 * 30
    assert c.metric("chmux_upstream_connections_peak") <= 16


def test_300_short_lived_clients_never_open_more_than_pool_size(chmuxd, fake):
    up = fake()
    c = chmuxd(up.url, upstream__pool_size=16)

    def client(i):
        for _ in range(3):
            r = ask(c.addr, "GET", "/ping")
            assert r.status == 200 and r.body == b"ok\n"

    parallel(100, client)
    assert up.peak <= 16 and up.accepted <= 16, (up.peak, up.accepted)
    assert len(up.heads) == 300


def test_64_clients_on_real_clickhouse_stay_under_the_cap(ch26, chmuxd, relay):
    """Counted by a relay in front of the server, on 26.7, streaming results included."""
    between = relay(ch26.addr)
    c = chmuxd(f"http://127.0.0.1:{between.port}", upstream__pool_size=8)

    def client(i):
        for n in range(5):
            r = ask(c.addr, "POST", "/", (), b"SELECT number FROM numbers(20000)")
            assert r.status == 200 and r.complete and r.body.count(b"\n") == 20000

    parallel(64, client)
    assert between.peak <= 8, between.peak


def test_the_cap_holds_while_clients_abort(chmuxd, fake):
    """Clients that reset in every state, kills included: closing sockets count too."""
    up = fake()
    c = chmuxd(up.url, upstream__pool_size=4)
    whole = insert(b"1\ta\n" * 100)

    def client(i):
        for n in range(20):
            k = RawClient(c.addr)
            try:
                if n % 4 == 0:
                    k.send(request("GET", q("SELECT 1")))
                elif n % 4 == 1:
                    k.send(whole[: len(whole) // 2])
                elif n % 4 == 2:
                    k.send(whole[:20])
                else:
                    k.send(request("POST", "/", (), b"SELECT 1"))
                    k.response()
                k.reset()
            except ConnectionResetError:
                k.close()

    parallel(24, client)
    assert up.peak <= 4, up.peak
    assert c.metric("chmux_upstream_connections_peak") <= 4
    wait_until(lambda: c.metric("chmux_exchanges") == 0, what="all exchanges to end")
    assert c.ask("GET", "/ping").status == 200


def test_requests_wait_when_all_connections_are_busy(chmuxd, fake, gate):
    g = gate()
    up = fake(holding(g))
    c = chmuxd(up.url, upstream__pool_size=2)
    answers = [Background(lambda: c.ask("GET", "/ping")) for _ in range(6)]
    up.wait_heads(2)
    c.wait_metric("chmux_queue_waiting", 4)
    m = c.metrics()
    assert m[CONNECTIONS + '{state="active"}'] == 2 and m["chmux_upstream_pool_size"] == 2
    assert up.accepted == 2
    g.set()
    assert [a.result().status for a in answers] == [200] * 6
    assert up.peak == 2 and c.metric("chmux_queue_waits_total") >= 4


def test_a_request_that_waits_twice_counts_once(chmuxd, fake, gate):
    """First for its session, then for the connection, which another one got."""
    g = gate()
    up = fake(holding(g))
    c = chmuxd(up.url, upstream__pool_size=1)
    answers = [Background(lambda: c.ask("GET", "/a?session_id=s"))]
    up.wait_heads(1)
    before = c.metric("chmux_queue_waits_total")  # the first one waited for the connect
    for i, target in enumerate(("/b", "/c?session_id=s")):
        answers.append(Background(lambda target=target: c.ask("GET", target)))
        c.wait_metric("chmux_queue_waits_total", before + i + 1)
    g.set()
    assert [a.result().status for a in answers] == [200] * 3
    assert [h.target for _, h in up.heads] == ["/a?session_id=s", "/b", "/c?session_id=s"]
    assert c.metric("chmux_queue_waits_total") == before + 2


def test_a_full_queue_is_a_503(chmuxd, fake, gate):
    g = gate()
    up = fake(holding(g))
    c = chmuxd(up.url, upstream__pool_size=1, upstream__queue_size=2)
    waiting = [Background(lambda: c.ask("GET", "/ping")) for _ in range(3)]
    up.wait_heads(1)
    c.wait_metric("chmux_queue_waiting", 2)
    r = chmux_error(c.ask("GET", q("SELECT 1")), "queue_full", 503, 202)
    assert int(r.header("Retry-After")) >= 1
    assert c.metric('chmux_refused_total{reason="queue_full"}') == 1
    g.set()
    assert [w.result().status for w in waiting] == [200] * 3
    assert len(up.heads) == 3, "the refused request reached the server"


def test_a_late_request_is_a_503(chmuxd, fake, gate):
    g = gate()
    up = fake(holding(g))
    c = chmuxd(up.url, upstream__pool_size=1, upstream__queue_timeout="1s")
    first = Background(lambda: c.ask("GET", "/ping"))
    up.wait_heads(1)
    r = chmux_error(c.ask("POST", "/", (), b"SELECT 1"), "queue_timeout", 503, 202)
    assert r.header("Retry-After")
    g.set()
    assert first.result().status == 200
    assert c.metric('chmux_refused_total{reason="queue_timeout"}') == 1 and len(up.heads) == 1


def test_a_refused_client_connection_stays_usable(chmuxd, fake, gate):
    g = gate()
    up = fake(holding(g))
    c = chmuxd(up.url, upstream__pool_size=1, upstream__queue_size=0)
    first = Background(lambda: c.ask("GET", "/ping"))
    up.wait_heads(1)
    with c.client() as k:
        k.send(request("GET", "/ping"))
        r = chmux_error(k.response(), "queue_full", 503)
        if r.header("Connection", "").lower() == "close":
            pytest.fail("a refusal without a body costs the client its connection")
        g.set()
        assert first.result().status == 200
        wait_until(lambda: c.metric(CONNECTIONS + '{state="active"}') == 0)
        k.send(request("GET", "/ping"))
        assert k.response().status == 200


def test_the_body_of_a_queued_request_is_not_read(chmuxd, fake, gate):
    """Beyond a small buffer (and the kernel's)."""
    g = gate()
    up = fake(holding(g))
    c = chmuxd(up.url, upstream__pool_size=1)
    first = Background(lambda: c.ask("GET", "/ping"))
    up.wait_heads(1)
    with c.client() as k:
        k.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        size = 64 << 20
        k.send(request("POST", "/?query=INSERT", [("Content-Length", str(size))]))
        sent = fill_send_buffer(k.sock, b"x" * 65536, size)
        assert sent < 16 << 20, f"{sent} bytes of a queued body were taken"
        assert c.metric('chmux_bytes_total{side="client",direction="in"}') < 1 << 20
    g.set()
    assert first.result().status == 200


def test_expect_is_answered_only_once_a_lease_is_held(chmuxd, fake, gate):
    g = gate()
    up = fake(holding(g))
    c = chmuxd(up.url, upstream__pool_size=1)
    first = Background(lambda: c.ask("GET", "/ping"))
    up.wait_heads(1)
    with c.client() as k:
        k.send(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 8\r\n\r\n")
        c.wait_metric("chmux_queue_waiting", 1)
        k.sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            k.line()
        k.sock.settimeout(30)
        g.set()
        assert k.line() == b"HTTP/1.1 100 Continue\r\n"
        k.line()
        k.send(b"SELECT 1")
        assert k.response().status == 200
    assert first.result().status == 200


def test_idle_connections_are_reused_most_recent_first(chmuxd, fake, gate):
    g = gate()
    up = fake(holding(g))
    c = chmuxd(up.url, upstream__pool_size=4)
    busy = [Background(lambda: c.ask("GET", "/ping")) for _ in range(4)]
    up.wait_heads(4)
    g.set()
    for b in busy:
        b.result()
    wait_until(lambda: c.metric(CONNECTIONS + '{state="idle"}') == 4)
    before = len(up.heads)
    for _ in range(20):
        assert c.ask("GET", "/ping").status == 200
    used = {number for number, _ in up.heads[before:]}
    assert len(used) == 1, f"20 requests one after the other went over connections {used}"


def test_connects_in_flight_are_bounded(chmuxd, cleanup):
    """A server whose accept queue is full: connects hang there, no more than connect_concurrency."""
    silent = cleanup.add(Silent(full=True))
    c = chmuxd(silent.url, upstream__pool_size=16, upstream__connect_concurrency=3, upstream__connect_timeout="30s")
    waiting = [RawClient(c.addr) for _ in range(12)]
    for k in waiting:
        k.send(request("GET", "/ping"))
    c.wait_metric(CONNECTIONS + '{state="connecting"}', 3)
    c.wait_metric("chmux_exchanges", 12)
    assert c.metric(CONNECTIONS + '{state="connecting"}') == 3
    for k in waiting:
        k.close()


def test_min_idle_connections_are_kept_warm(chmuxd, fake):
    up = fake()
    c = chmuxd(up.url, upstream__min_idle=3, upstream__pool_size=8)
    c.wait_metric(CONNECTIONS + '{state="idle"}', 3)
    assert c.ask("GET", "/ping").status == 200
    assert up.accepted == 3
    up.conns[0].sock.shutdown(socket.SHUT_RDWR)
    wait_until(lambda: up.accepted >= 4, what="a closed warm connection to be replaced")


def test_idle_timeout_and_the_servers_keep_alive_are_obeyed(chmuxd, fake):
    def said(value):
        return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nKeep-Alive: " + value + b"\r\n\r\n"

    def script(conn):
        while conn.request() is not None:
            conn.send(said({1: b"timeout=30, max=0", 2: b"timeout=2"}.get(conn.number, b"timeout=30")))

    up = fake(script)
    c = chmuxd(up.url, upstream__idle_timeout="300ms", upstream__keepalive_margin="1900ms")
    assert c.ask("GET", "/ping").status == 200  # max=0: the server will take no further request
    up.wait_open(0)
    assert c.metric('chmux_upstream_closes_total{reason="max_requests"}') == 1
    assert c.ask("GET", "/ping").status == 200  # timeout=2 less a margin of 1.9 s
    up.wait_open(0)
    assert c.ask("GET", "/ping").status == 200  # idle_timeout
    up.wait_open(0)
    assert up.accepted == 3
    assert c.metric('chmux_upstream_closes_total{reason="idle_timeout"}') >= 1


def test_max_age_replaces_a_connection(chmuxd, fake):
    up = fake()
    c = chmuxd(up.url, upstream__max_age="1s")
    c.ask("GET", "/ping")
    up.wait_open(0)
    assert c.metric('chmux_upstream_closes_total{reason="max_age"}') == 1
    assert c.ask("GET", "/ping").status == 200


def test_a_connection_the_server_closes_is_not_reused(chmuxd, fake):
    def script(conn):
        conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: Close\r\n\r\nok\n")
        conn.wait_eof()

    up = fake(script)
    c = chmuxd(up.url)
    for n in range(5):
        assert c.ask("GET", "/ping").body == b"ok\n"
        assert up.accepted == n + 1
    up.wait_open(0)


def test_bytes_on_an_idle_connection_kill_it(chmuxd, fake, gate):
    g = gate()

    def script(conn):
        conn.request()
        conn.send(OK)
        if conn.number == 1:
            conn.stall(g)
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nevil\n")
        while conn.request() is not None:
            conn.send(OK)

    up = fake(script)
    c = chmuxd(up.url)
    assert c.ask("GET", "/ping").body == b"ok\n"
    g.set()
    wait_until(lambda: up.conns[0].eof.is_set(), what="the connection with stray bytes to be dropped")
    assert c.ask("GET", "/ping").body == b"ok\n" and up.accepted == 2


def test_extra_bytes_after_a_response_are_not_the_next_answer(chmuxd, fake):
    def script(conn):
        while conn.request() is not None:
            conn.send(OK + (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nevil\n" if conn.number == 1 else b""))

    c = chmuxd(fake(script).url)
    with c.client() as k:
        for _ in range(4):
            k.send(request("GET", "/ping"))
            assert k.response().body == b"ok\n"


def test_credentials_never_stick_to_a_connection(ch26, chmuxd):
    c = chmuxd(ch26.url, upstream__pool_size=1)
    who = q("SELECT currentUser()")
    alice = [("X-ClickHouse-User", "alice"), ("X-ClickHouse-Key", "secret")]
    for _ in range(3):
        assert c.ask("GET", who, alice).body == b"alice\n"
        assert c.ask("GET", who).body == b"default\n"
        assert c.ask("GET", who, [("X-ClickHouse-User", "alice"), ("X-ClickHouse-Key", "no")]).status == 403


def test_queue_numbers_come_back_to_zero(chmuxd, fake):
    up = fake()
    c = chmuxd(up.url, upstream__pool_size=2)
    parallel(16, lambda i: [c.ask("GET", "/ping") for _ in range(10)])
    m = c.metrics()
    assert m["chmux_queue_waiting"] == 0 and m["chmux_exchanges"] == 0
    assert m["chmux_requests_total"] == 160
    assert m['chmux_upstream_leases_total{connection="fresh"}'] + m['chmux_upstream_leases_total{connection="reused"}'] == 160
