"""h: P7 At most once, unless it is safe."""
import pytest

from helpers import OK, Background, chmux_error, parallel, q
from rig.fake import FakeUpstream, free_port, serve_ok
from rig.http1 import request
from rig.wait import wait_until

pytestmark = [pytest.mark.san, pytest.mark.loop]
IDLE = 'chmux_upstream_connections{state="idle"}'


def dies_on_reuse(how="eof", after=None):
    """Connection 1 answers one request and dies at the second, when its head (and `after` body bytes) has
    come. Later connections serve."""

    def first(conn):
        conn.request()
        conn.send(OK)
        h = conn.head()
        if h is None:
            return
        if after == "body":
            conn.body(h)
        elif after:
            conn.take(after)
        if how == "reset":
            conn.reset()

    return [first, serve_ok]


@pytest.fixture
def warmed(chmuxd, fake):
    """warmed(script): (chmuxd, fake) with one idle upstream connection that has served a request."""

    def make(script, **options):
        up = fake(script)
        c = chmuxd(up.url, **options)
        assert c.ask("GET", "/ping").status == 200
        wait_until(lambda: c.metric(IDLE) == 1)
        return c, up

    return make


@pytest.mark.parametrize("how", ["eof", "reset"])
def test_a_get_on_a_dead_reused_connection_is_sent_again(warmed, how):
    c, up = warmed(dies_on_reuse(how))
    r = c.ask("GET", q("SELECT 1"))
    assert r.status == 200 and r.body == b"ok\n"
    assert [n for n, _ in up.heads] == [1, 1, 2]
    assert up.heads[1][1].target == up.heads[2][1].target, "the retry has another query_id"
    assert c.metric("chmux_upstream_retries_total") == 1


def test_a_server_that_closes_idle_connections_never_yields_an_error(chmuxd, fake):
    """It answers and closes at once without saying so; 300 GETs by 6 clients."""

    def script(conn):
        conn.request()
        conn.send(OK)

    up = fake(script)
    c = chmuxd(up.url)

    def client(i):
        with c.client() as k:
            for _ in range(50):
                k.send(request("GET", q("SELECT 1")))
                r = k.response()
                assert r.status == 200 and r.body == b"ok\n", r

    parallel(6, client)
    assert len({h.query_id for _, h in up.heads}) == 300


def test_an_unsent_insert_goes_to_a_fresh_connection(warmed, gate):
    """The server closed the idle connection before the INSERT came: not a byte was sent, so it goes again."""
    g = gate()

    def first(conn):
        conn.request()
        conn.send(OK)
        conn.stall(g)

    c, up = warmed([first, serve_ok])
    g.set()
    c.wait_metric(IDLE, 0)
    assert c.ask("POST", "/?query=INSERT+INTO+t", (), b"1\ta\n").status == 200
    assert up.accepted == 2 and [h.method for _, h in up.heads] == ["GET", "POST"]
    assert c.metric('chmux_upstream_closes_total{reason="peer_idle"}') == 1


@pytest.mark.parametrize("how", ["eof", "reset"])
def test_an_insert_whose_connection_dies_mid_body_is_not_sent_twice(warmed, how):
    c, up = warmed(dies_on_reuse(how, after=1000))
    r = c.ask("POST", "/?query=INSERT+INTO+t+FORMAT+TSV", (), b"1\ta\n" * 100000)
    if r.status:
        chmux_error(r, "upstream_closed", 502, 210)
    c.ask("GET", "/ping")
    assert [h.method for _, h in up.heads].count("POST") == 1
    assert c.metric("chmux_upstream_retries_total") == 0


@pytest.mark.parametrize("how", ["eof", "reset"])
def test_an_insert_whose_connection_dies_after_the_body_is_not_sent_twice(warmed, how):
    c, up = warmed(dies_on_reuse(how, after="body"))
    chmux_error(c.ask("POST", "/?query=INSERT+INTO+t+FORMAT+TSV", (), b"1\ta\n"), "upstream_closed", 502, 210)
    assert [h.method for _, h in up.heads].count("POST") == 1


