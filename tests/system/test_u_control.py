"""u: the control API."""
import json
import os
import re
import select
import subprocess

import pytest

from helpers import Background, INSERT, OK, chmux_error, chunk, needs_root, parallel, q
from recode import encode, mine
from rig import http1
from rig.http1 import RawClient, ask, request
from rig.wait import wait_until

pytestmark = pytest.mark.san
NOBODY = 65534


def api(c, method, what, *headers, body=None):
    """With the Host that the tool sends."""
    with RawClient(c.admin_addr) as client:
        client.send(request(method, f"/api/v1/{what}", headers, body, host="127.0.0.1"))
        return client.response(method)


def get(c, what):
    r = api(c, "GET", what)
    assert r.status == 200 and r.complete, r
    assert r.header("Content-Type") == "application/json" and r.header("Cache-Control") == "no-store"
    return json.loads(r.body)


def post(c, what, status=200):
    r = api(c, "POST", what)
    assert r.status == status and r.complete, r
    return json.loads(r.body)


# ---- what is shown
def test_status_counts_what_happened(control, fake):
    c = control(fake().url)
    before = get(c, "status")
    assert before["state"] == "serving" and before["pid"] == c.pid and before["uid"] == os.geteuid()
    for _ in range(3):
        assert c.ask("GET", "/?query=SELECT+1").status == 200
    after = get(c, "status")
    assert after["requests"]["started"] == after["requests"]["complete"] == 3
    assert after["latency"]["total"]["count"] == sum(after["latency"]["total"]["buckets"]) == 3
    assert len(after["latency"]["total"]["buckets"]) == len(after["latency"]["bounds_ms"]) + 1
    assert after["uptime_ms"] > before["uptime_ms"]
    assert after["pool"]["peak"] == 1 and after["addresses"] == {"up": 1, "ejected": 0}
    assert 0 < after["memory"]["resident_bytes"] < 1 << 31


def test_exchanges_clients_pool_and_queue_show_one_request(control, held):
    c = control(held.url, upstream__pool_size=1)
    running = Background(lambda: c.ask("GET", q("SELECT 1", user="alice", password="sesame", query_id="q-1")))
    wait_until(lambda: held.heads)
    waiting = Background(lambda: c.ask("GET", q("SELECT 2", user="bob", query_id="q-2")))
    wait_until(lambda: get(c, "queue")["waiting"] == 1)

    e = get(c, "exchanges")
    assert e["running"] == e["shown"] == 2 and not e["truncated"]
    first, second = e["exchanges"]
    assert (first["user"], first["query_id"], first["state"]) == ("alice", "q-1", "receiving")
    assert (second["user"], second["query_id"], second["state"]) == ("bob", "q-2", "queued")
    assert first["path"] == "/" and first["method"] == "GET" and first["address"] == f"127.0.0.1:{held.port}"
    assert first["running_ms"] >= 0 and second["running_ms"] is None and second["conn"] is None

    clients = {x["id"]: x for x in get(c, "clients")["clients"]}
    assert clients[first["client"]]["exchange"] == first["id"] and clients[first["client"]]["state"] == "busy"
    assert clients[first["client"]]["peer"].startswith("127.0.0.1:")
    assert clients[first["client"]]["local"] == f"127.0.0.1:{c.addr[1]}"

    pool = get(c, "pool")
    assert (pool["size"], pool["active"]) == (1, 1)
    assert [(x["id"], x["state"]) for x in pool["connections"]] == [(first["conn"], "active")]
    (waiter,) = get(c, "queue")["waiters"]
    assert (waiter["exchange"], waiter["user"], waiter["waits_for"], waiter["round"]) == (second["id"], "bob", "connection", 1)
    assert get(c, "endpoints")["endpoints"][0]["active"] == 1

    held.gate.set()
    assert running.result().status == waiting.result().status == 200
    wait_until(lambda: get(c, "exchanges")["running"] == 0)


def test_a_unix_client_is_shown_with_uid_and_pid(chmuxd, fake, tmp_path):
    c = chmuxd(fake().url, listen=(f"unix:{tmp_path}/s",), admin=f"unix:{tmp_path}/a")
    with RawClient(c.addr):
        wait_until(lambda: get(c, "clients")["open"] == 1)
        (x,) = get(c, "clients")["clients"]
        assert (x["peer"], x["uid"], x["pid"], x["state"]) == ("unix", os.geteuid(), os.getpid(), "idle")


