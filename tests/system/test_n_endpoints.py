"""n: the admin address, metrics, logs, the access log, limits on clients."""
import json
import os
import re
import resource
import subprocess

import pytest

from helpers import Background, chmux_error, parallel, q
from rig.chmuxd import EXIT_START, binary, run
from rig.http1 import RawClient, request
from rig.wait import wait_until

pytestmark = pytest.mark.san
METRIC_DEF = os.path.join(os.path.dirname(__file__), "../../daemon/base/metric.def")


def test_live_and_ready(chmuxd, fake):
    c = chmuxd(fake().url)
    for path in ("/live", "/ready"):
        r = c.admin(path)
        assert r.status == 200 and r.complete, r
    assert c.admin("/nowhere").status == 404
    assert c.admin("/live", "HEAD").status == 200
    assert c.admin("/live", "DELETE").status in (404, 405)


def test_ready_never_dials_the_upstream(chmuxd, fake):
    up = fake()
    c = chmuxd(up.url)
    for _ in range(10):
        assert c.admin("/ready").status == 200
    assert up.accepted == 0


def test_admin_paths_are_not_served_to_clients(chmuxd, fake):
    """/metrics, /live and /ready on a client listener are ClickHouse's business."""
    up = fake()
    c = chmuxd(up.url)
    for p in ("/metrics", "/live", "/ready"):
        assert c.ask("GET", p).body == b"ok\n"
    assert [h.path for _, h in up.heads] == ["/metrics", "/live", "/ready"]


def test_every_metric_of_the_table_is_shown(chmuxd, fake):
    c = chmuxd(fake().url)
    with open(METRIC_DEF) as f:
        rows = re.findall(r'^(UP_)?(COUNTER|GAUGE|HISTOGRAM)\(\s*\w+,\s*"(\w+)"(?:,\s*"((?:[^"\\]|\\.)*)")?', f.read(), re.M)
    assert len(rows) > 60
    r = c.admin("/metrics")
    assert r.header("Content-Type", "").startswith("text/plain")
    text = r.text
    for of_upstream, kind, name, labels in rows:
        upstream = 'upstream="default"' if of_upstream else ""
        if kind == "HISTOGRAM":
            alone, first = f"{{{upstream}}}" if upstream else "", upstream and upstream + ","
            assert f'{name}_bucket{{{first}le="+Inf"}} ' in text
            assert f"{name}_sum{alone} " in text and f"{name}_count{alone} " in text
            continue
        labels = ",".join(filter(None, (labels.replace('\\"', '"'), upstream)))
        assert re.search(rf"^{re.escape(name + ('{' + labels + '}' if labels else ''))} [\d.e+-]+$", text, re.M), (name, labels)


def test_metrics_are_valid_prometheus_text(chmuxd, fake):
    c = chmuxd(fake().url)
    c.ask("GET", "/ping")
    families, samples = {}, set()
    for line in c.admin("/metrics").text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in families, f"{name} twice"
            families[name] = kind
        elif line.startswith("#") or not line:
            continue
        else:
            m = re.fullmatch(r"([a-zA-Z_:][\w:]*)(\{[^}]*\})? (\S+)", line)
            assert m, line
            float(m.group(3))
            base = re.sub(r"_(bucket|sum|count)$", "", m.group(1))
            assert m.group(1) in families or families.get(base) == "histogram", line
            assert line.rpartition(" ")[0] not in samples, line
            samples.add(line.rpartition(" ")[0])
    assert families and all(n.startswith(("chmux_", "process_")) for n in families)


def test_histograms_count_every_request(chmuxd, fake):
    c = chmuxd(fake().url)
    parallel(4, lambda i: [c.ask("GET", "/ping") for _ in range(25)])
    wait_until(lambda: c.metric("chmux_exchanges") == 0)
    m = c.metrics()
    for h in ("chmux_queue_wait_seconds", "chmux_first_byte_seconds", "chmux_request_seconds"):
        assert m[h + "_count"] == 100, h
        assert m[h + '_bucket{le="+Inf"}'] == 100
        assert m[h + "_sum"] >= 0
    assert m["chmux_requests_total"] == 100
    assert m['chmux_exchanges_finished_total{result="complete"}'] == 100


