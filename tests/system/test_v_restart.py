"""v: restarts that nobody notices. Clients of every kind loop queries and inserts through one address while chmuxd is
restarted again and again behind it, as `systemctl restart` does with the units in systemd/: not one error, not one row
lost or doubled. Nobody repeats a request here."""
import random
import select
import threading
import time

import pytest

from helpers import Background
from rig.http1 import RawClient, request
from rig.systemd import Manager, tcp_socket, unix_socket
from rig.wait import wait_until


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


def roll(m, start, loopers, restarts):
    """Restarts while all are at work: between two, every client gets through again or is known to be pausing."""
    took = []
    for _ in range(restarts):
        before = {c: c.done for c in loopers if not c.pause}
        wait_until(lambda: all(c.error or c.done > n for c, n in before.items()), 60, "everybody to get an answer")
        errors = [c.error for c in loopers if c.error]
        assert not errors, errors
        begin = time.monotonic()
        m.stop()
        start()  # returns when it listens
        took.append(time.monotonic() - begin)
    return took


@pytest.mark.slow
@pytest.mark.parametrize("restarts,store", [(20, 512), (8, 0)], ids=["store", "no-store"])
def test_20_restarts_without_an_error_or_a_lost_row(cleanup, ch26, tmp_path, summary, restarts, store):
    """Without a store the drain waits for idle clients instead: for longer here than by default, because a client that
    this busy machine holds up for as long would rightly be closed."""
    ch26.sql("DROP TABLE IF EXISTS roll")
    ch26.sql("CREATE TABLE roll (c UInt32, n UInt64) ENGINE = MergeTree ORDER BY (c, n)")
    path = tmp_path / "http.sock"
    m = cleanup.add(Manager(tmp_path, [("web", tcp_socket()), ("web", unix_socket(path))], watchdog_us=5000000, store=store))

    def start():
        m.start(ch26.url, chmux__drain_idle="500ms" if store else "20s")

    start()
    tcp, unix = m.addr(0), str(path)
    kinds = [
        (tcp, small, True, 0), (tcp, small, True, 0), (unix, small, True, 0), (tcp, small, False, 0), (unix, small, False, 0),
        (tcp, large, True, 0), (tcp, large, False, 0), (tcp, slow, True, 0),
        (tcp, insert_row, True, 0), (tcp, insert_row, False, 0), (unix, insert_row, True, 0), (tcp, insert_chunked, True, 0),
        (tcp, insert_many, True, 0), (tcp, insert_many, False, 0),
    ]
    # Longer than drain_idle: only the store can carry these over without a race.
    kinds += [(tcp, small, True, 0.4), (tcp, insert_row, True, 0.4), (unix, insert_row, True, 0.4)] if store else []
    loopers = [Looper(i, a, work, keep, pause) for i, (a, work, keep, pause) in enumerate(kinds)]
    try:
        took = roll(m, start, loopers, restarts)
    finally:
        errors = [e for e in [c.finish() for c in loopers] if e]
    assert not errors, errors
    check_rows(ch26, loopers)
    assert len(m.past) == restarts
    if store:
        assert m.stored > 0 and all(c.connects <= restarts + 1 for c in loopers if c.keep)
    summary.append(f"{restarts} restarts ({'store' if store else 'no store'}): {sum(c.done for c in loopers)} requests, no error; "
                   f"a restart took {min(took):.2f}-{max(took):.2f} s")
    ch26.sql("DROP TABLE roll")


@pytest.mark.san
def test_restarts_with_a_scripted_upstream(cleanup, fake, tmp_path):
    """The same in small, for the sanitizers."""
    m = cleanup.add(Manager(tmp_path, [("web", tcp_socket())], store=512))
    up = fake()

    def start():
        m.start(up.url)

    def ping(c):
        assert c.ask("GET", "/ping") == b"ok\n"

    start()
    loopers = [Looper(i, m.addr(), ping, keep=i % 2 == 0, pause=0.2 if i % 4 == 0 else 0) for i in range(6)]
    try:
        roll(m, start, loopers, 5)
    finally:
        errors = [e for e in [c.finish() for c in loopers] if e]
    assert not errors, errors


def test_an_upload_under_way_is_finished_before_the_restart(cleanup, ch26, tmp_path):
    ch26.sql("DROP TABLE IF EXISTS roll")
    ch26.sql("CREATE TABLE roll (c UInt32, n UInt64) ENGINE = MergeTree ORDER BY (c, n)")
    m = cleanup.add(Manager(tmp_path, [("web", tcp_socket()), ("admin", tcp_socket())], store=512))
    c = m.start(ch26.url)
    k = RawClient(m.addr())
    rows = b"".join(b"1\t%d\n" % i for i in range(1000))
    data = request("POST", "/?query=INSERT+INTO+roll+FORMAT+TSV", (), rows)
    k.send(data[:-100])
    c.wait_metric('chmux_upstream_connections{state="active"}', 1)
    stopping = Background(lambda: (m.stop(), m.start(ch26.url)))
    m.wait_heard("STOPPING")
    k.send(data[-100:])
    r = k.response("POST")
    assert r.status == 200 and r.complete
    stopping.result()
    assert ch26.sql("SELECT count(), uniqExact(n) FROM roll") == "1000\t1000\n"
    ch26.sql("DROP TABLE roll")