def test_requests_that_wait_for_their_session_are_in_the_queue(control, held):
    c = control(held.url)
    asks = [Background(lambda i=i: c.ask("GET", q("SELECT 1", session_id="s", query_id=f"s-{i}"))) for i in range(2)]
    wait_until(lambda: get(c, "queue")["waiting_for_session"] == 1)
    (w,) = get(c, "queue")["waiters"]
    assert w["waits_for"] == "session" and w["query_id"] in ("s-0", "s-1")
    assert all(x["in_session"] for x in get(c, "exchanges")["exchanges"])
    held.gate.set()
    assert all(a.result().status == 200 for a in asks)


def test_pipes_are_shown_while_a_body_is_recoded(control, fake, gate):
    g = gate()

    def script(conn):
        while (h := mine(conn)) is not None:
            conn.body(h)
            part = encode("gzip", b"1\n" * 1000)
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(part))
            conn.stall(g)
            conn.send(b"0\r\n\r\n")

    c = control(fake(script).url, upstream__response_compression="gzip")
    with c.client() as client:
        client.send(request("GET", "/?query=SELECT+1&query_id=recode-shown"))
        client.until(b"1\n" * 1000)
        pipe, = get(c, "pipes")["pipes"]
        assert pipe["exchange"] == get(c, "exchanges")["exchanges"][0]["id"]
        assert (pipe["direction"], pipe["decode"], pipe["encode"]) == ("response", "gzip", None), pipe
        assert pipe["state"] == "open" and pipe["out_bytes"] == 2000 and 0 < pipe["in_bytes"] < 2000
        g.set()
        client.until(b"0\r\n\r\n")
    assert not get(c, "pipes")["pipes"]


def test_errors_are_kept_newest_first_and_bounded(control, fake):
    c = control("http://127.0.0.1:1", upstream__queue_timeout="5s")
    for i in range(140):
        assert c.ask("GET", q("SELECT 1", query_id=f"e-{i}", user=f"u{i}")).status == 503
    e = get(c, "errors")
    assert e["shown"] == 128 and e["errors"][0]["query_id"] == "e-139" and e["errors"][0]["user"] == "u139"
    assert e["errors"][0]["reason"] == "upstream_connect" and e["errors"][0]["code"] == 210
    assert "refused" in e["errors"][0]["detail"].lower()
    assert get(c, "errors?limit=2")["shown"] == 2 and get(c, "errors?limit=2")["truncated"]


def test_errors_tell_exceptions_of_clickhouse_and_bad_requests(control, fake):
    def script(conn):
        while conn.request() is not None:
            conn.send(b"HTTP/1.1 500 Oh\r\nX-ClickHouse-Exception-Code: 62\r\nContent-Length: 2\r\n\r\nno")

    c = control(fake(script).url)
    assert c.ask("GET", q("SELEC", query_id="bad-1")).status == 500
    with c.client() as client:
        client.send(b"GET / HTTP/1.1\r\nbroken\r\n\r\n")
        assert client.response().status == 400
    newest, older = get(c, "errors")["errors"]
    assert newest["peer"].startswith("127.0.0.1:") and older["peer"].startswith("127.0.0.1:") and newest["peer"] != older["peer"]
    assert newest["reason"] == "bad_request" and newest["status"] == 400
    assert (older["reason"], older["code"], older["status"], older["query_id"]) == ("clickhouse", 62, 500, "bad-1")


def test_repeated_errors_are_counted_in_one_entry(control, fake):
    c = control(fake().url, chmux__max_clients=1)
    with c.client() as client:
        client.send(request("GET", "/ping"))
        assert client.response().status == 200
        for _ in range(5):
            assert c.ask("GET", "/ping").status == 503
    (e,) = get(c, "errors")["errors"]
    assert e["reason"] == "max_clients" and e["times"] == 5