def test_bytes_are_counted_on_both_sides(chmuxd, fake):
    c = chmuxd(fake().url)
    body = bytes(100000)
    with c.client() as k:
        k.send(request("POST", "/?query=INSERT", (), body))
        k.response("POST")
        received = k.received
    m = c.metrics()
    assert m['chmux_bytes_total{side="client",direction="in"}'] >= 100000
    assert m['chmux_bytes_total{side="upstream",direction="out"}'] >= 100000
    assert m['chmux_bytes_total{side="client",direction="out"}'] == received


def test_client_gauges(chmuxd, fake):
    c = chmuxd(fake().url)
    clients = [RawClient(c.addr) for _ in range(5)]
    for k in clients:
        k.send(request("GET", "/ping"))
        k.response()
    assert c.metric("chmux_clients") == 5
    for k in clients:
        k.close()
    c.wait_metric("chmux_clients", 0)
    assert c.metric("chmux_clients_accepted_total") == 5


def test_no_admin_listener_by_default(chmuxd, fake):
    c = chmuxd(fake().url, admin=None)
    assert c.ask("GET", "/ping").status == 200
    assert not any("admin" in l for l in c.stdout_lines)


def test_version_and_help():
    p = run("--version")
    assert p.returncode == 0 and re.search(r"chmuxd? \d+\.\d+", p.stdout)
    p = run("--help")
    assert p.returncode == 0
    for flag in ("--config", "--listen", "--upstream", "--pool-size", "--admin", "--set", "--check", "--print-config", "--version", "--help"):
        assert flag in p.stdout, flag


# ---- logs
def access_lines(c):
    return [l for l in c.stderr_lines if "status=" in l or '"status"' in l]


def test_quiet_by_default(chmuxd, fake):
    """No line per connection or request."""
    c = chmuxd(fake().url)
    before = len(c.stderr_lines)
    for _ in range(20):
        c.ask("GET", q("SELECT 1"))
    c.signal()
    c.wait_exit()
    assert len(c.stderr_lines) - before < 10, c.stderr


def test_the_access_log_has_one_masked_line_per_request(chmuxd, fake):
    c = chmuxd(fake().url, log__access="yes")
    c.ask("GET", "/?query=SELECT+1&user=alice&password=geheim&query_id=my-id")
    c.ask("POST", "/?token=topsecret&user=bob", [("Authorization", "Bearer hush")], b"x" * 1000)
    wait_until(lambda: len(access_lines(c)) >= 2, what="two access lines")
    a, b = access_lines(c)[:2]
    assert "alice" in a and "my-id" in a and "200" in a
    assert "bob" in b
    text = c.stderr
    for secret in ("geheim", "topsecret", "hush"):
        assert secret not in text
    assert "password=***" in text


def test_json_logs_are_json(chmuxd, fake):
    c = chmuxd(fake().url, log__format="json", log__access="yes", log__level="debug")
    c.ask("GET", "/?query=SELECT+'a\"b\\'")
    c.signal()
    c.wait_exit()
    lines = [l for l in c.stderr_lines if l]
    assert lines
    for l in lines:
        assert isinstance(json.loads(l), dict), l


def test_a_log_reader_that_stops_does_not_stop_chmux(chmuxd, fake):
    """stderr is a pipe nobody reads: lines are dropped and counted, requests go on."""
    r, w = os.pipe()
    up = fake()
    c = chmuxd(up.url, log__access="yes", log__level="debug", log__ring_size="16k", preexec=lambda: os.dup2(w, 2))
    os.close(w)
    try:
        with c.client() as k:
            for _ in range(3000):
                k.send(request("GET", "/?query=SELECT&x=" + "y" * 200))
                assert k.response().status == 200
        assert c.metric("chmux_log_lines_dropped_total") > 0
    finally:
        os.close(r)


# ---- limits on clients
def test_max_clients_is_a_503(chmuxd, fake):
    c = chmuxd(fake().url, chmux__max_clients=4)
    kept = [RawClient(c.addr) for _ in range(4)]
    for k in kept:
        k.send(request("GET", "/ping"))
        assert k.response().status == 200
    with RawClient(c.addr) as k:
        try:
            k.send(request("GET", "/ping"))
        except (BrokenPipeError, ConnectionResetError):
            pass
        r = chmux_error(k.response(), "max_clients", 503)
        assert r.header("Retry-After")
    kept.pop().close()
    c.wait_metric("chmux_clients", 3)
    assert c.ask("GET", "/ping").status == 200
    assert c.metric('chmux_refused_total{reason="max_clients"}') == 1


