"""i: a client that leaves takes its query with it, on the server, within a second, by the caller's own
credentials, and the connections counted against the cap stay true meanwhile."""
import time

import pytest

from helpers import OK, insert, q
from rig import chmuxd as rig
from rig.http1 import RawClient, request
from rig.wait import wait_until

pytestmark = pytest.mark.san
ALICE = [("X-ClickHouse-User", "alice"), ("X-ClickHouse-Key", "secret")]
AGGREGATE = "SELECT sum(sleepEachRow(0.05)) FROM numbers(1200)"
STREAM = "SELECT number, sleepEachRow(0.05) FROM numbers(1200)"
INSERT_SELECT = "INSERT INTO killed SELECT number, sleepEachRow(0.05) FROM numbers(1200)"


def at_once():
    """Seconds: what is promised; a sanitizer build does all of it many times slower."""
    return 5 if rig.sanitizer() else 1


def running(ch, query_id):
    return query_id in ch.queries(f"query_id = '{query_id}'")


def leaves(chmux, ch, query_id, raw, how="close"):
    """Sends raw, waits until the query runs, leaves; seconds until the server no longer runs it."""
    k = RawClient(chmux.addr)
    k.send(raw)
    wait_until(lambda: running(ch, query_id), what=f"{query_id} to run")
    begin = time.monotonic()
    k.close() if how == "close" else k.reset()
    wait_until(lambda: not running(ch, query_id), 10, f"{query_id} to be killed")
    return time.monotonic() - begin


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("name,sql", [("aggregate", AGGREGATE), ("stream", STREAM), ("insert-select", INSERT_SELECT)])
@pytest.mark.parametrize("auth", ["headers", "url", "basic"])
def test_killing_the_client_cancels_its_query_within_a_second(ch26, chmux26, name, sql, auth, how):
    """As alice, who has a password; max_block_size=1 keeps one block short."""
    if name == "insert-select":
        ch26.sql("CREATE TABLE IF NOT EXISTS killed (a UInt64, b UInt8) ENGINE = Memory")
    query_id = f"kill-{name}-{auth}-{how}"
    params = {"query_id": query_id, "max_block_size": 1}
    headers = []
    if auth == "headers":
        headers = ALICE
    elif auth == "url":
        params |= {"user": "alice", "password": "secret"}
    else:
        headers = [("Authorization", "Basic YWxpY2U6c2VjcmV0")]
    from urllib.parse import urlencode

    killed = chmux26.metric('chmux_kill_queries_total{result="ok"}')
    took = leaves(chmux26, ch26, query_id, request("POST", "/?" + urlencode(params), headers, sql.encode()), how)
    assert took < at_once(), f"gone after {took:.2f} s"
    chmux26.wait_metric('chmux_kill_queries_total{result="ok"}', lambda v: v > killed)


def test_a_query_without_an_id_is_killed_too(ch26, chmux26):
    k = RawClient(chmux26.addr)
    k.send(request("POST", "/?max_block_size=1", ALICE, (AGGREGATE + " /* no id of its own */").encode()))
    mine = lambda: ch26.queries("query LIKE '%no id of its own%'")  # noqa: E731
    wait_until(mine)
    k.close()
    wait_until(lambda: not mine(), at_once(), "the query to be killed")


def test_a_get_is_killed_too(ch26, chmux26):
    assert leaves(chmux26, ch26, "kill-get", request("GET", q(AGGREGATE, query_id="kill-get", max_block_size=1))) < at_once()


def test_a_compressed_stream_is_killed_too(ch26, chmux26):
    raw = request("GET", q(STREAM, query_id="kill-gzip", max_block_size=1), [("Accept-Encoding", "gzip")])
    assert leaves(chmux26, ch26, "kill-gzip", raw) < at_once()


def test_on_disconnect_close_leaves_the_query_alone(ch26, chmuxd):
    c = chmuxd(ch26.url, upstream__on_disconnect="close")
    k = RawClient(c.addr)
    k.send(request("POST", "/?query_id=not-killed&max_block_size=1", (), AGGREGATE.encode()))
    wait_until(lambda: running(ch26, "not-killed"))
    k.close()
    wait_until(lambda: c.metric("chmux_exchanges") == 0)
    assert running(ch26, "not-killed")
    assert c.metric("chmux_kill_queries_total") == 0
    ch26.sql("KILL QUERY WHERE query_id = 'not-killed' SYNC")


def test_the_cap_stays_true_while_queries_are_killed(ch26, chmuxd, relay):
    """pool_size 3, all three busy, all three clients leave: the relay never sees a fourth connection."""
    between = relay(ch26.addr)
    c = chmuxd(f"http://127.0.0.1:{between.port}", upstream__pool_size=3)
    for round_ in range(3):
        ids = [f"cap-{round_}-{i}" for i in range(3)]
        clients = [RawClient(c.addr) for _ in ids]
        for k, i in zip(clients, ids):
            k.send(request("POST", f"/?query_id={i}&max_block_size=1", ALICE, AGGREGATE.encode()))
        wait_until(lambda: all(running(ch26, i) for i in ids))
        for k in clients:
            k.close()
        wait_until(lambda: not any(running(ch26, i) for i in ids), 3 * at_once(), "all three to be killed")
    assert between.peak <= 3, between.peak
    assert c.metric("chmux_upstream_connections_peak") <= 3
    assert c.sql("SELECT 1") == "1\n"