def test_config_shows_values_sources_and_no_secret(control, fake):
    c = control(fake().url, env={"CHMUX_UPSTREAM_MIN_IDLE": "0"}, upstream__pool_size=7)
    options = {(x["section"], x["key"]): x for x in get(c, "config")["config"]}
    assert options["upstream", "pool_size"]["value"] == "7"
    assert options["upstream", "pool_size"]["source"] == "--set upstream.pool_size"
    assert options["upstream", "min_idle"]["source"] == "environment CHMUX_UPSTREAM_MIN_IDLE"
    assert options["chmux", "buffer_size"]["source"] == "default" and not options["chmux", "buffer_size"]["reloadable"]
    assert options["chmux", "max_clients"]["reloadable"]
    assert options["listen flag1", "address"]["value"] == "127.0.0.1:0"


def everything_shown(c):
    return "".join(json.dumps(get(c, x), ensure_ascii=False) for x in
                   ("status", "clients", "exchanges", "pool", "endpoints", "queue", "pipes", "config", "errors", "memory"))


def test_no_secret_is_ever_shown(control, held):
    c = control(held.url, upstream__pool_size=1, upstream__queue_timeout="200ms")
    secret = "Geheim-4711"
    head = (("X-ClickHouse-Key", secret), ("X-ClickHouse-User", "u"), ("Cookie", secret))
    asks = [Background(lambda: c.ask("POST", f"/?session_id=sid-{secret}&param_x={secret}", head, f"SELECT '{secret}'".encode())),
            Background(lambda: c.ask("GET", f"http://user:{secret}@host/?password={secret}&query=SELECT+'{secret}'")),
            Background(lambda: c.ask("GET", f"/?query=SELECT+1+--{secret}", (("Authorization", f"Bearer {secret}"),)))]
    wait_until(lambda: c.metric("chmux_refused_total{reason=\"queue_timeout\"}") == 2)
    assert secret not in everything_shown(c)
    held.gate.set()
    for a in asks:
        a.result()
    text = everything_shown(c)
    assert secret not in text and "queue_timeout" in text


@pytest.mark.parametrize("target,path", [
    ("http://user:%s@host/?a=1" % ("long" * 50), "***"),
    ("http://user:p?%s@host/" % ("long" * 50), "***"),
    ("http://user:p#word@host/", "***"),
    ("http://host/x?query=SELECT+1", "http://host/x"),
    ("/" + "long" * 50, "/" + ("long" * 50)[:159]),
], ids=["long", "question-mark", "hash", "url", "path"])
def test_a_whole_url_is_shown_only_without_a_password(control, held, target, path):
    c = control(held.url)
    a = Background(lambda: c.ask("GET", target))
    (e,) = wait_until(lambda: get(c, "exchanges")["exchanges"])
    assert e["path"] == path
    held.gate.set()
    a.result()


def test_hostile_names_are_escaped(control, held):
    c = control(held.url)
    a = Background(lambda: c.ask("GET", "/%22?query=SELECT+1&user=%1b[31m%00%ff%22%5c&query_id=%c2%9b%0a"))
    (e,) = wait_until(lambda: get(c, "exchanges")["exchanges"])
    assert e["user"] == "\x1b[31m\0\ufffd\"\\" and e["query_id"] == "\x9b\n"
    raw = api(c, "GET", "exchanges").body
    assert b"exchanges" in raw
    assert all(b >= 0x20 for b in raw.rstrip(b"\n")) and b"\xc2\x9b" not in raw
    held.gate.set()
    a.result()


def test_listing_a_thousand_clients_is_bounded(control, held):
    c = control(held.url, upstream__queue_size=2000, upstream__queue_timeout="60s")
    clients = [c.client() for _ in range(1200)]
    for x in clients:
        x.send(request("GET", q("SELECT 1")))
    wait_until(lambda: get(c, "exchanges?limit=0")["running"] == 1200, 30)
    for what, limit in (("clients", None), ("exchanges", None), ("queue", None), ("clients", 3), ("clients", 0)):
        a = get(c, what + (f"?limit={limit}" if limit is not None else ""))
        key = "waiters" if what == "queue" else what
        assert len(a[key]) == a["shown"] == (1000 if limit is None else limit) and a["truncated"]
    assert get(c, "clients?limit=10000")["shown"] == 1200
    held.gate.set()
    for x in clients:
        assert x.response().status == 200
        x.close()