def test_no_descriptors_left_is_a_503_and_not_a_hang(chmuxd, fake):
    """The limit is lowered under the running daemon: accept(2) fails, the spare descriptor answers."""
    c = chmuxd(fake().url, upstream__pool_size=2)
    assert c.ask("GET", "/ping").status == 200
    resource.prlimit(c.pid, resource.RLIMIT_NOFILE, (c.fds() + 4, resource.prlimit(c.pid, resource.RLIMIT_NOFILE)[1]))
    clients, refused = [], None
    for _ in range(12):
        k = RawClient(c.addr, timeout=10)
        try:
            k.send(request("GET", "/ping"))
        except (BrokenPipeError, ConnectionResetError):
            pass
        r = k.response()
        if r.status == 503:
            refused = r
            k.close()
            break
        assert r.status == 200, r
        clients.append(k)
    assert refused is not None, "all descriptors are gone and nobody was told"
    chmux_error(refused, "max_clients", 503)
    for k in clients:
        k.close()
    wait_until(lambda: c.ask("GET", "/ping").status == 200, what="service after descriptors came back")


def test_descriptor_limits_that_cannot_hold_are_a_clear_error():
    def low():
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    p = subprocess.run([binary(), "--upstream", "http://127.0.0.1:1", "--listen", "127.0.0.1:0"], capture_output=True, text=True, timeout=20,
                       preexec_fn=low)
    assert p.returncode == EXIT_START and re.search("descriptor|RLIMIT_NOFILE|open files|nofile", p.stderr), p.stderr


def test_the_soft_descriptor_limit_is_raised(chmuxd, fake):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard < 1024:
        pytest.skip("the hard limit here is too low")
    c = chmuxd(fake().url, chmux__max_clients=300, preexec=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard)))
    clients = [RawClient(c.addr) for _ in range(200)]
    assert parallel(200, lambda i: (clients[i].send(request("GET", "/ping")), clients[i].response().status)[1]) == [200] * 200
    for k in clients:
        k.close()


def test_no_descriptor_leaks(chmuxd, fake):
    up = fake()
    c = chmuxd(up.url, upstream__pool_size=4)
    parallel(8, lambda i: [c.ask("GET", "/ping") for _ in range(20)])
    wait_until(lambda: c.metric("chmux_clients") == 0)
    before = c.fds()
    for n in range(50):
        k = RawClient(c.addr)
        k.send(request("GET", "/ping") if n % 2 else b"GET / HT")
        k.reset() if n % 3 else k.close()
    parallel(8, lambda i: [c.ask("GET", "/ping") for _ in range(20)])
    wait_until(lambda: c.metric("chmux_clients") == 0)
    assert c.fds() <= before + 4


@pytest.mark.parametrize("part", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nX-A: b\r\n", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf"])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_that_leaves_inside_a_request_is_gone_at_once(chmuxd, fake, part, how):
    """Not only after head_timeout."""
    c = chmuxd(fake().url, chmux__head_timeout="1h")
    k = RawClient(c.addr)
    k.send(part)
    c.wait_metric("chmux_clients", 1)
    k.close() if how == "close" else k.reset()
    c.wait_metric("chmux_clients", 0)


@pytest.mark.parametrize("part", [b"GET / HT", b"GET /ping HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf"])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_300_clients_that_leave_at_once_leave_nothing(chmuxd, fake, part, how):
    """The bytes and the reset may come between two turns of the loop."""
    c = chmuxd(fake().url, chmux__head_timeout="1h", upstream__pool_size=4)
    for _ in range(300):
        k = RawClient(c.addr)
        k.send(part)
        k.close() if how == "close" else k.reset()
    c.wait_metric("chmux_clients_accepted_total", 300)
    c.wait_metric("chmux_clients", 0)
    c.wait_metric("chmux_exchanges", 0)
    c.wait_metric("chmux_queue_waiting", 0)


def test_requests_in_progress_are_shown(chmuxd, fake, gate):
    g = gate()

    def script(conn):
        conn.request()
        conn.stall(g)
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    up = fake(script)
    c = chmuxd(up.url)
    a = Background(lambda: c.ask("GET", "/x"))
    up.wait_heads(1)
    m = c.metrics()
    assert m["chmux_exchanges"] == 1 and m["chmux_clients"] == 1
    g.set()
    assert a.result().status == 200
    c.wait_metric("chmux_exchanges", 0)
