"""p: listeners (v4, v6, unix, abstract), silent clients, stale sockets, IPv6 and several addresses upstream."""
import os
import socket
import stat
import time

import pytest

from helpers import INSERT, chmux_error, parallel
from rig.chmuxd import EXIT_CLEAN, EXIT_START, run
from rig.http1 import RawClient, ask, request
from rig.wait import wait_until

pytestmark = pytest.mark.san
HAS_V6 = socket.has_ipv6 and os.path.exists("/proc/net/if_inet6") and "00000000000000000000000000000001" in open("/proc/net/if_inet6").read()
v6 = pytest.mark.skipif(not HAS_V6, reason="no IPv6 loopback here")


def test_several_listeners_of_every_kind(chmuxd, fake, tmp_path):
    listen = ["127.0.0.1:0", f"unix:{tmp_path}/a.sock", f"unix:@chmux-test-{os.getpid()}"] + (["[::1]:0"] if HAS_V6 else [])
    c = chmuxd(fake().url, listen=listen)
    assert len(c.addrs) == len(listen)
    for a in c.addrs:
        assert ask(a, "GET", "/ping").status == 200


@v6
def test_ipv6_listener(chmuxd, fake):
    c = chmuxd(fake().url, listen=("[::1]:0",))
    assert c.addr[0] == "::1" and ask(c.addr, "GET", "/ping").status == 200


@v6
def test_ipv6_upstream(chmuxd, fake):
    up = fake(family=socket.AF_INET6)
    c = chmuxd(up.url)
    assert c.ask("GET", "/ping").status == 200 and up.accepted == 1


def test_a_name_with_several_addresses_tries_them_all(chmuxd, fake):
    """localhost is ::1 and 127.0.0.1; only one of them listens."""
    for family in (socket.AF_INET, socket.AF_INET6) if HAS_V6 else (socket.AF_INET,):
        up = fake(family=family)
        try:
            found = {a[0] for a in socket.getaddrinfo("localhost", up.port, type=socket.SOCK_STREAM)}
        except OSError:
            pytest.skip("localhost does not resolve here")
        if family not in found:
            continue
        c = chmuxd(f"http://localhost:{up.port}")
        for _ in range(5):
            assert c.ask("GET", "/ping").status == 200


def test_unix_socket_mode_and_group(chmuxd, fake, tmp_path):
    path = str(tmp_path / "s.sock")
    conf = tmp_path / "c.conf"
    conf.write_text(f"[listen u]\naddress = unix:{path}\nmode = 0600\n")
    c = chmuxd(fake().url, listen=(), config=conf)


    wait_until(lambda: os.path.exists(path))
    assert stat.S_ISSOCK(os.stat(path).st_mode) and stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert ask(path, "GET", "/ping").status == 200
    c.signal()
    c.wait_exit()


def test_unix_socket_default_mode_is_0660(chmuxd, fake, tmp_path):
    path = str(tmp_path / "s.sock")
    c = chmuxd(fake().url, listen=(f"unix:{path}",))
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
    assert c.ask("GET", "/ping").status == 200


def test_a_stale_socket_file_is_replaced(chmuxd, fake, tmp_path):
    path = str(tmp_path / "s.sock")
    s = socket.socket(socket.AF_UNIX)
    s.bind(path)
    s.close()  # the file stays, nobody listens
    c = chmuxd(fake().url, listen=(f"unix:{path}",))
    assert c.ask("GET", "/ping").status == 200


def test_a_live_socket_is_not_stolen(chmuxd, fake, tmp_path):
    path = str(tmp_path / "s.sock")
    up = fake()
    c = chmuxd(up.url, listen=(f"unix:{path}",))
    p = run("--upstream", up.url, "--listen", f"unix:{path}")
    assert p.returncode == EXIT_START and path in p.stderr and "in use" in p.stderr, p.stderr
    assert c.ask("GET", "/ping").status == 200