def test_a_long_answer_gives_its_memory_back(control, fake):
    c = control(fake().url)
    before = get(c, "memory")["used_bytes"]
    clients = [c.client() for _ in range(3000)]
    for k in clients:
        k.send(b"G")
    wait_until(lambda: get(c, "clients?limit=0")["open"] == 3000, 30)
    assert len(api(c, "GET", "clients?limit=10000").body) > 300000
    for k in clients:
        k.close()
    wait_until(lambda: get(c, "clients?limit=0")["open"] == 0, 30)
    used = get(c, "memory")["used_bytes"]
    assert used < before + (128 << 10), (before, used)


def test_the_api_answers_when_memory_is_used_up(control, fake):
    """Unfinished heads hold the whole budget; lists may be shorter, but nothing else changes."""
    c = control(fake().url, chmux__memory_limit="8m", chmux__buffer_size="16k", chmux__head_timeout="10m")
    held = []
    for size in (100000, 10000, 1000):
        batch = [c.client() for _ in range(150)]
        for k in batch:
            try:
                k.send(b"GET / HTTP/1.1\r\nX: " + b"x" * size)
            except (BrokenPipeError, ConnectionResetError):
                pass  # refused already
        held += batch
        assert select.select([k.sock for k in batch], [], [], 20)[0], "never refused"
    m = get(c, "memory")
    assert m["limit_bytes"] - m["used_bytes"] < 64 << 10
    for what in ("status", "exchanges", "pool", "endpoints", "queue", "pipes", "config", "errors", "memory"):
        assert get(c, what)
    a = get(c, "clients")
    assert a["shown"] == len(a["clients"]) > 0 and a["truncated"] == (a["shown"] < a["open"])
    assert post(c, "pause")["ok"] and post(c, "resume")["ok"]
    for k in held:
        k.close()


# ---- commands
def test_pause_holds_requests_and_resume_lets_them_go(control, fake):
    up = fake()
    c = control(up.url)
    assert c.ask("GET", "/ping").status == 200
    assert post(c, "pause")["was_paused"] is False
    assert get(c, "status")["state"] == "paused" and c.metric("chmux_upstream_paused") == 1
    assert c.admin("/ready").status == 200
    asks = [Background(lambda: c.ask("GET", q("SELECT 1"))) for _ in range(20)]
    wait_until(lambda: get(c, "queue")["waiting"] == 20)
    assert len(up.heads) == 1
    assert post(c, "resume") == {"was_paused": True, "waiting": 20, "ok": True, "message": "resumed"}
    assert all(a.result().status == 200 for a in asks)
    assert post(c, "resume")["message"] == "nothing was paused"


def test_the_queue_is_bounded_while_paused(control, fake):
    c = control(fake().url, upstream__pool_size=1, upstream__queue_size=2, upstream__queue_timeout="2s")
    post(c, "pause")
    tokens = sorted(r.header("X-Chmux-Error") for r in parallel(5, lambda i: c.ask("GET", q("SELECT 1"))))
    assert tokens == ["queue_full"] * 2 + ["queue_timeout"] * 3


def test_a_restart_of_the_server_under_pause_costs_no_request(control, fake):
    """What pause is for."""
    up = fake()
    port = up.port
    c = control(up.url)
    assert c.ask("GET", "/ping").status == 200
    post(c, "pause")
    up.stop()
    asks = [Background(lambda: c.ask("POST", INSERT, (), b"1\n")) for _ in range(10)]
    wait_until(lambda: get(c, "queue")["waiting"] == 10)
    again = fake(port=port)
    post(c, "resume")
    assert all(a.result().status == 200 for a in asks)
    assert len([h for _, h in again.heads if h.method == "POST"]) == 10


def test_reconnect_replaces_connections_without_cutting_any(control, held):
    c = control(held.url)
    busy = Background(lambda: c.ask("GET", q("SELECT 1")))
    wait_until(lambda: held.heads)
    assert post(c, "reconnect")["close_when_done"] == 1
    assert get(c, "pool")["connections"][0]["retiring"] is True
    held.gate.set()
    assert busy.result().status == 200
    wait_until(lambda: not get(c, "pool")["connections"])
    assert c.ask("GET", q("SELECT 2")).status == 200
    assert held.accepted == 2
    assert post(c, "reconnect")["closed"] == 1
    assert c.metric('chmux_upstream_closes_total{reason="reconnect"}') == 2
    assert c.ask("GET", q("SELECT 3")).status == 200 and held.accepted == 3


