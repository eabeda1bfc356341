"""j: sessions: requests of one session_id run one after another, always on the same endpoint."""
import threading

import pytest

from helpers import OK, Background, chmux_error, parallel
from rig.http1 import RawClient, ask, request
from rig.wait import wait_until

pytestmark = [pytest.mark.san, pytest.mark.loop]


def test_16_clients_in_one_session_with_a_temporary_table(server, through):
    """Each inserts 5 times and reads; nobody ever sees 373 SESSION_IS_LOCKED."""
    sid = f"sixteen-{server.version}"
    session = f"/?session_id={sid}&session_timeout=30"
    assert through.ask("POST", session, (), b"CREATE TEMPORARY TABLE tt (client Int32, n Int32)").status == 200

    def client(i):
        for n in range(5):
            r = ask(through.addr, "POST", session, (), b"INSERT INTO tt VALUES (%d, %d)" % (i, n))
            assert r.status == 200, r
            r = ask(through.addr, "POST", session, (), b"SELECT count() FROM tt WHERE client = %d" % i)
            assert r.status == 200 and int(r.body) == n + 1, r

    parallel(16, client)
    r = through.ask("POST", session, (), b"SELECT count(), uniqExact(client) FROM tt")
    assert r.body == b"80\t16\n"
    assert through.ask("POST", session, (), b"DROP TABLE tt").status == 200


def test_settings_of_a_session_stay(chmux26):
    s = "/?session_id=settings"
    assert chmux26.ask("POST", s, (), b"SET max_threads = 3").status == 200
    assert chmux26.ask("POST", s, (), b"SELECT getSetting('max_threads')").body == b"3\n"
    assert chmux26.ask("POST", "/", (), b"SELECT getSetting('max_threads') = 3").body == b"0\n"


class Overlap:
    """A script that notes whether two requests of one session were ever in progress together."""

    def __init__(self):
        self.lock = threading.Lock()
        self.active = {}
        self.worst = 0

    def __call__(self, conn):
        while (got := conn.request()) is not None:
            key = got[0].target.partition("session_id=")[2].partition("&")[0]
            with self.lock:
                self.active[key] = self.active.get(key, 0) + 1
                self.worst = max(self.worst, self.active[key])
            threading.Event().wait(0.003)  # the server's work
            with self.lock:
                self.active[key] -= 1
            conn.send(OK)


def test_one_session_never_has_two_requests_at_the_server(chmuxd, fake):
    o = Overlap()
    up = fake(o)
    c = chmuxd(up.url, upstream__pool_size=16)
    parallel(16, lambda i: [c.ask("POST", f"/?session_id=s{n % 2}", (), b"x") for n in range(10)])
    assert o.worst == 1
    assert len(up.heads) == 160


def test_the_order_within_a_session_is_the_order_of_arrival(chmuxd, fake, gate):
    g = gate()
    order = []

    def script(conn):
        while (got := conn.request()) is not None:
            order.append(got[0].path)
            conn.stall(g)
            conn.send(OK)

    up = fake(script)
    c = chmuxd(up.url)
    waiting = []
    for i in range(8):
        waiting.append(Background(lambda i=i: c.ask("GET", f"/q{i}?session_id=s")))
        if i == 0:
            up.wait_heads(1)
        else:
            c.wait_metric("chmux_queue_waiting", i)
    g.set()
    assert [w.result().status for w in waiting] == [200] * 8
    assert order == [f"/q{i}" for i in range(8)]


def test_a_waiting_session_holds_no_connection(chmuxd, fake, gate):
    """pool_size 2, one session with 10 requests: others are served meanwhile."""
    g = gate()

    def script(conn):
        while (got := conn.request()) is not None:
            if "session_id" in got[0].target:
                conn.stall(g)
            conn.send(OK)

    up = fake(script)
    c = chmuxd(up.url, upstream__pool_size=2)
    waiting = [Background(lambda: c.ask("GET", "/x?session_id=s")) for _ in range(10)]
    c.wait_metric("chmux_queue_waiting", 9)
    for _ in range(20):
        assert c.ask("GET", "/ping").status == 200
    g.set()
    assert [w.result().status for w in waiting] == [200] * 10


def test_the_same_id_of_two_users_is_two_sessions(chmuxd, fake, gate):
    """As in ClickHouse: the second user's request does not wait for the first's."""
    g = gate()

    def script(conn):
        while (got := conn.request()) is not None:
            if "user=ann" in got[0].target:
                conn.stall(g)
            conn.send(OK)

    up = fake(script)
    c = chmuxd(up.url)
    ann = Background(lambda: c.ask("GET", "/x?session_id=s&user=ann"))
    up.wait_heads(1)
    assert c.ask("GET", "/x?session_id=s&user=bob").status == 200
    assert ann.running
    g.set()
    assert ann.result().status == 200


def test_a_session_stays_on_its_endpoint(chmuxd, fake):
    a, b = fake(), fake()
    c = chmuxd([a.url, b.url])

    def client(i):
        for _ in range(6):
            assert c.ask("POST", f"/?session_id=s{i}", (), b"x").status == 200

    parallel(12, client)
    seen = [{h.target for _, h in up.heads} for up in (a, b)]
    ids = [{t.partition("session_id=")[2].partition("&")[0] for t in s} for s in seen]
    assert not ids[0] & ids[1], f"sessions on both endpoints: {ids[0] & ids[1]}"
    assert len(ids[0] | ids[1]) == 12


def test_a_session_whose_endpoint_is_gone_fails_loudly(chmuxd, fake):
    a, b = fake(), fake()
    c = chmuxd([a.url, b.url], upstream__queue_timeout="2s", upstream__eject_min="20s")
    assert c.ask("POST", "/?session_id=pinned", (), b"x").status == 200
    home, other = (a, b) if a.heads else (b, a)
    home.stop()
    chmux_error(c.ask("POST", "/?session_id=pinned", (), b"x"), "upstream_connect", 503, 372)
    assert not any("pinned" in h.target for _, h in other.heads), "the session was moved silently"
    assert c.ask("POST", "/", (), b"x").status == 200


def test_a_client_that_leaves_frees_its_session(chmuxd, fake, gate):
    g = gate()

    def script(conn):
        while (got := conn.request()) is not None:
            if conn.number == 1:
                conn.wait_eof()
                return
            conn.send(OK)

    up = fake(script)
    c = chmuxd(up.url)
    k = RawClient(c.addr)
    k.send(request("POST", "/?session_id=s&query=INSERT", (), b"x"))
    up.wait_heads(1)
    second = Background(lambda: c.ask("POST", "/?session_id=s", (), b"SELECT 1"))
    c.wait_metric("chmux_queue_waiting", 1)
    k.close()
    assert second.result().status == 200
    g.set()


def test_sessions_are_counted(chmuxd, fake):
    c = chmuxd(fake().url)
    for i in range(5):
        c.ask("POST", f"/?session_id=s{i}", (), b"x")
    wait_until(lambda: c.metric("chmux_sessions") == 5)
