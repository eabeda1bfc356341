"""v: the service manager's protocols, with a stand-in for systemd: readiness, watchdog, socket activation. The real
one: test_v_package.py. Restarts that nobody notices: test_v_restart.py."""
import os
import signal
import socket
import time

import pytest

from helpers import Background
from rig.chmuxd import EXIT_CLEAN, EXIT_START, EXIT_USAGE, run
from rig.http1 import RawClient, ask, request
from rig.systemd import Manager, tcp_socket, unix_socket
from rig.wait import wait_until

pytestmark = pytest.mark.san


@pytest.fixture
def manager(cleanup, tmp_path):
    return lambda *a, **kw: cleanup.add(Manager(tmp_path, *a, **kw))


def closed_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


# ---- notify
@pytest.mark.parametrize("abstract", [False, True])
def test_ready_comes_when_it_serves(manager, fake, abstract):
    m = manager([("web", tcp_socket())], abstract=abstract)
    port = closed_port()
    conf_listen = (f"127.0.0.1:{port}",)  # a socket of its own beside the passed one
    m.start(fake().url, wait=False, listen=conf_listen, admin="127.0.0.1:0")
    ready = m.wait_heard("READY", "1")[0]
    assert ask(("127.0.0.1", port), "GET", "/ping", timeout=5).status == 200  # at once: no retry, no wait
    assert ask(m.addr(), "GET", "/ping").status == 200
    assert m.messages[0] is ready


def test_ready_never_comes_when_it_cannot_serve(manager, fake, tmp_path):
    """The address of one of several listeners is taken: exit 1, the reason as status, no READY."""
    with tcp_socket() as taken:
        m = manager([("web", tcp_socket())])
        c = m.start(fake().url, wait=False, listen=(f"127.0.0.1:{taken.getsockname()[1]}",))
        assert c.wait_exit() == EXIT_START
    status = m.wait_heard("STATUS")[0].vars["STATUS"]
    assert status.startswith("Cannot start: 127.0.0.1:") and "in use" in status, status
    assert not m.heard("READY")
    m.current = None


