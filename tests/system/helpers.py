"""Small things many tests share."""
import os
import socket
import threading
from urllib.parse import urlencode

import pytest

from rig.http1 import request

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: Keep-Alive\r\n\r\nok\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: Keep-Alive\r\n\r\n"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def q(sql, **params):
    """Target of a GET that runs sql."""
    return "/?" + urlencode({"query": sql, **params})


def chunk(data):
    return b"%X\r\n%s\r\n" % (len(data), data)


INSERT = "/?query=INSERT+INTO+t+FORMAT+TSV"


def insert(body, **kw):
    """An INSERT with its data in the body."""
    return request("POST", INSERT, (), body, **kw)


def parallel(n, fn, deadline=120):
    """fn(i) for i in 0..n-1, each in a thread; the results in order. The first exception is raised."""
    results, errors = [None] * n, []

    def run(i):
        try:
            results[i] = fn(i)
        except BaseException as e:  # handed to the caller
            errors.append(e)

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(deadline)
        assert not t.is_alive(), f"a client still hangs after {deadline} s"
    if errors:
        raise errors[0]
    return results


class Background:
    """fn() in a thread; result() joins it and returns or raises what it did."""

    def __init__(self, fn):
        self.value = None
        self.error = None

        def run():
            try:
                self.value = fn()
            except BaseException as e:
                self.error = e

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    @property
    def running(self):
        return self.thread.is_alive()

    def result(self, deadline=60):
        self.thread.join(deadline)
        assert not self.thread.is_alive(), "still running"
        if self.error:
            raise self.error
        return self.value


def fill_send_buffer(sock, data, limit):
    """Sends copies of data until the peer takes no more for a while or limit is reached; bytes sent."""
    sent = 0
    view = memoryview(data)
    sock.settimeout(1.0)
    try:
        while sent < limit:
            sent += sock.send(view)
    except (TimeoutError, BlockingIOError):
        pass
    except (BrokenPipeError, ConnectionResetError):
        pass
    sock.settimeout(30)
    return sent


def small_buffers(addr, rcvbuf=65536):
    """A client socket whose kernel hardly buffers, so that a stopped reader stops chmux soon."""
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
    s.settimeout(60)
    s.connect(addr)
    return s


def chmux_error(r, token, status=None, code=None):
    """Asserts that r is an error made by chmux itself, in ClickHouse's clothes."""
    assert r.header("X-Chmux-Error") == token, r
    assert r.complete, r
    if status:
        assert r.status == status, r
    n = r.header("X-ClickHouse-Exception-Code")
    assert n and n.isdigit(), r.headers
    if code:
        assert int(n) == code, r
    assert r.body.startswith(f"Code: {n}. DB::Exception: chmux: ".encode()), r.body
    assert r.body.rstrip().endswith(b")"), r.body
    assert r.header("Content-Type", "").startswith("text/plain"), r.headers
    return r