def test_the_kill_carries_the_callers_credentials_and_nothing_else(chmuxd, fake, gate):
    """What exactly goes out, seen by the fake: user, key, quota, role; the victim's id; not its body."""
    g = gate()

    def script(conn):
        while (got := conn.request()) is not None:
            conn.fake.bodies = getattr(conn.fake, "bodies", []) + [got[1]]
            if b"SELECT slow" in got[1]:
                conn.wait_eof()
                return
            g.set()
            conn.send(OK)

    up = fake(script)
    c = chmuxd(up.url)
    k = RawClient(c.addr)
    k.send(request("POST", "/?query_id=it's&user=bob&password=p%40ss&role=r1&role=r2&max_threads=1", [("X-ClickHouse-Quota", "qk"), ("X-Other", "1")], b"SELECT slow"))
    up.wait_heads(1)
    wait_until(lambda: up.bodies)
    k.close()
    assert g.wait(10), "no KILL QUERY came"
    h = up.heads[1][1]
    text = h.target + " " + up.bodies[1].decode()
    assert "KILL" in text.upper() and "ASYNC" in text.upper()
    assert "user=bob" in h.target and "password=p%40ss" in h.target
    assert h.header("X-ClickHouse-Quota") == "qk"
    assert h.header("X-Other") is None and "max_threads" not in h.target
    assert "it\\'s" in text or "it''s" in text or "it%5C%27s" in text or "it%27%27s" in text, text
    c.wait_metric('chmux_kill_queries_total{result="ok"}', 1)


@pytest.mark.parametrize("headers", [[("Authorization", "Bearer a.b.c")], [("X-ClickHouse-User", "u"), ("X-ClickHouse-Key", "k")]])
def test_header_credentials_go_into_the_kill(chmuxd, fake, headers):
    def script(conn):
        while (h := conn.head()) is not None:
            conn.body(h)
            if conn.number == 1:
                conn.wait_eof()
                return
            conn.send(OK)

    up = fake(script)
    c = chmuxd(up.url)
    k = RawClient(c.addr)
    k.send(request("POST", "/?query_id=x", headers, b"SELECT slow"))
    up.wait_heads(1)
    k.close()
    h = up.wait_heads(2)
    for n, v in headers:
        assert h.header(n) == v


def test_an_insert_with_a_body_is_never_killed(chmuxd, fake):
    """Its connection is closed, without a final chunk; no KILL goes out."""
    cut = []

    def script(conn):
        h = conn.head()
        cut.append(conn.body(h))

    up = fake(script)
    c = chmuxd(up.url)
    k = RawClient(c.addr)
    k.send(insert(b"1\ta\n" * 1000, chunked=True)[:-5])
    up.wait_heads(1)
    k.close()
    up.wait_open(0)
    wait_until(lambda: c.metric("chmux_exchanges") == 0)
    assert cut == [None]
    assert c.metric("chmux_kill_queries_total") == 0 and up.accepted == 1


def test_a_client_that_leaves_while_queued_is_dropped_at_once(chmuxd, fake, gate):
    g = gate()

    def script(conn):
        while conn.request() is not None:
            conn.stall(g)
            conn.send(OK)

    up = fake(script)
    c = chmuxd(up.url, upstream__pool_size=1)
    first = RawClient(c.addr)
    first.send(request("GET", "/first"))
    up.wait_heads(1)
    gone = [RawClient(c.addr) for _ in range(10)]
    for k in gone:
        k.send(request("GET", "/gone"))
    c.wait_metric("chmux_queue_waiting", 10)
    for k in gone:
        k.close()
    c.wait_metric("chmux_queue_waiting", 0)
    assert c.metric("chmux_exchanges") == 1
    g.set()
    assert first.response().status == 200
    assert len(up.heads) == 1
    c.wait_metric('chmux_exchanges_finished_total{result="client_gone"}', 10)
    first.close()


def test_a_client_that_leaves_while_a_body_streams_closes_the_upstream(chmuxd, fake):
    def script(conn):
        conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while not conn.eof.is_set():
            conn.send(bytes(100000))

    up = fake([script, lambda conn: [conn.send(OK) for _ in iter(conn.request, None)]])
    c = chmuxd(up.url)
    k = RawClient(c.addr)
    k.send(request("GET", "/?query=SELECT"))
    k.head()
    k.take(1000)
    k.close()
    wait_until(lambda: up.conns[0].eof.is_set() or up.conns[0].closed)
    c.wait_metric('chmux_upstream_connections{state="active"}', 0)
    assert c.ask("GET", "/ping").status == 200


def test_the_pool_is_whole_after_many_left(ch26, chmux26):
    for i in range(40):
        k = RawClient(chmux26.addr)
        k.send(request("POST", "/", (), b"SELECT sleep(0.2), 'many left'"))
        k.reset() if i % 2 else k.close()
    wait_until(lambda: chmux26.metric("chmux_exchanges") == 0)
    wait_until(lambda: not ch26.queries("query LIKE '%many left%'"))
    chmux26.wait_metric('chmux_upstream_connections{state="active"}', 0)  # the last kills are over
    chmux26.wait_metric("chmux_queue_waiting", 0)
    assert chmux26.sql("SELECT 1") == "1\n"
