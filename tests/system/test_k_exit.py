"""k: P9 Leaves cleanly: SIGTERM finishes what runs, refuses nothing it can still serve, exits 0."""
import os
import signal
import socket

import pytest

from helpers import OK, Background, insert
from rig.chmuxd import EXIT_CLEAN, EXIT_CUT
from rig.http1 import RawClient, request
from rig.wait import wait_until

pytestmark = pytest.mark.san


def holding(g):
    def script(conn):
        while conn.request() is not None:
            conn.stall(g)
            conn.send(OK)

    return script


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_daemon_exits_0(chmuxd, fake, sig):
    c = chmuxd(fake().url)
    assert c.ask("GET", "/ping").status == 200
    c.signal(sig)
    assert c.wait_exit() == EXIT_CLEAN


def test_sigterm_finishes_what_runs_and_what_waits(chmuxd, fake, gate):
    """One in progress, three queued: all answered, Connection: close, exit 0."""
    g = gate()
    up = fake(holding(g))
    c = chmuxd(up.url, upstream__pool_size=1)
    clients = [RawClient(c.addr) for _ in range(4)]
    for i, k in enumerate(clients):
        k.send(request("GET", f"/r{i}"))
        up.wait_heads(1)
    c.wait_metric("chmux_queue_waiting", 3)
    c.signal()
    c.wait_metric("chmux_draining", 1)
    g.set()
    for k in clients:
        r = k.response()
        assert r.status == 200 and r.body == b"ok\n" and r.complete
        assert r.header("Connection", "").lower() == "close"
        assert k.at_eof()
    assert c.wait_exit() == EXIT_CLEAN
    assert len(up.heads) == 4


def test_sigterm_lets_a_streaming_response_end(chmuxd, fake, gate):
    g = gate()

    def script(conn):
        conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        conn.stall(g)
        conn.send(b"world")

    c = chmuxd(fake(script).url)
    with c.client() as k:
        k.send(request("GET", "/?query=SELECT"))
        k.head()
        assert k.take(5) == b"hello"
        c.signal()
        c.wait_metric("chmux_draining", 1)
        g.set()
        assert k.take(5) == b"world" and k.at_eof()
    assert c.wait_exit() == EXIT_CLEAN


def test_sigterm_lets_an_upload_end(chmuxd, fake):
    up = fake()
    c = chmuxd(up.url)
    data = insert(b"1\ta\n" * 1000)
    with c.client() as k:
        k.send(data[:-100])
        up.wait_heads(1)
        c.signal()
        c.wait_metric("chmux_draining", 1)
        k.send(data[-100:])
        assert k.response("POST").status == 200
    assert c.wait_exit() == EXIT_CLEAN


def test_a_query_on_clickhouse_survives_sigterm(ch26, chmuxd):
    c = chmuxd(ch26.url)
    answer = Background(lambda: c.ask("POST", "/?query_id=survives", (), b"SELECT sleepEachRow(0.1), number FROM numbers(10) SETTINGS max_block_size=1"))
    wait_until(lambda: ch26.queries("query_id = 'survives'"))
    c.signal()
    r = answer.result()
    assert r.status == 200 and r.complete and r.body.count(b"\n") == 10
    assert c.wait_exit() == EXIT_CLEAN


def test_readiness_turns_503_and_metrics_stay_while_draining(chmuxd, fake, gate):
    g = gate()
    up = fake(holding(g))
    c = chmuxd(up.url)
    busy = Background(lambda: c.ask("GET", "/x"))
    up.wait_heads(1)
    assert c.admin("/ready").status == 200
    c.signal()
    wait_until(lambda: c.admin("/ready").status == 503)
    assert c.admin("/live").status == 200
    assert c.metric("chmux_draining") == 1
    g.set()
    assert busy.result().status == 200
    assert c.wait_exit() == EXIT_CLEAN


def test_listeners_keep_accepting_for_drain_min(chmuxd, fake):
    c = chmuxd(fake().url, chmux__drain_min="3s")
    c.signal()
    c.wait_metric("chmux_draining", 1)
    r = c.ask("GET", "/ping")
    assert r.status == 200 and r.header("Connection", "").lower() == "close"
    assert c.wait_exit() == EXIT_CLEAN


def test_an_idle_keep_alive_client_does_not_hold_up_the_exit(chmuxd, fake):
    c = chmuxd(fake().url)
    clients = [RawClient(c.addr) for _ in range(20)]
    for k in clients:
        k.send(request("GET", "/ping"))
        assert k.response().status == 200
    c.signal()
    assert c.wait_exit(20) == EXIT_CLEAN
    assert all(k.at_eof() for k in clients)


def test_drain_timeout_cuts_what_is_left_and_says_so(chmuxd, fake):
    def script(conn):
        conn.request()
        conn.wait_eof()

    up = fake(script)
    c = chmuxd(up.url, chmux__drain_timeout="200ms")
    with c.client() as k:
        k.send(request("POST", "/?query=INSERT", (), b"x"))
        up.wait_heads(1)
        c.signal()
        r = k.response("POST")
        assert not (r.status == 200 and r.complete)
    assert c.wait_exit(20) == EXIT_CUT
    assert any("cut" in l or "drain" in l for l in c.stderr_lines), c.stderr


@pytest.mark.parametrize("first,second", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGTERM, signal.SIGQUIT), (signal.SIGINT, signal.SIGINT), (None, signal.SIGQUIT)])
def test_a_second_signal_or_sigquit_stops_at_once(chmuxd, fake, first, second):
    def script(conn):
        conn.request()
        conn.wait_eof()

    up = fake(script)
    c = chmuxd(up.url)
    k = c.client()
    k.send(request("POST", "/?query=INSERT", (), b"x"))
    up.wait_heads(1)
    if first is not None:
        c.signal(first)
        c.wait_metric("chmux_draining", 1)
    c.signal(second)
    assert c.wait_exit(20) == EXIT_CUT
    k.close()


def test_sighup_is_ignored(chmuxd, fake):
    c = chmuxd(fake().url)
    for _ in range(3):
        c.signal(signal.SIGHUP)
        assert c.ask("GET", "/ping").status == 200
    assert c.proc.poll() is None


def test_sigpipe_does_not_kill(chmuxd, fake):
    c = chmuxd(fake().url)
    c.signal(signal.SIGPIPE)
    for _ in range(10):
        k = c.client()
        k.send(request("GET", "/ping"))
        k.reset()
    assert c.ask("GET", "/ping").status == 200


def test_new_connections_are_refused_after_the_exit_and_the_port_is_free(chmuxd, fake):
    up = fake()
    c = chmuxd(up.url)
    c.signal()
    c.wait_exit()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(c.addr, timeout=5)
    again = chmuxd(up.url, listen=(f"127.0.0.1:{c.addr[1]}",))
    assert again.ask("GET", "/ping").status == 200


def test_the_unix_socket_is_gone_after_the_exit(chmuxd, fake, tmp_path):
    path = str(tmp_path / "s.sock")
    c = chmuxd(fake().url, listen=(f"unix:{path}",))
    assert c.ask("GET", "/ping").status == 200
    c.signal()
    assert c.wait_exit() == EXIT_CLEAN
    assert not os.path.exists(path)


def test_upstream_connections_are_closed_at_exit(chmuxd, fake):
    up = fake()
    c = chmuxd(up.url, upstream__min_idle=3)
    up.wait_open(3)
    c.signal()
    assert c.wait_exit() == EXIT_CLEAN
    up.wait_open(0)
