"""z: several upstreams: routing by listener, user and database; each on its own."""
import json
import threading

import pytest

from helpers import Background, chmux_error
from rig.chmuxd import EXIT_USAGE, run
from rig.http1 import ask
from rig.wait import wait_until

pytestmark = pytest.mark.san


def named(text):
    """A script that answers every request with this text."""
    body = text.encode()
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: Keep-Alive\r\n\r\n%s" % (len(body), body)

    def script(conn):
        while conn.request() is not None:
            conn.send(answer)

    return script


@pytest.fixture
def two(chmuxd, tmp_path):
    """two(default, other, *settings): a chmuxd with the upstream `other` for user ann, database dwh, and all of the
    listener bulk."""
    return lambda *urls: start_two(chmuxd, f"unix:{tmp_path}/a", *urls)


def start_two(chmuxd, admin, default, other, *extra):
    sets = ["upstream.other.url=" + other, "upstream.other.users=ann, bob", "upstream.other.databases=dwh, my db",
            "listen.bulk.address=127.0.0.1:0", "listen.bulk.upstream=other", "listen.plain.address=127.0.0.1:0",
            "listen.plain.upstream=default", *extra]
    c = chmuxd(default, admin=admin, args=[a for s in sets for a in ("--set", s)])
    wait_until(lambda: len(c._bound()[0]) == 3, 10, "all three listeners")
    found = {name: addr for addr, name in c._bound()[0]}
    c.doors = {k: (v.rpartition(":")[0], int(v.rpartition(":")[2])) for k, v in found.items()}
    return c


def api(c, path, method="GET"):
    return ask(c.admin_addr, method, "/api/v1/" + path, host="127.0.0.1")


def show(c, what):
    r = api(c, what)
    assert r.status == 200, r
    return json.loads(r.body)


def upstreams(c):
    return {u["name"]: u for u in show(c, "status")["upstreams"]}


def test_the_first_that_says_something_decides(two, fake):
    a, b = fake(named("a")), fake(named("b"))
    c = two(a.url, b.url)
    user = [("X-ClickHouse-User", "ann")]
    database = [("X-ClickHouse-Database", "dwh")]
    assert c.ask("GET", "/?query=1").body == b"a"
    assert c.ask("GET", "/?query=1&user=bob").body == b"b"
    assert c.ask("GET", "/?query=1", user).body == b"b"
    assert c.ask("GET", "/?query=1&user=Ann").body == b"a"
    assert c.ask("GET", "/?query=1&database=my+db").body == b"b"
    assert c.ask("GET", "/?query=1&database=other", database).body == b"b"  # the header wins, as in ClickHouse
    assert c.ask("GET", "/?query=1&database=other").body == b"a"
    assert ask(c.doors["bulk"], "GET", "/?query=1&user=eve").body == b"b"
    assert ask(c.doors["plain"], "GET", "/?query=1&user=ann", database).body == b"a"
    with c.client() as client:  # one connection, a decision for each request
        for target, want in (("/?user=ann", b"b"), ("/", b"a"), ("/?database=dwh", b"b"), ("/ping", b"a")):
            client.send(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % target.encode())
            assert client.response().body == want


def test_one_that_is_down_or_full_does_not_disturb_the_other(two, fake):
    gate = threading.Event()

    def stuck(conn):
        while conn.request() is not None:
            conn.stall(gate)
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb")

    a, b = fake(named("a")), fake(stuck)
    c = two(a.url, b.url, "upstream.other.pool_size=1", "upstream.other.queue_size=1")
    first = Background(lambda: c.ask("GET", "/?user=ann"))
    wait_until(lambda: upstreams(c)["other"]["pool"]["active"] == 1, 10, "the only connection to be in use")
    second = Background(lambda: c.ask("GET", "/?user=ann"))
    c.wait_metric('chmux_queue_waiting{upstream="other"}', 1)
    chmux_error(c.ask("GET", "/?user=ann"), "queue_full", 503)
    assert c.ask("GET", "/").body == b"a"  # nobody waits there
    queue = show(c, "queue")
    assert [w["upstream"] for w in queue["waiters"]] == ["other"] and queue["waiting"] == 1
    exchanges = show(c, "exchanges")["exchanges"]
    assert [e["upstream"] for e in exchanges] == ["other", "other"]
    gate.set()
    assert first.result().body == second.result().body == b"b"
    assert c.metric('chmux_queue_waiting{upstream="default"}') == 0
    # Down: only its own requests fail, and readiness can tell them apart.
    b.stop()
    r = c.ask("GET", "/?user=ann")
    assert r.status in (502, 503), r
    wait_until(lambda: not upstreams(c)["other"]["up"], 10, "the other one to be seen down")
    assert c.ask("GET", "/").body == b"a"
    assert c.admin("/ready?upstream").status == 200
    assert c.admin("/ready?upstream=default").status == 200
    assert c.admin("/ready?upstream=other").status == 503
    assert c.admin("/ready?upstream=nobody").status == 404
    assert show(c, "errors")["errors"][0]["upstream"] == "other"


