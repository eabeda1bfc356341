"""t3: what logs say of a request: ids of its trace, slow queries without their values, no value of the URL."""
import json
import os

import pytest

from helpers import q
from rig.http1 import ask, request
from rig.wait import wait_until

pytestmark = pytest.mark.san
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
SECRET = "hunter2"


def lines(c, event, n=1):
    """The last n lines of an event, as dicts, once there are so many."""
    def found():
        out = [json.loads(s) for s in list(c.stderr_lines) if s.startswith("{")]
        return [o for o in out if o.get("event") == event]

    wait_until(lambda: len(found()) >= n, 10, f"{n} lines {event} in {c.stderr}")
    return found()


def test_trace_headers_pass_and_are_logged(fake, chmuxd):
    up = fake()
    c = chmuxd(up.url, log__format="json", log__access="yes")
    headers = [("traceparent", PARENT), ("tracestate", "a=1,b=2"), ("X-Request-Id", "r-1")]
    assert c.ask("GET", q("SELECT 1"), headers).status == 200
    assert c.ask("GET", q("SELECT 1"), [("traceparent", "00-junk\x01-01")]).status in (200, 400)
    assert c.ask("GET", q("SELECT 1"), [("traceparent", PARENT.upper())]).status == 200
    assert c.ask("GET", q("SELECT 1")).status == 200
    head = up.heads[0][1]
    assert [(n, v) for n, v in head.headers if n in dict(headers)] == headers
    wait_until(lambda: len(lines(c, "access")) >= 3)
    got = [(o.get("trace_id"), o.get("span_id")) for o in lines(c, "access")]
    assert got[0] == (TRACE, SPAN) and set(got[1:]) == {(None, None)}


@pytest.fixture
def slow(ch26, chmuxd):
    """Every request is a slow one."""
    return chmuxd(ch26.url, log__format="json", log__slow="1us", log__slow_query_bytes=80)


def test_a_slow_query_is_logged_without_its_values(slow):
    c = slow
    sql = f"SELECT a, '{SECRET}' -- {SECRET}\nFROM cmp WHERE a = 4711 AND s != '{SECRET}'"
    masked = "SELECT a, ? FROM cmp WHERE a = ? AND s != ?"
    requests = [
        request("GET", q(sql)),
        request("POST", "/", (), sql.encode()),
        request("POST", "/", (), sql.encode(), chunked=True),
        request("POST", "/?query=" + sql.split()[0] + "%20", (), sql.split(None, 1)[1].encode()),
    ]
    for r in requests:
        with c.client() as client:
            assert client.send(r).response(r.split()[0].decode()).status == 200
    got = lines(c, "slow", len(requests))
    assert [o["query"] for o in got] == [masked] * 3 + ["SELECT"]
    assert got[0]["user"] == "default" and got[0]["status"] == 200 and got[0]["complete"] == 1
    assert got[0]["total_us"] > 0 and len(got[0]["query_id"]) == 36
    assert SECRET not in c.stderr and "4711" not in c.stderr
    assert c.metric("chmux_slow_requests_total") == len(requests)


def test_long_queries_inserts_and_bodies_that_cannot_be_read(slow):
    c = slow
    insert = f"INSERT INTO cmp FORMAT TSV\n1\t{SECRET}\n".encode()
    assert c.ask("POST", "/", (), insert).status == 200
    assert c.ask("GET", q("SELECT " + ", ".join(f"{i} AS col{i}" for i in range(100)))).status == 200
    c.ask("POST", "/", [("Content-Encoding", "gzip")], b"no gzip")
    assert c.ask("GET", "/ping").status == 200
    got = [o["query"] for o in lines(c, "slow", 4)]
    assert got[0] == "INSERT INTO cmp FORMAT TSV..."
    assert len(got[1]) == 80 and got[1].startswith("SELECT ? AS col0, ") and got[1].endswith("...")
    assert got[2:] == ["", ""] and SECRET not in c.stderr


def test_fast_requests_are_not_slow(fake, chmuxd):
    c = chmuxd(fake().url, log__format="json", log__slow="1h")
    assert c.ask("GET", q("SELECT 1")).status == 200
    assert c.metric("chmux_slow_requests_total") == 0 and '"slow"' not in c.stderr


def test_the_access_log_holds_no_query(fake, chmuxd):
    c = chmuxd(fake().url, log__format="json", log__access="yes")
    c.ask("GET", f"/?database=d&query=SELECT+%27{SECRET}%27&param_x={SECRET}&password={SECRET}&a=b")
    (line,) = lines(c, "access")
    assert line["target"].endswith("database=d&query=***&param_x=***&password=***&a=b")
    assert SECRET not in c.stderr


def test_the_access_log_says_who_asked_and_what_chmux_answered(fake, chmuxd, tmp_path):
    up = fake()
    c = chmuxd(up.url, log__format="json", log__access="yes", listen=("127.0.0.1:0", f"unix:{tmp_path}/s"))
    with c.client() as client:
        port = client.sock.getsockname()[1]
        assert client.send(request("GET", q("SELECT 1"))).response("GET").status == 200
        client.send(b"GET / HTTP/1.1\r\nbroken\r\n\r\n")
        assert client.response().status == 400
    ok, bad = lines(c, "access", 2)
    assert ok["peer"] == bad["peer"] == f"127.0.0.1:{port}" and ok["client"] == bad["client"]
    assert (ok["status"], ok["exception"], ok["error"]) == (200, 0, "")
    assert (bad["id"], bad["status"], bad["error"]) == (0, 400, "bad_request") and bad["exception"] > 0 < bad["bytes_out"]
    assert ask(f"{tmp_path}/s", "GET", q("SELECT 1")).status == 200
    assert lines(c, "access", 3)[2]["peer"] == f"unix:uid={os.getuid()}"


def test_the_code_of_an_error_of_chmux_is_logged(chmuxd):
    c = chmuxd("http://127.0.0.1:1", log__format="json", log__access="yes")
    r = c.ask("GET", q("SELECT 1"))
    (line,) = lines(c, "access")
    assert (line["status"], line["error"]) == (503, "upstream_connect")
    assert line["exception"] == int(r.header("X-ClickHouse-Exception-Code"))