def test_kill_ends_a_running_query_on_the_real_server(control, ch26):
    c = control(ch26.url)
    a = Background(lambda: c.ask("GET", q("SELECT sum(sipHash64(number)) FROM numbers(1000000000000)", query_id="kill-me")))
    (e,) = wait_until(lambda: [x for x in get(c, "exchanges")["exchanges"] if x["state"] == "receiving"])
    wait_until(lambda: ch26.sql("SELECT count() FROM system.processes WHERE query_id = 'kill-me'").strip() == "1")
    assert post(c, f"kill?id={e['id']}")["ok"]
    chmux_error(a.result(), "killed", 500, 394)
    wait_until(lambda: ch26.sql("SELECT count() FROM system.processes WHERE query_id = 'kill-me'").strip() == "0")
    assert c.metric('chmux_refused_total{reason="killed"}') == 1
    assert get(c, "errors")["errors"][0]["reason"] == "killed"
    assert post(c, f"kill?id={e['id']}", 404)["error"] == "not_running"


def test_kill_of_a_waiting_request(control, held):
    c = control(held.url, upstream__pool_size=1)
    running = Background(lambda: c.ask("GET", q("SELECT 1")))
    wait_until(lambda: held.heads)
    waiting = Background(lambda: c.ask("GET", q("SELECT 2")))
    (w,) = wait_until(lambda: get(c, "queue")["waiters"])
    post(c, f"kill?id={w['exchange']}")
    chmux_error(waiting.result(), "killed", 500)
    held.gate.set()
    assert running.result().status == 200 and len(held.heads) == 1


def test_kill_of_an_answer_that_has_begun_is_a_cut(control, fake, gate):
    g = gate()

    def script(conn):
        conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n1\n\r\n")
        g.wait(60)

    c = control(fake(script).url, upstream__on_disconnect="close")
    with c.client() as client:
        client.send(request("GET", q("SELECT 1")))
        client.until(b"2\r\n1\n\r\n")
        (e,) = get(c, "exchanges")["exchanges"]
        assert e["answering"] and e["status"] == 200
        post(c, f"kill?id={e['id']}")
        with pytest.raises(http1.Closed):
            client.fill()
    assert get(c, "exchanges")["running"] == 0


def test_kill_of_an_answer_its_client_does_not_read(control, fake):
    """All that is left waits for the client: it is cut, not waited for."""
    body = b"x" * (8 << 20)

    def script(conn):
        conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        conn.wait_eof()

    c = control(fake(script).url)
    with c.client() as client:
        client.send(request("GET", q("SELECT 1")))
        (e,) = wait_until(lambda: [x for x in get(c, "exchanges")["exchanges"] if x["response_bytes"] > 0])
        post(c, f"kill?id={e['id']}")
        wait_until(lambda: get(c, "exchanges")["running"] == 0)


def test_log_level_changes_at_once(control, fake):
    c = control(fake().url)
    assert c.ask("GET", "/ping").status == 200 and "client_accepted" not in c.stderr
    assert post(c, "log-level?level=debug")["before"] == "info"
    assert c.ask("GET", "/ping").status == 200
    wait_until(lambda: "client_accepted" in c.stderr)
    assert get(c, "status")["log_level"] == "debug"
    assert post(c, "log-level?level=error")["level"] == "error"


def test_drain_waits_without_limit_and_exits_0(control, held):
    c = control(held.url, chmux__drain_timeout="0s")
    a = Background(lambda: c.ask("GET", q("SELECT 1")))
    wait_until(lambda: held.heads)
    post(c, "drain")
    assert get(c, "status")["state"] == "draining" and c.admin("/ready").status == 503
    assert post(c, "pause", 409)["error"] == "draining"
    assert a.running
    held.gate.set()
    assert a.result().status == 200
    assert c.wait_exit() == 0


def test_shutdown_limits_a_drain(control, held):
    c = control(held.url, chmux__drain_timeout="100ms")
    a = Background(lambda: c.ask("GET", q("SELECT 1")))
    wait_until(lambda: held.heads)
    post(c, "drain")
    post(c, "shutdown")
    assert c.wait_exit() == 3
    assert not a.result().complete