def test_metrics_and_commands_of_each(two, fake):
    a, b = fake(named("a")), fake(named("b"))
    c = two(a.url, b.url, "upstream.other.pool_size=3")
    for _ in range(3):
        assert c.ask("GET", "/").status == 200
    assert c.ask("GET", "/?user=ann").status == 200
    m = c.metrics()
    assert m['chmux_upstream_pool_size{upstream="default"}'] == 16 and m['chmux_upstream_pool_size{upstream="other"}'] == 3
    assert m['chmux_request_seconds_count{upstream="default"}'] == 3
    assert m['chmux_request_seconds_count{upstream="other"}'] == 1
    assert m['chmux_upstream_connects_total{result="ok",upstream="other"}'] == 1
    assert m['chmux_upstream_connections{state="idle",upstream="other"}'] == 1
    status = show(c, "status")
    assert [u["name"] for u in status["upstreams"]] == ["default", "other"]
    assert status["pool"]["size"] == 19 and status["pool"]["idle"] == 2
    assert [e["upstream"] for e in show(c, "endpoints")["endpoints"]] == ["default", "other"]
    assert sorted(e["upstream"] for e in show(c, "pool")["connections"]) == ["default", "other"]
    # Paused: who comes waits, but only there.
    assert json.loads(api(c, "pause?upstream=other", "POST").body)["was_paused"] is False
    waiting = Background(lambda: c.ask("GET", "/?user=ann"))
    c.wait_metric('chmux_queue_waiting{upstream="other"}', 1)
    assert c.ask("GET", "/").body == b"a"
    assert c.metric('chmux_upstream_paused{upstream="other"}') == 1 and show(c, "status")["state"] == "serving"
    assert json.loads(api(c, "resume?upstream=other", "POST").body)["was_paused"] is True
    assert waiting.result().body == b"b"
    assert json.loads(api(c, "reconnect?upstream=other", "POST").body)["closed"] == 1
    wait_until(lambda: upstreams(c)["other"]["pool"]["idle"] == 0, 10, "its connection to be closed")
    assert upstreams(c)["default"]["pool"]["idle"] == 1
    assert api(c, "pause?upstream=nobody", "POST").status == 404


def test_two_real_servers_behind_one_chmuxd(two, ch26, ch18):
    """Versions, compression rights and sessions of each stay its own."""
    c = two(ch26.url, ch18.url, "upstream.response_compression=zstd", "upstream.other.response_compression=zstd",
            "upstream.other.request_compression=zstd")
    new = ask(c.doors["plain"], "POST", "/", (), b"SELECT version()").text
    old = ask(c.doors["bulk"], "POST", "/", (), b"SELECT version()").text
    assert new.startswith("26.7.") and old.startswith("18.16."), (new, old)
    # 18.16 knows gzip only, 26.7 zstd: what one can do was not taken for the other.
    big = b"SELECT number FROM system.numbers LIMIT 100000"
    want = b"".join(b"%d\n" % i for i in range(100000))
    for door in ("plain", "bulk", "plain"):
        r = ask(c.doors[door], "POST", "/", (), big)
        assert r.status == 200 and r.complete and r.body == want, r
    session = "/?session_id=same&session_timeout=30"
    for door, n in (("plain", 26), ("bulk", 18)):  # one id, two servers: two sessions
        assert ask(c.doors[door], "POST", session, (), b"CREATE TEMPORARY TABLE t (n Int32)").status == 200
        assert ask(c.doors[door], "POST", session, (), b"INSERT INTO t VALUES (%d)" % n).status == 200
    for door, n in (("plain", b"26\n"), ("bulk", b"18\n")):
        assert ask(c.doors[door], "POST", session, (), b"SELECT n FROM t").body == n
    m = c.metrics()
    assert m['chmux_sessions{upstream="default"}'] == m['chmux_sessions{upstream="other"}'] == 1


def test_a_reload_changes_routes_but_not_which_there_are(chmuxd, fake, tmp_path):
    a, b = fake(named("a")), fake(named("b"))
    conf = tmp_path / "chmux.conf"
    text = f"[upstream]\nurl = {a.url}\n[upstream b]\nurl = {b.url}\nusers = ann\n"
    conf.write_text(text)
    c = chmuxd(config=conf, admin=f"unix:{tmp_path}/admin.sock")
    assert c.ask("GET", "/?user=ann").body == b"b" and c.ask("GET", "/?user=eve").body == b"a"
    conf.write_text(text.replace("ann", "eve"))
    assert api(c, "reload", "POST").status == 200
    assert c.ask("GET", "/?user=ann").body == b"a" and c.ask("GET", "/?user=eve").body == b"b"
    conf.write_text(text + f"[upstream c]\nurl = {a.url}\n")
    r = api(c, "reload", "POST")
    assert r.status != 200 and "[upstream NAME] sections come, go" in r.text, r
    assert c.ask("GET", "/?user=eve").body == b"b"


def test_mistakes_are_told():
    p = run("--check", "--set", "upstream.a.pool_size=3")
    assert p.returncode == EXIT_USAGE and 'the upstream "a" has no url' in p.stderr
    p = run("--check", "--set", "listen.x.address=127.0.0.1:0", "--set", "listen.x.upstream=nowhere")
    assert p.returncode == EXIT_USAGE and 'no [upstream NAME] with the name "nowhere"' in p.stderr