def test_a_file_that_is_no_socket_is_not_deleted(fake, tmp_path):
    path = tmp_path / "precious"
    path.write_text("data")
    p = run("--upstream", fake().url, "--listen", f"unix:{path}")
    assert p.returncode == EXIT_START and str(path) in p.stderr
    assert path.read_text() == "data"


def test_admin_on_a_unix_socket(chmuxd, fake, tmp_path):
    c = chmuxd(fake().url, admin=f"unix:{tmp_path}/admin.sock")
    assert c.admin("/live").status == 200 and c.metric("chmux_upstream_pool_size") == 16


def test_listeners_from_a_file(chmuxd, fake, tmp_path):
    conf = tmp_path / "c.conf"
    conf.write_text(f"[listen one]\naddress = 127.0.0.1:0\n[listen two]\naddress = 127.0.0.1:0\n[upstream]\nurl = {fake().url}\npool_size = 3\n")
    c = chmuxd(None, listen=(), config=conf, wait=False)
    c.listen_count = 2
    c.wait_started()
    assert {name for _, name in c._bound()[0]} == {"one", "two"}
    assert all(ask(a, "GET", "/ping").status == 200 for a in c.addrs)
    assert c.metric("chmux_upstream_pool_size") == 3


def test_the_default_listeners(chmuxd, fake):
    """With no file, `chmuxd --upstream URL` is a complete start: 127.0.0.1:8123 (and [::1]:8123)."""
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", 8123))
        except OSError:
            pytest.skip("port 8123 is taken on this machine")
    c = chmuxd(fake().url, listen=(), wait=False)
    c.listen_count = 1
    c.wait_started()
    assert ("127.0.0.1", 8123) in c.addrs
    assert ask(("127.0.0.1", 8123), "GET", "/ping").status == 200


def test_flows_by_peer_on_a_unix_socket(chmuxd, fake, tmp_path):
    """Many clients over one unix socket work like those over TCP."""


    path = str(tmp_path / "s.sock")
    up = fake()
    c = chmuxd(up.url, listen=(f"unix:{path}",), upstream__pool_size=4)
    assert parallel(64, lambda i: ask(path, "GET", "/ping").status) == [200] * 64
    assert up.peak <= 4
    assert c.metric("chmux_clients_accepted_total") == 64


# ---- clients that say nothing
SYN_RECV, ESTABLISHED = 3, 1


def state_at_server(server_port, client):
    """The kernel's state of this client's connection at its other end; None: there is none."""
    port = client.getsockname()[1]
    with open("/proc/net/tcp") as f:
        for line in list(f)[1:]:
            local, remote, state = line.split()[1:4]
            if int(local.split(":")[1], 16) == server_port and int(remote.split(":")[1], 16) == port:
                return int(state, 16)
    return None


def silent(addr):
    s = socket.create_connection(addr, timeout=30)
    return RawClient(addr, sock=s)


def test_a_silent_client_is_seen_after_a_moment_and_served(chmuxd, fake):
    """The kernel keeps it for a second, or until it speaks; then it is a client like any other."""
    c = chmuxd(fake().url)
    held = False
    for _ in range(5):  # on a machine so slow that the second passes meanwhile, again
        with silent(c.addr) as k:
            held = state_at_server(c.addr[1], k.sock) == SYN_RECV
            if held:
                break
    assert held, "chmux was woken for a client that has said nothing"
    before = c.metric("chmux_clients")
    with silent(c.addr) as k:
        c.wait_metric("chmux_clients", before + 1)
        k.send(request("GET", "/ping"))
        assert k.response().status == 200
    c.wait_metric("chmux_clients", 0)


def test_a_silent_client_that_leaves_costs_nothing(chmuxd, fake):
    up = fake()
    c = chmuxd(up.url)
    for _ in range(20):
        silent(c.addr).close()
        k = silent(c.addr)
        k.reset()
    assert c.ask("GET", "/ping").status == 200
    c.wait_metric("chmux_clients", 0)
    assert c.metric("chmux_requests_total") == 1 and up.accepted == 1