def test_sigterm_after_drain_still_drains(control, held):
    """A signal is the second one only after a first."""
    c = control(held.url)
    a = Background(lambda: c.ask("GET", q("SELECT 1")))
    wait_until(lambda: held.heads)
    post(c, "drain")
    c.signal()
    wait_until(lambda: get(c, "status")["state"] == "draining")
    held.gate.set()
    assert a.result().status == 200
    assert c.wait_exit() == 0


def test_shutdown_now_cuts(control, held):
    c = control(held.url)
    a = Background(lambda: c.ask("GET", q("SELECT 1")))
    wait_until(lambda: held.heads)
    assert post(c, "shutdown?now=1")["ok"]
    assert c.wait_exit() == 3
    assert not a.result().complete


def test_a_drain_lifts_a_pause(control, fake):
    c = control(fake().url)
    post(c, "pause")
    a = Background(lambda: c.ask("GET", q("SELECT 1")))
    wait_until(lambda: get(c, "queue")["waiting"] == 1)
    post(c, "shutdown")
    assert a.result().status == 200
    assert c.wait_exit() == 0


# ---- who may
def as_user(uid, *argv):
    return subprocess.run(["setpriv", f"--reuid={uid}", "--regid=65534", "--clear-groups", *argv], capture_output=True, text=True, timeout=30)


def curl(c, *args):
    return ["curl", "-sS", "--unix-socket", c.admin_addr, *args]


@needs_root
def test_another_user_may_read_but_not_control(control, fake):
    c = control(fake().url, admin__mode="0666")
    p = as_user(NOBODY, *curl(c, "http://x/api/v1/status"))
    assert json.loads(p.stdout)["state"] == "serving", p
    for what in ("pause", "drain", "shutdown?now=1", "reconnect", "kill?id=1", "log-level?level=debug", "resume"):
        p = as_user(NOBODY, *curl(c, "-X", "POST", f"http://x/api/v1/{what}"))
        answer = json.loads(p.stdout)
        assert answer["error"] == "permission" and "65534" in answer["message"] and "root" in answer["allowed_by"], p
    assert get(c, "status")["state"] == "serving"
    assert c.metric('chmux_admin_commands_total{result="denied"}') == 7
    wait_until(lambda: "admin_denied" in c.stderr, what="the log line")
    p = as_user(NOBODY, *curl(c, "http://x/api/v1/"))
    allowed = {x["path"]: x["allowed"] for x in json.loads(p.stdout)["commands"]}
    assert allowed["/api/v1/clients"] and not allowed["/api/v1/pause"]


@needs_root
def test_the_socket_mode_keeps_others_out(control, fake):
    c = control(fake().url)
    p = as_user(NOBODY, *curl(c, "http://x/api/v1/status"))
    assert p.returncode != 0 and p.stdout == ""


@needs_root
def test_the_daemons_own_uid_may_control(control, fake):
    def become():
        os.setgid(NOBODY)
        os.setuid(4321)

    c = control(fake().url, preexec=become, admin__mode="0666")
    assert json.loads(as_user(4321, *curl(c, "-X", "POST", "http://x/api/v1/pause")).stdout)["ok"]
    assert json.loads(as_user(4322, *curl(c, "-X", "POST", "http://x/api/v1/pause")).stdout)["error"] == "permission"
    assert post(c, "resume")["ok"]  # root


def test_tcp_serves_health_only_unless_told(chmuxd, fake):
    c = chmuxd(fake().url)
    for path in ("/live", "/ready", "/metrics"):
        assert c.admin(path).status == 200
    for method, path in (("GET", "status"), ("GET", "config"), ("POST", "pause"), ("POST", "shutdown?now=1")):
        r = api(c, method, path, ("X-Chmux-Control", "1"))
        assert r.status == 403 and json.loads(r.body)["error"] == "permission"
        assert "tcp_access" in json.loads(r.body)["allowed_by"]


