"""e: large results that nothing has to look into go from socket to socket inside the kernel: whole, in order, cut where
they were cut, with what is held bounded and given back."""
import ctypes
import errno
import hashlib
import platform
import signal
import struct
import threading

import pytest

from helpers import CHUNKED, OK, chunk, q
from rig.http1 import ask, request
from rig.wait import wait_until

pytestmark = pytest.mark.san
MIB = 1 << 20
SPLICED = "chmux_spliced_bytes_total"
USED = "chmux_memory_used_bytes"


def pattern(n, seed=0):
    """n bytes whose period is a prime, so that a doubled or missing block shows."""
    one = hashlib.shake_128(b"%d" % seed).digest(8191)
    return (one * (n // len(one) + 1))[:n]


def framed(body, size):
    """A response: size None: Content-Length, else chunks of that many bytes."""
    if size is None:
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: Keep-Alive\r\n\r\n" % len(body) + body
    return CHUNKED + b"".join(chunk(body[i : i + size]) for i in range(0, len(body), size)) + b"0\r\n\r\n"


def serving(*answers):
    """A script: these answers, in turn, over and over."""
    def script(conn):
        i = 0
        while conn.request() is not None:
            conn.send(answers[i % len(answers)])
            i += 1
    return script


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
@pytest.mark.parametrize("size", [None, 300_000, MIB, 7 * MIB], ids=["length", "300k", "1m", "7m"])
def test_a_large_result_arrives_whole_and_its_connections_go_on(chmuxd, fake, tmp_path, size, unix):
    bodies = [pattern(9 * MIB + 17, i) for i in range(2)]
    c = chmuxd(fake(serving(framed(bodies[0], size), OK, framed(bodies[1], size)), keep_bytes=False).url, upstream__pool_size=1,
               listen=(f"unix:{tmp_path}/s" if unix else "127.0.0.1:0",))
    with c.client() as k:
        for want in (bodies[0], b"ok\n", bodies[1], bodies[0]):
            k.send(request("GET", q("SELECT 1")))
            r = k.response()
            assert r.status == 200 and r.complete and r.body == want
    assert 3 * 6 * MIB < c.metric(SPLICED) < 3 * 9 * MIB
    assert c.metric('chmux_upstream_connects_total{result="ok"}') == 1


@pytest.mark.parametrize("settings,size,version", [
    ({}, 65536, "HTTP/1.1"), ({"chmux__splice": "no"}, MIB, "HTTP/1.1"), ({}, MIB, "HTTP/1.0"),
], ids=["small-chunks", "off", "http10"])
def test_what_is_not_spliced_arrives_too(chmuxd, fake, settings, size, version):
    body = pattern(6 * MIB)
    c = chmuxd(fake(serving(framed(body, size)), keep_bytes=False).url, **settings)
    r = c.ask("GET", q("SELECT 1"), version=version)
    assert r.status == 200 and r.body == body and c.metric(SPLICED) == 0


def test_chunks_that_become_small_go_the_other_way(chmuxd, fake):
    body = pattern(4 * MIB)
    answer = CHUNKED + b"".join(chunk(body[i : i + MIB]) for i in range(0, len(body), MIB)) + b"".join(chunk(bytes([i % 256]) * 900) for i in range(3000)) + b"0\r\n\r\n"
    c = chmuxd(fake(serving(answer), keep_bytes=False).url)
    r = c.ask("GET", q("SELECT 1"))
    assert r.complete and r.body == body + b"".join(bytes([i % 256]) * 900 for i in range(3000)) and c.metric(SPLICED) > MIB


@pytest.mark.parametrize("size", [None, MIB], ids=["length", "chunked"])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_cut_result_ends_short(chmuxd, fake, size, how):
    body = pattern(8 * MIB)

    def script(conn):
        conn.request()
        conn.send(framed(body, size)[: 5 * MIB])
        conn.reset() if how == "reset" else conn.close()

    c = chmuxd(fake(script, keep_bytes=False).url)
    with c.client() as k:
        k.send(request("GET", q("SELECT 1")))
        r = k.response()
    assert r.status == 200 and not r.complete and body.startswith(r.body)
    if how == "close":
        assert len(r.body) > 4 * MIB
    assert c.metric('chmux_upstream_connections{state="active"}') == 0


def test_bad_framing_behind_a_run_ends_short(chmuxd, fake):
    body = pattern(3 * MIB)
    c = chmuxd(fake(serving(CHUNKED + chunk(body)[:-2] + b"XX" + chunk(body) + b"0\r\n\r\n"), keep_bytes=False).url)
    with c.client() as k:
        k.send(request("GET", q("SELECT 1")))
        r = k.response()
    assert not r.complete and r.body == body


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_a_slow_reader_holds_the_server_and_gets_everything(chmuxd, fake, tmp_path, unix):
    body, sent = pattern(64 * MIB), threading.Event()

    def script(conn):
        conn.request()
        conn.send(framed(body, MIB))
        sent.set()
        conn.wait_eof()

    c = chmuxd(fake(script, keep_bytes=False).url, listen=(f"unix:{tmp_path}/s" if unix else "127.0.0.1:0",))
    before, idle = c.fds(), c.metric(USED)
    with c.client() as k:
        k.send(request("GET", q("SELECT 1")))
        while len(k.buf) < 3 * MIB or c.metric(SPLICED) == 0:
            k.fill()
        seen = []
        while len(seen) < 20 or len(set(seen[-20:])) > 1:  # until it stands still
            seen.append(c.metric(SPLICED))
        assert not sent.is_set() and c.metric(USED) <= idle + 2 * MIB
        r = k.response()
        assert r.complete and r.body == body
    wait_until(lambda: c.fds() <= before + 3, what="descriptors to be closed")  # the idle upstream connection, the spare tube
    assert c.metric(USED) < idle + MIB / 4  # an idle connection has a little


def test_a_client_that_leaves_in_the_middle(chmuxd, fake):
    gone = threading.Event()

    def script(conn):
        conn.request()
        conn.send(CHUNKED)
        try:
            while True:
                conn.send(chunk(bytes(MIB)))
        except OSError:
            gone.set()

    c = chmuxd(fake(script, keep_bytes=False).url, upstream__on_disconnect="close")
    before, idle = c.fds(), c.metric(USED)
    k = c.client()
    k.send(request("GET", q("SELECT 1")))
    wait_until(lambda: c.metric(SPLICED) > MIB, what="spliced bytes")
    k.close()
    assert gone.wait(20)
    wait_until(lambda: c.fds() <= before + 2 and c.metric(USED) < idle + MIB / 4, what="everything to be given back")


def test_a_reader_that_stops_is_given_up(chmuxd, fake):
    body = pattern(64 * MIB)
    c = chmuxd(fake(serving(framed(body, None)), keep_bytes=False).url, chmux__stall_timeout="1s")
    with c.client() as k:
        k.send(request("GET", q("SELECT 1")))
        c.wait_metric('chmux_stalls_total{side="client"}', 1)
    assert c.metric(SPLICED) > 0


def test_a_server_that_stops_inside_a_run_is_waited_for(chmuxd, fake):
    body, go = pattern(6 * MIB), threading.Event()

    def script(conn):
        conn.request()
        raw = framed(body, None)
        conn.send(raw[: 4 * MIB]).stall(go)
        conn.send(raw[4 * MIB :])
        conn.wait_eof()

    c = chmuxd(fake(script, keep_bytes=False).url)
    with c.client() as k:
        k.send(request("GET", q("SELECT 1")))
        while len(k.buf) < 4 * MIB:  # nothing that came is kept back
            k.fill()
        assert c.metric(SPLICED) > 2 * MIB and c.metric(USED) < MIB / 2  # and nothing is held for it
        go.set()
        r = k.response()
    assert r.complete and r.body == body


# seccomp(2): splice(2) fails with ENOSYS, everything else is as it was.
NO_SPLICE = struct.pack("HBBI" * 4, 0x20, 0, 0, 0, 0x15, 0, 1, 275, 0x06, 0, 0, 0x50000 | errno.ENOSYS, 0x06, 0, 0, 0x7FFF0000)


def without_splice():
    """For the child, between fork and exec."""
    libc = ctypes.CDLL(None, use_errno=True)
    code = ctypes.create_string_buffer(NO_SPLICE)
    prog = struct.pack("HxxxxxxQ", 4, ctypes.addressof(code))
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, prog, 0, 0):  # PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP
        raise OSError(ctypes.get_errno(), "seccomp")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the number of splice(2) differs")
def test_a_sandbox_without_splice_is_served_the_other_way(chmuxd, fake):
    body = pattern(6 * MIB)
    c = chmuxd(fake(serving(framed(body, MIB)), keep_bytes=False).url, preexec=without_splice)
    before = c.fds()
    with c.client() as k:
        for _ in range(2):
            k.send(request("GET", q("SELECT 1")))
            r = k.response()
            assert r.complete and r.body == body
        assert c.metric(SPLICED) == 0
        wait_until(lambda: c.fds() <= before + 4)  # client, upstream connection, a tube


def test_splice_turned_off_and_on(chmuxd, fake, tmp_path):
    body, conf = pattern(4 * MIB), tmp_path / "chmux.conf"
    url = fake(serving(framed(body, MIB)), keep_bytes=False).url

    def write(value):
        conf.write_text(f"[upstream]\nurl = {url}\n[chmux]\nsplice = {value}\n")

    write("no")
    c = chmuxd(config=conf)
    seen = []
    for value in ("no", "yes", "no"):
        write(value)
        loads = c.metric('chmux_reloads_total{result="ok"}')
        c.signal(signal.SIGHUP)
        c.wait_metric('chmux_reloads_total{result="ok"}', loads + 1)
        before = c.metric(SPLICED)
        assert c.ask("GET", q("SELECT 1")).body == body
        seen.append(c.metric(SPLICED) > before)
    assert seen == [False, True, False]


def test_a_large_select_is_the_same(chmuxd, ch26):
    sql = "SELECT number, cityHash64(number) FROM numbers(2000000) FORMAT TSV"
    c = chmuxd(ch26.url)
    got, want = (ask(addr, "POST", "/", (), sql.encode()) for addr in (c.addr, ch26.addr))
    assert got.complete and want.complete and got.body == want.body
    assert c.metric(SPLICED) > 0.9 * (len(want.body) - 2 * MIB)  # to its end
