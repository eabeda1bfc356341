"""Clients that ask in a loop while something happens to chmuxd, and repeat nothing: restarts, upgrades, reloads."""
import random
import select
import threading

from rig.http1 import RawClient, request


class Looper:
    """A client that asks until it is told to stop. Any answer but a whole 200 is an error, and so is any exception."""

    def __init__(self, number, addr, work, keep=True, pause=0.0):
        self.number, self.addr, self.work, self.keep, self.pause = number, addr, work, keep, pause
        self.done = 0
        self.connects = 0
        self.error = None
        self.stop = threading.Event()
        self.random = random.Random(number)
        self.k = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        try:
            while not self.stop.is_set():
                self.work(self)
                self.done += 1
                if self.pause:
                    self.stop.wait(self.random.uniform(0, 2 * self.pause))
        except BaseException as e:
            self.error = f"client {self.number}, request {self.done}, connection {self.connects}: {type(e).__name__}: {e}"
        finally:
            self.close()

    def close(self):
        if self.k:
            self.k.close()
        self.k = None

    def ask(self, method, target, body=None, **kw):
        """One request. As every client library does, it looks whether the kept connection was closed meanwhile."""
        if self.k and select.select([self.k.sock], [], [], 0)[0]:
            self.close()
        if not self.k:
            self.k = RawClient(self.addr, 60)
            self.connects += 1
        headers = [] if self.keep else [("Connection", "close")]
        self.k.send(request(method, target, headers, body, **kw))
        r = self.k.response(method)
        assert r.status == 200 and r.complete, f"{r} {r.ended} {r.body[:200]}"
        if (r.header("Connection") or "").lower() == "close":
            assert self.k.at_eof()
            self.close()
        return r.body

    def finish(self):
        self.stop.set()
        self.thread.join(90)
        assert not self.thread.is_alive(), f"client {self.number} hangs"
        return self.error


def small(c):
    assert c.ask("GET", "/?query=SELECT+1") == b"1\n"


def large(c):
    body = c.ask("POST", "/", b"SELECT number FROM numbers(50000)")
    assert body.count(b"\n") == 50000


def slow(c):
    """Rows one by one: nearly every restart meets it half way."""
    body = c.ask("POST", "/", b"SELECT sleepEachRow(0.02), number FROM numbers(15) SETTINGS max_block_size = 1")
    assert body.count(b"\n") == 15


def insert_row(c, chunked=False):
    c.ask("POST", "/?query=INSERT+INTO+roll+FORMAT+TSV", b"%d\t%d\n" % (c.number, c.done), chunked=chunked)


def insert_chunked(c):
    insert_row(c, True)


def insert_many(c):
    rows = b"".join(b"%d\t%d\n" % (c.number, c.done * 1000 + i) for i in range(1000))
    c.ask("POST", "/?query=INSERT+INTO+roll+FORMAT+TSV", rows)


ROWS = {insert_row: 1, insert_chunked: 1, insert_many: 1000}


def check_rows(server, loopers):
    """Each row that was acknowledged is there once, and no other."""
    want = {c.number: c.done * ROWS[c.work] for c in loopers if c.work in ROWS}
    out = server.sql("SELECT c, count(), uniqExact(n), max(n) FROM roll GROUP BY c ORDER BY c")
    found = {int(c): (int(n), int(u), int(m)) for c, n, u, m in (line.split("\t") for line in out.splitlines())}
    assert found == {c: (n, n, n - 1) for c, n in want.items() if n}