def test_the_status_line_says_what_goes_on(manager, fake, gate):
    g = gate()
    up = fake(lambda conn: (conn.request(), conn.stall(g), conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")))
    m = manager([("web", tcp_socket())])
    m.start(up.url, upstream__pool_size=1)
    m.wait_heard("STATUS", "Serving: 0 clients, 0 of 1 upstream connections busy, 0 requests waiting")
    busy = [Background(lambda: ask(m.addr(), "GET", "/x")) for _ in range(3)]
    m.wait_heard("STATUS", "Serving: 3 clients, 1 of 1 upstream connections busy, 2 requests waiting", deadline=20)
    g.set()
    assert [b.result().status for b in busy] == [200] * 3
    assert len(m.heard("STATUS")) < 10


def test_stopping_and_more_time_while_it_drains(manager, fake, gate):
    g = gate()
    up = fake(lambda conn: (conn.request(), conn.stall(g), conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")))
    m = manager([("web", tcp_socket())])
    c = m.start(up.url, chmux__drain_timeout="2m")
    busy = Background(lambda: ask(m.addr(), "GET", "/x"))
    up.wait_heads(1)
    assert not m.heard("STOPPING") and not m.heard("EXTEND_TIMEOUT_USEC")
    c.signal()
    stopping = m.wait_heard("STOPPING", "1")[0]
    first, second = m.wait_heard("EXTEND_TIMEOUT_USEC", count=2, deadline=20)[:2]
    assert stopping.at <= first.at and int(first.vars["EXTEND_TIMEOUT_USEC"]) / 1e6 > 2 * (second.at - first.at)
    m.wait_heard("STATUS", "Draining: 1 clients, 1 of 16 upstream connections busy, 0 requests waiting")
    g.set()
    assert busy.result().body == b"ok"
    assert c.wait_exit() == EXIT_CLEAN


def test_nothing_is_said_without_a_notify_socket(manager, fake):
    m = manager([("web", tcp_socket())], notify=False)
    m.start(fake().url)
    assert ask(m.addr(), "GET", "/ping").status == 200
    m.stop()
    assert m.messages == []


def test_a_notify_socket_that_cannot_be_is_refused(fake):
    p = run("--upstream", fake().url, env={"NOTIFY_SOCKET": "somewhere"})
    assert p.returncode == EXIT_START and "NOTIFY_SOCKET=somewhere" in p.stderr


def test_a_manager_that_went_away_does_no_harm(manager, fake, tmp_path):
    m = manager([("web", tcp_socket())], watchdog_us=200000)
    c = m.start(fake().url)
    m.wait_heard("READY")
    os.unlink(tmp_path / "notify")
    wait_until(lambda: "notify_failed" in c.stderr)
    for _ in range(50):
        assert ask(m.addr(), "GET", "/ping").status == 200
    assert c.stderr.count("notify_failed") == 1
    m.stop()


# ---- watchdog
def beats(m):
    return [x.at for x in m.heard("WATCHDOG")]


def test_the_watchdog_is_fed_twice_a_period_and_only_while_the_loop_runs(manager, fake):
    m = manager([("web", tcp_socket())], watchdog_us=400000)
    c = m.start(fake().url)
    m.wait_heard("WATCHDOG", "1", count=8)
    gaps = [b - a for a, b in zip(beats(m), beats(m)[1:])]
    assert 0.15 < sorted(gaps)[len(gaps) // 2] < 0.4, gaps
    c.signal(signal.SIGSTOP)
    try:
        wait_until(lambda: open(f"/proc/{c.pid}/stat").read().rpartition(")")[2].split()[0] == "T")
        m._read_all()  # a beat may still be on its way
        stopped_at, before = time.monotonic(), len(beats(m))
        wait_until(lambda: time.monotonic() > stopped_at + 1.2, what="three periods to pass")  # silence has no event
        assert len(beats(m)) == before
    finally:
        c.signal(signal.SIGCONT)
    m.wait_heard("WATCHDOG", "1", count=before + 2)


def test_the_watchdog_of_another_process_is_not_fed(manager, fake):
    m = manager([("web", tcp_socket())], watchdog_us=100000)
    m.start(fake().url, env={"WATCHDOG_PID": "1"})
    m.wait_heard("STATUS")
    for _ in range(20):
        assert ask(m.addr(), "GET", "/ping").status == 200
    assert not m.heard("WATCHDOG")


# ---- socket activation
def names(c):
    return [(a, n) for a, n in c._bound()[0]]


def test_sockets_become_listeners_by_name_by_address_or_on_their_own(manager, fake, tmp_path):
    by_name, by_addr = tcp_socket(), tcp_socket()
    path = str(tmp_path / "http.sock")
    m = manager([("one", by_name), ("x", by_addr), ("chmux.socket", unix_socket(path)), ("admin", unix_socket(tmp_path / "admin.sock"))])
    conf = tmp_path / "c.conf"
    conf.write_text(f"[listen one]\n[listen two]\naddress = 127.0.0.1:{m.addr(1)[1]}\n[listen own]\naddress = 127.0.0.1:0\n")
    c = m.start(fake().url, config=conf, wait=False)
    c.listen_count += 1  # own
    c.wait_started()
    found = dict((n, a) for a, n in names(c))
    assert found["one"] == f"127.0.0.1:{m.addr(0)[1]}" and found["two"] == f"127.0.0.1:{m.addr(1)[1]}"
    assert found["chmux.socket"] == f"unix:{path}" and len(found) == 4
    for a in c.addrs:
        assert ask(a, "GET", "/ping").status == 200
    assert c.admin_addr == str(tmp_path / "admin.sock") and c.admin("/ready").status == 200


def test_the_defaults_are_not_opened_beside_passed_sockets(manager, fake):
    m = manager([("web", tcp_socket())])
    c = m.start(fake().url)
    assert names(c) == [(f"127.0.0.1:{m.addr()[1]}", "web")]


def test_several_sockets_of_one_name(manager, fake):
    m = manager([("web", tcp_socket()), ("web", tcp_socket())])
    c = m.start(fake().url)
    assert [n for _, n in names(c)] == ["web", "web"]
    assert all(ask(a, "GET", "/ping").status == 200 for a in c.addrs)


def start_fails(m, *args, **kw):
    c = m.start(*args, wait=False, **kw)
    code = c.wait_exit()
    m.current = None
    return code, c.stderr


def test_an_address_that_contradicts_the_socket_is_an_error(manager, fake, tmp_path):
    m = manager([("one", tcp_socket())])
    conf = tmp_path / "c.conf"
    conf.write_text("[listen one]\naddress = 127.0.0.1:1\n")
    code, err = start_fails(m, fake().url, config=conf)
    assert code == EXIT_START and "[listen one]" in err and f"127.0.0.1:{m.addr()[1]}" in err, err


def test_a_listener_without_address_or_socket_is_an_error(manager, fake, tmp_path):
    m = manager([("one", tcp_socket())])
    conf = tmp_path / "c.conf"
    conf.write_text("[listen two]\n")
    code, err = start_fails(m, fake().url, config=conf)
    assert code == EXIT_USAGE and "two" in err and "no address" in err, err


def test_a_remote_socket_needs_allow_remote(manager, fake):
    m = manager([("web", tcp_socket("0.0.0.0"))])
    code, err = start_fails(m, fake().url)
    assert code == EXIT_START and "allow_remote" in err and '"web" (0.0.0.0:' in err, err
    m.start(fake().url, chmux__allow_remote="yes")
    assert ask(("127.0.0.1", m.addr()[1]), "GET", "/ping").status == 200


def test_admin_sockets_add_up_and_an_address_beside_them_is_opened_too(manager, fake, tmp_path):
    m = manager([("web", tcp_socket()), ("admin", tcp_socket()), ("admin", unix_socket(tmp_path / "a.sock"))])
    c = m.start(fake().url, admin=f"unix:{tmp_path}/b.sock, unix:{tmp_path}/a.sock")
    for where in (m.addr(1), str(tmp_path / "a.sock"), str(tmp_path / "b.sock")):
        assert ask(where, "GET", "/ready").status == 200, where
    assert sum("admin on " in line for line in c.stdout_lines) == 3, c.stdout_lines


def test_more_admin_sockets_than_addresses_allowed_is_an_error(manager, fake):
    m = manager([("web", tcp_socket()), *[("admin", tcp_socket()) for _ in range(9)]])
    code, err = start_fails(m, fake().url)
    assert code == EXIT_START and 'more than 8 sockets were passed as "admin"' in err, err


@pytest.mark.parametrize("make,says", [
    (lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM), "does not listen"),
    (lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM), "not a stream socket"),
])
def test_what_is_no_listening_socket_is_refused(manager, fake, make, says):
    m = manager([("web", make())])
    code, err = start_fails(m, fake().url)
    assert code == EXIT_START and says in err, err


def test_variables_meant_for_another_process_are_ignored(chmuxd, fake):
    c = chmuxd(fake().url, env={"LISTEN_PID": "1", "LISTEN_FDS": "7"})
    assert c.ask("GET", "/ping").status == 200


def test_a_passed_socket_file_stays(manager, fake, tmp_path):
    path = tmp_path / "http.sock"
    m = manager([("web", unix_socket(path))])
    m.start(fake().url)
    m.stop()
    assert path.exists()
    m.start(fake().url)
    assert ask(str(path), "GET", "/ping").status == 200


def test_a_refused_reload_that_names_a_passed_socket_changes_nothing(manager, fake, tmp_path):
    """[listen b] takes the passed socket over by its address, then [listen a] fails: what is taken back knows no section
    of the socket's own name."""
    m, path, conf = manager([("web", tcp_socket())]), tmp_path / "a.sock", tmp_path / "c.conf"
    conf.write_text(f"[listen a]\naddress = unix:{path}\n")
    c = m.start(fake().url, config=conf, wait=False, admin="127.0.0.1:0")
    c.listen_count += 1  # a
    c.wait_started()
    conf.write_text(f"[listen b]\naddress = 127.0.0.1:{m.addr()[1]}\n[listen a]\naddress = unix:{path}\ngroup = nogroupofthisname\n")
    c.signal(signal.SIGHUP)
    c.wait_metric('chmux_reloads_total{result="failed"}', 1)
    assert "no such group" in c.stderr
    assert ask(m.addr(), "GET", "/ping").status == 200 and ask(str(path), "GET", "/ping").status == 200


def test_who_connects_while_nobody_runs_is_served_by_the_next(manager, fake):
    m = manager([("web", tcp_socket())])
    up = fake()
    m.start(up.url)
    assert ask(m.addr(), "GET", "/ping").status == 200
    m.stop()
    waiting = [RawClient(m.addr()) for _ in range(10)]
    for k in waiting:
        k.send(request("GET", "/ping"))
    m.start(up.url)
    assert [k.response().status for k in waiting] == [200] * 10


def test_accepting_stops_at_once_and_what_was_accepted_is_served(manager, fake, gate):
    """While a request runs on, a newcomer is not taken any more: it is the next process's."""
    g = gate()

    def script(conn):
        while r := conn.request():
            if r[0].target == "/slow":
                conn.stall(g)
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    up = fake(script)
    m = manager([("web", tcp_socket())])
    c = m.start(up.url)
    slow = Background(lambda: ask(m.addr(), "GET", "/slow"))
    up.wait_heads(1)
    c.signal()
    m.wait_heard("STOPPING")
    newcomer = RawClient(m.addr())
    newcomer.send(request("GET", "/fast"))
    g.set()
    assert slow.result().body == b"ok"
    assert c.wait_exit() == EXIT_CLEAN
    assert len(up.heads) == 1
    m.current = None
    m.start(up.url)
    r = newcomer.response()
    assert r.status == 200 and r.body == b"ok"


def test_an_idle_client_may_still_ask_while_it_drains(manager, fake):
    m = manager([("web", tcp_socket())])
    c = m.start(fake().url, chmux__drain_idle="20s")
    k = RawClient(m.addr())
    k.send(request("GET", "/ping"))
    assert k.response().header("Connection").lower() == "keep-alive"
    c.signal()
    m.wait_heard("STOPPING")
    k.send(request("GET", "/ping"))
    r = k.response()
    assert r.status == 200 and r.header("Connection").lower() == "close" and k.at_eof()
    assert c.wait_exit() == EXIT_CLEAN


# ---- connections of idle clients outlive the process
def test_idle_clients_are_left_to_the_next_process(manager, fake, tmp_path):
    m = manager([("web", tcp_socket()), ("web", unix_socket(tmp_path / "http.sock")), ("admin", tcp_socket())], store=100)
    up = fake()
    clients = []

    def all_ask():
        for k in clients:
            k.send(request("GET", "/ping"))
        for k in clients:
            r = k.response()
            assert r.status == 200 and r.header("Connection").lower() == "keep-alive"

    c = m.start(up.url)
    clients += [RawClient(m.addr(i % 2)) for i in range(40)]
    all_ask()
    for round in range(1, 4):
        c.signal()  # not one of them is closed, and nobody waits for them
        assert c.wait_exit(20) == EXIT_CLEAN
        m.current = None
        wait_until(lambda: len(m.store) == 40 and m.stored == 40 * round, what=f"40 clients in the store, there are {len(m.store)}")
        for k in clients[:10]:
            k.send(request("GET", "/ping"))  # while nobody runs
        c = m.start(up.url)
        for k in clients[:10]:
            assert k.response().status == 200
        all_ask()
        assert c.metric("chmux_clients") == 40
        wait_until(lambda: any("clients_taken_over count=40" in l for l in list(c.stderr_lines)))


def test_a_client_taken_over_sees_when_it_is_closed(manager, fake):
    """The manager's copy of the connection is gone by then."""
    m = manager([("web", tcp_socket()), ("admin", tcp_socket())], store=10)
    up = fake()
    m.start(up.url)
    clients = [RawClient(m.addr()) for _ in range(2)]
    for _ in range(2):
        for k in clients:
            k.send(request("GET", "/ping"))
            assert k.response().status == 200
        m.restart(up.url)
    clients[0].send(request("GET", "/ping", [("Connection", "close")]))
    assert clients[0].response().status == 200 and clients[0].at_eof()
    clients[1].close()
    wait_until(lambda: m.current.metric("chmux_clients") == 0)
    wait_until(lambda: m.store == [] and len(m.heard("FDSTOREREMOVE")) == 2)


def test_a_store_that_takes_fewer(manager, fake):
    """Those beyond what the manager keeps are closed after drain_idle; the others live on."""
    m = manager([("web", tcp_socket())], store=3)
    up = fake()
    m.start(up.url, chmux__drain_idle="50ms")
    clients = [RawClient(m.addr()) for _ in range(10)]
    for k in clients:
        k.send(request("GET", "/ping"))
        assert k.response().status == 200
    m.restart(up.url)
    alive = 0
    for k in clients:
        k.send(request("GET", "/ping"))
        alive += k.response().status == 200
    assert alive == 3


def test_a_client_that_left_meanwhile_is_no_trouble(manager, fake):
    m = manager([("web", tcp_socket())], store=10)
    up = fake()
    m.start(up.url)
    clients = [RawClient(m.addr()) for _ in range(4)]
    for k in clients:
        k.send(request("GET", "/ping"))
        assert k.response().status == 200
    m.stop()
    clients[0].close()
    clients[1].reset()
    m.start(up.url)
    for k in clients[2:]:
        k.send(request("GET", "/ping"))
        assert k.response().status == 200
    assert ask(m.addr(), "GET", "/ping").status == 200


def test_a_service_that_is_stopped_for_good_closes_them(manager, fake):
    m = manager([("web", tcp_socket())], store=10)
    m.start(fake().url)
    k = RawClient(m.addr())
    k.send(request("GET", "/ping"))
    assert k.response().status == 200
    m.stop()
    m.drop_store()
    assert k.at_eof()


def test_a_request_that_has_begun_is_not_left_to_another(manager, fake):
    """Half a head has arrived: the rest is answered here, with Connection: close."""
    m = manager([("web", tcp_socket())], store=10)
    c = m.start(fake().url)
    k = RawClient(m.addr())
    data = request("GET", "/ping")
    k.send(data)
    assert k.response().status == 200
    k.send(data[:-2])
    other = RawClient(m.addr())  # answered: the half was read before it
    other.send(data)
    assert other.response().status == 200
    c.signal()
    m.wait_heard("FDSTORE")  # the other one's
    k.send(data[-2:])
    r = k.response()
    assert r.status == 200 and r.header("Connection").lower() == "close"
    assert c.wait_exit() == EXIT_CLEAN
    assert m.stored == 1