def test_silent_clients_count_against_max_clients_once_seen(chmuxd, fake):
    c = chmuxd(fake().url, chmux__max_clients=3)
    kept = [silent(c.addr) for _ in range(3)]
    c.wait_metric("chmux_clients", 3)
    with silent(c.addr) as k:
        chmux_error(k.response(), "max_clients", 503)  # told, though it asked nothing
    with c.client() as k:
        k.send(request("GET", "/ping"))
        chmux_error(k.response(), "max_clients", 503)
    kept.pop().close()
    c.wait_metric("chmux_clients", 2)
    assert c.ask("GET", "/ping").status == 200


def test_idle_timeout_ends_a_silent_client(chmuxd, fake):
    c = chmuxd(fake().url, chmux__idle_timeout="1s")
    with silent(c.addr) as k:
        assert k.at_eof()
    c.wait_metric("chmux_clients", 0)
    assert c.metric("chmux_clients_accepted_total") == 1


def test_a_silent_admin_client_is_seen_at_once(chmuxd, fake):
    c = chmuxd(fake().url)
    with silent(c.admin_addr) as k:
        assert state_at_server(c.admin_addr[1], k.sock) == ESTABLISHED
        k.send(request("GET", "/live"))
        assert k.response().status == 200


def test_a_silent_client_on_a_unix_socket_is_seen_at_once(chmuxd, fake, tmp_path):
    c = chmuxd(fake().url, listen=(f"unix:{tmp_path}/s.sock",))
    with RawClient(c.addr) as k:
        assert c.metric("chmux_clients") == 1
        k.send(request("GET", "/ping"))
        assert k.response().status == 200


@pytest.mark.parametrize("seen", [False, True])
def test_silent_clients_do_not_hold_up_the_exit(chmuxd, fake, seen):
    """Whether chmux has seen them or not: it goes at once, and they learn of it when they speak at the latest."""
    c = chmuxd(fake().url)
    clients = [silent(c.addr) for _ in range(10)]
    if seen:
        c.wait_metric("chmux_clients", 10)
    c.signal()
    assert c.wait_exit(20) == EXIT_CLEAN
    for k in clients:
        try:
            k.send(request("GET", "/ping"))
            assert k.sock.recv(1) == b""
        except (BrokenPipeError, ConnectionResetError):
            pass
        k.close()


def test_silent_clients_are_served_while_draining(chmuxd, fake):
    """One that connected before the signal and speaks after it, while the listeners go on."""
    c = chmuxd(fake().url, chmux__drain_min="3s")
    with silent(c.addr) as k:
        c.signal()
        c.wait_metric("chmux_draining", 1)
        k.send(request("GET", "/ping"))
        r = k.response()
        assert r.status == 200 and r.header("Connection", "").lower() == "close"
    assert c.wait_exit() == EXIT_CLEAN


@pytest.mark.parametrize("first,second", [(request("POST", INSERT, (), b"1\n")[:-2], b"1\n"), (b"GET /ping HTTP/1.1\r\nHost: x\r\n", b"\r\n"),
                                          (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"0\r\n\r\n")])
def test_a_first_request_in_two_writes_does_not_stall(chmuxd, fake, first, second):
    """Nagle's client holds the second write back until the first is acknowledged; a delayed one takes 40 ms."""
    c = chmuxd(fake().url)
    took = []
    while len(took) < 200 and min(took, default=1) >= 0.035:  # a busy machine may be late, but not always
        with silent(c.addr) as k:  # no TCP_NODELAY
            start = time.monotonic()
            k.send(first)
            k.send(second)
            assert k.response("POST").status == 200
            took.append(time.monotonic() - start)
    assert min(took) < 0.035, took