def test_an_insert_in_the_body_is_not_sent_twice(warmed):
    c, up = warmed(dies_on_reuse(after="body"))
    chmux_error(c.ask("POST", "/", (), b"  /* x */ insert into t values (1)"), "upstream_closed", 502)
    assert [h.method for _, h in up.heads].count("POST") == 1


@pytest.mark.parametrize("sql", [b"CREATE TABLE t (a Int8)", b"INSERT INTO t SELECT 1", b"ALTER TABLE t DELETE WHERE 1", b"WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x",
                                 b"DROP TABLE t", b"OPTIMIZE TABLE t", b"SYSTEM FLUSH LOGS"])
def test_no_write_is_sent_twice(warmed, sql):
    c, up = warmed(dies_on_reuse(after="body"))
    chmux_error(c.ask("POST", "/", (), sql), "upstream_closed", 502)
    assert [h.method for _, h in up.heads].count("POST") == 1


def test_a_read_only_post_held_in_full_is_sent_again(warmed):
    bodies = []

    def first(conn):
        conn.request()
        conn.send(OK)
        bodies.append(conn.request()[1])

    def second(conn):
        bodies.append(conn.request()[1])
        conn.send(OK)

    c, up = warmed([first, second])
    assert c.ask("POST", "/", (), b"SELECT 1, 'again'").status == 200
    assert bodies == [b"SELECT 1, 'again'"] * 2
    assert c.metric("chmux_upstream_retries_total") == 1


def test_a_post_larger_than_replay_buffer_is_not_sent_again(warmed):
    c, up = warmed(dies_on_reuse(after="body"), upstream__replay_buffer="1k")
    chmux_error(c.ask("POST", "/", (), b"SELECT '" + b"x" * 5000 + b"'"), "upstream_closed", 502)
    assert [h.method for _, h in up.heads].count("POST") == 1


@pytest.mark.parametrize("headers", [[("Content-Encoding", "gzip")], [("Content-Type", "multipart/form-data; boundary=x")]])
def test_a_body_chmux_cannot_read_is_not_sent_again(warmed, headers):
    c, up = warmed(dies_on_reuse(after="body"))
    chmux_error(c.ask("POST", "/", headers, b"SELECT 1"), "upstream_closed", 502)
    assert [h.method for _, h in up.heads].count("POST") == 1


def test_a_fresh_connection_that_dies_is_not_tried_again(chmuxd, fake):
    def script(conn):
        conn.request()

    up = fake(script)
    c = chmuxd(up.url)
    chmux_error(c.ask("GET", q("SELECT 1")), "upstream_closed", 502)
    assert len(up.heads) == 1


def test_the_second_death_is_final(warmed):
    def first(conn):
        conn.request()
        conn.send(OK)
        conn.head()

    def second(conn):
        conn.head()

    c, up = warmed([first, second])
    chmux_error(c.ask("GET", q("SELECT 1")), "upstream_closed", 502)
    assert len(up.heads) == 3


def test_nothing_is_sent_again_after_a_response_byte(warmed):
    def first(conn):
        conn.request()
        conn.send(OK)
        conn.head()
        conn.send(b"HTTP/1.1 200 OK\r\nConte")

    c, up = warmed([first, serve_ok])
    r = c.ask("GET", q("SELECT 1"))
    assert not (r.status == 200 and r.complete), r
    assert len(up.heads) == 2


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504])
def test_no_answer_is_ever_repeated(chmuxd, fake, status):
    def script(conn):
        while conn.request() is not None:
            conn.send(b"HTTP/1.1 %d Error\r\nContent-Length: 0\r\n\r\n" % status)

    up = fake(script)
    c = chmuxd(up.url)
    for _ in range(3):
        assert c.ask("GET", q("SELECT 1")).status == status
    assert len(up.heads) == 3