def test_tcp_read_and_control(chmuxd, fake):
    c = chmuxd(fake().url, admin__tcp_access="read")
    assert get(c, "status")["state"] == "serving"
    assert api(c, "POST", "pause", ("X-Chmux-Control", "1")).status == 403
    c = chmuxd(fake().url, admin__tcp_access="control")
    r = api(c, "POST", "pause")
    assert r.status == 403 and json.loads(r.body)["error"] == "control_field"
    assert api(c, "POST", "pause", ("X-Chmux-Control", "1")).status == 200
    assert get(c, "status")["state"] == "paused"


def test_a_web_page_cannot_reach_a_tcp_admin_address(chmuxd, fake):
    c = chmuxd(fake().url, admin__tcp_access="control")
    for fields, error in ((b"Host: evil.example:1\r\n", "host"), (b"", "host"),
                          (b"Host: 127.0.0.1\r\nOrigin: http://evil.example\r\n", "origin"),
                          (b"Host: 127.0.0.1\r\nOrigin: null\r\n", "origin")):
        with RawClient(c.admin_addr) as client:
            client.send(b"GET /api/v1/config HTTP/1.1\r\n" + fields + b"X-Chmux-Control: 1\r\n\r\n")
            r = client.response()
        assert r.status == 403 and json.loads(r.body)["error"] == error, r
    r = api(c, "OPTIONS", "pause", ("Access-Control-Request-Headers", "x-chmux-control"))
    assert r.status == 405 and not [n for n, _ in r.headers if n.lower().startswith("access-control")]
    assert r.header("Allow") == "POST"
    assert get(c, "status")["state"] == "serving"


# ---- bad input
def test_bad_paths_methods_and_arguments_are_named(control, fake):
    c = control(fake().url)
    for method, path, status, words in (
            ("GET", "/api/v1/stats", 404, "/api/v1/stats"), ("GET", "/api", 404, "/api"), ("GET", "/api/v1/pause", 405, "POST"),
            ("POST", "/api/v1/status", 405, "GET"), ("GET", "/api/v1/clients?lim=1", 400, "lim"),
            ("GET", "/api/v1/clients?limit=x", 400, "limit=x"), ("POST", "/api/v1/kill", 400, "id"),
            ("POST", "/api/v1/kill?id=-1", 400, "id=-1"), ("POST", "/api/v1/log-level?level=loud", 400, "loud"),
            ("BREW", "/api/v1/pause", 405, "POST")):
        r = ask(c.admin_addr, method, path, host="127.0.0.1")
        assert r.status == status and words in r.text and r.complete, r
    r = api(c, "POST", "pause", body=b"now")
    assert r.status == 400 and json.loads(r.body)["error"] == "body"
    assert get(c, "status")["state"] == "serving"


def test_hostile_bytes_do_no_harm(control, fake):
    c = control(fake().url)
    for data in (b"\0" * 100, b"GET /api/v1/status HTTP/1.1\r\n" + b"a: b\r\n" * 3000, b"GET /" + b"x" * 20000,
                 b"\x16\x03\x01\x02\x00", b"POST /api/v1/kill?id=1 HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
                 b"GET /api/v1/clients?limit=%00 HTTP/1.1\r\n\r\n", b"GET /api/v1/clients?" + b"limit&" * 2000 + b" HTTP/1.1\r\n\r\n"):
        with RawClient(c.admin_addr) as client:
            client.send(data)
            client.half_close()
            try:
                while True:
                    client.fill()
            except http1.Closed:
                pass
    assert get(c, "status")["state"] == "serving"
    silent = [http1.connect(c.admin_addr) for _ in range(64)]
    assert ask(c.admin_addr, "GET", "/live").status == 503  # all places taken
    for s in silent:
        s.close()
    wait_until(lambda: ask(c.admin_addr, "GET", "/live").status == 200)


def test_several_admin_addresses(chmuxd, fake, tmp_path):
    c = chmuxd(fake().url, admin=f"unix:{tmp_path}/a,127.0.0.1:0")
    wait_until(lambda: sum("admin on" in x for x in list(c.stdout_lines)) == 2)
    lines = [re.match(r"chmuxd: admin on (\S+)", x).group(1) for x in c.stdout_lines if "admin on" in x]
    assert lines[0] == f"unix:{tmp_path}/a"
    assert ask((lines[1].split(":")[0], int(lines[1].split(":")[1])), "GET", "/live").status == 200
    assert get(c, "status")["pid"] == c.pid
