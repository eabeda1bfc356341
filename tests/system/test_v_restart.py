"""v: restarts that nobody notices. Clients of every kind loop queries and inserts through one address while chmuxd is
restarted again and again behind it, as `systemctl restart` does with the units in systemd/: not one error, not one row
lost or doubled. Nobody repeats a request here."""
import time

import pytest

from helpers import Background
from loopers import Looper, check_rows, insert_chunked, insert_many, insert_row, large, slow, small
from rig.http1 import RawClient, request
from rig.systemd import Manager, tcp_socket, unix_socket
from rig.wait import wait_until


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