def test_one_stale_death_drops_the_idle_connections_of_its_age(chmuxd, fake, gate):
    """Four idle connections; one turns out dead at reuse: the others go too, and the retry is fresh."""
    g = gate()

    def script(conn):
        conn.request()
        conn.stall(g)
        conn.send(OK)
        if conn.number <= 4:
            conn.head()  # and dies
            return
        while conn.request() is not None:
            conn.send(OK)

    up = fake(script)
    c = chmuxd(up.url, upstream__pool_size=4)
    busy = [Background(lambda: c.ask("GET", "/ping")) for _ in range(4)]
    up.wait_heads(4)
    g.set()
    assert [b.result().status for b in busy] == [200] * 4
    wait_until(lambda: c.metric(IDLE) == 4)
    assert c.ask("GET", q("SELECT 1")).status == 200
    assert up.accepted == 5
    assert c.metric('chmux_upstream_closes_total{reason="stale_kin"}') == 3


def test_connection_refused_is_a_503_and_heals(chmuxd, cleanup):
    port = free_port()
    c = chmuxd(f"http://127.0.0.1:{port}", upstream__eject_min="10ms", upstream__eject_max="50ms", upstream__queue_timeout="2s")
    r = chmux_error(c.ask("GET", q("SELECT 1")), "upstream_connect", 503, 210)
    assert str(port) not in r.text and "127.0.0.1" not in r.text, "the error names the server"
    assert c.metric('chmux_upstream_connects_total{result="failed"}') >= 1
    up = cleanup.add(FakeUpstream(port=port))
    wait_until(lambda: c.ask("GET", "/ping").status == 200, what="the server to be used again")
    assert up.accepted >= 1


def test_several_endpoints_share_the_load(chmuxd, fake, gate):
    g = gate()

    def script(conn):
        while conn.request() is not None:
            conn.stall(g)
            conn.send(OK)

    a, b = fake(script), fake(script)
    c = chmuxd([a.url, b.url], upstream__pool_size=6)
    busy = [Background(lambda: c.ask("GET", "/x")) for _ in range(6)]
    wait_until(lambda: len(a.heads) + len(b.heads) == 6)
    assert len(a.heads) == len(b.heads) == 3
    g.set()
    assert [x.result().status for x in busy] == [200] * 6


def test_a_refusing_endpoint_costs_no_error(chmuxd, fake):
    up = fake()
    c = chmuxd([f"http://127.0.0.1:{free_port()}", up.url], upstream__eject_min="50ms")

    def client(i):
        for _ in range(10):
            assert c.ask("POST", "/?query=INSERT", (), b"x").status == 200

    parallel(8, client)
    assert len(up.heads) == 80
    assert c.metric("chmux_upstream_ejections_total") >= 1
    assert c.metric('chmux_upstream_addresses{state="ejected"}') == 1


def test_an_ejected_endpoint_is_probed_before_it_gets_traffic(chmuxd, fake, cleanup):
    good = fake()
    port = free_port()
    c = chmuxd([f"http://127.0.0.1:{port}", good.url], upstream__eject_min="20ms", upstream__eject_max="50ms")
    assert all(c.ask("GET", "/x").status == 200 for _ in range(4))
    c.wait_metric('chmux_upstream_addresses{state="ejected"}', 1)
    back = cleanup.add(FakeUpstream(port=port))
    back.wait_heads(1)
    assert back.heads[0][1].target == "/ping", "traffic before the probe"
    c.wait_metric('chmux_upstream_addresses{state="ejected"}', 0)
    wait_until(lambda: c.ask("GET", "/x").status == 200 and any(h.target == "/x" for _, h in back.heads), what="traffic to come back")


def test_a_probe_that_fails_keeps_the_endpoint_out(chmuxd, fake, cleanup):
    def sick(conn):
        while conn.request() is not None:
            conn.send(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")

    good = fake()
    port = free_port()
    c = chmuxd([f"http://127.0.0.1:{port}", good.url], upstream__eject_min="20ms", upstream__eject_max="50ms")
    assert all(c.ask("GET", "/x").status == 200 for _ in range(4))
    c.wait_metric('chmux_upstream_addresses{state="ejected"}', 1)
    back = cleanup.add(FakeUpstream(sick, port=port))
    back.wait_heads(3)
    assert {h.target for _, h in back.heads} == {"/ping"}
    assert all(c.ask("GET", "/x").status == 200 for _ in range(10))
