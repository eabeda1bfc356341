"""y: another configuration without a restart: whole or not at all, and nobody notices."""
import json
import os
import re
import shutil
import signal
import threading

import pytest

from helpers import Background, OK, chmux_error, parallel, q
from rig import http1
from rig.fake import Silent, free_port
from rig.systemd import Manager
from rig.wait import wait_until

pytestmark = pytest.mark.san
GZIPPED = 'chmux_codec_bytes_total{codec="gzip",op="encode",side="out"}'
OK_TOTAL = 'chmux_reloads_total{result="ok"}'
FAILED_TOTAL = 'chmux_reloads_total{result="failed"}'


class File:
    """A configuration file that tests change: file["upstream", "pool_size"] = 3."""

    def __init__(self, path, **options):
        self.path, self.options = path, {}
        self["admin", "address"] = f"unix:{path.parent}/admin.sock"
        for k, v in options.items():
            self.options[tuple(k.split("__", 1))] = v
        self.write()

    def __setitem__(self, at, value):
        self.options[at] = value
        self.write()

    def __delitem__(self, at):
        del self.options[at]
        self.write()

    def write(self):
        lines = []
        for section in dict.fromkeys(s for s, _ in self.options):
            lines.append(f"[{section}]")
            lines += [f"{k} = {v}" for (s, k), v in self.options.items() if s == section]
        fresh = self.path.with_suffix(".new")
        fresh.write_text("\n".join(lines) + "\n")
        os.rename(fresh, self.path)  # as editors and configuration management do


@pytest.fixture
def reloading(tmp_path, chmuxd):
    """reloading(url, **options): a chmuxd that reads its options from a file, and the file."""

    def make(url, listen=("127.0.0.1:0",), count=1, **options):
        file = File(tmp_path / "chmux.conf", upstream__url=url, **options)
        c = chmuxd(listen=listen, admin=None, config=file.path, wait=False)
        c.wants_admin, c.listen_count = True, count
        c.wait_started()
        return c, file

    return make


def reload(c, status=200):
    r = http1.ask(c.admin_addr, "POST", "/api/v1/reload", host="127.0.0.1")
    assert r.status == status and r.complete, r
    return json.loads(r.body)


def show(c, what):
    r = http1.ask(c.admin_addr, "GET", f"/api/v1/{what}", host="127.0.0.1")
    assert r.status == 200 and r.complete, r
    return json.loads(r.body)


def again(client, target):
    """One more request on this connection."""
    client.send(http1.request("GET", target))
    return client.response()


def option(c, section, key):
    return next(o["value"] for o in show(c, "config")["config"] if (o["section"], o["key"]) == (section, key))


def change(before, after, section, key):
    return {"section": section, "key": key, "before": before, "after": after}


def test_a_reload_says_what_changed(reloading, fake):
    c, file = reloading(fake().url)
    assert reload(c) == {"changed": [], "restart_needed": [], "warnings": [], "ok": True, "message": "reloaded: 0 options changed"}
    file["upstream", "pool_size"] = 3
    file["chmux", "workers"] = 2
    told = reload(c)
    assert told["changed"] == [change("16", "3", "upstream", "pool_size")]
    assert told["restart_needed"] == [change("auto", "2", "chmux", "workers")]
    assert told["message"] == "reloaded: 1 option changed; some changes need a restart"
    # What only a restart changes is shown as it is, and told again as long as it waits.
    assert option(c, "chmux", "workers") == "auto" and option(c, "upstream", "pool_size") == "3"
    assert reload(c)["restart_needed"] == told["restart_needed"]
    status = show(c, "status")["reload"]
    assert (status["succeeded"], status["failed"], status["restart_needed"]) == (3, 0, 1) and status["last"]["ok"]
    assert c.metric(OK_TOTAL) == 3 and c.metric("chmux_reload_last_success") == 1
    wait_until(lambda: re.search("option_changed section=upstream key=pool_size before=16 after=3", c.stderr), 5, c.stderr)


def test_a_signal_reloads(reloading, fake):
    c, file = reloading(fake().url)
    file["upstream", "queue_size"] = 7
    c.signal(signal.SIGHUP)
    c.wait_metric(OK_TOTAL, 1)
    assert option(c, "upstream", "queue_size") == "7"


@pytest.mark.parametrize("spoil,why", [
    (lambda f: f.__setitem__(("upstream", "pool_size"), 0), "too small"),
    (lambda f: f.__setitem__(("upstream", "poolsize"), 1), "did you mean pool_size"),
    (lambda f: f.__setitem__(("upstream", "url"), "https://localhost:1\ntls_ca_file = /nowhere.pem"), "/nowhere.pem: No such file"),
    (lambda f: f.__setitem__(("upstream", "url"), f"https://localhost:1\ntls_ca_file = {f.path}"), "not PEM"),
    (lambda f: f.path.unlink(), "No such file"),
], ids=["value", "key", "no-ca", "bad-ca", "no-file"])
def test_a_bad_reload_changes_nothing(reloading, fake, spoil, why):
    c, file = reloading(fake().url)
    before = show(c, "config")
    file["upstream", "queue_size"] = 7
    spoil(file)
    told = reload(c, 422)
    assert told["error"] == "reload" and any(why in line for line in told["errors"]), told
    assert show(c, "config") == before
    status = show(c, "status")["reload"]
    assert (status["succeeded"], status["failed"]) == (0, 1) and not status["last"]["ok"]
    assert c.metric(FAILED_TOTAL) == 1 and c.metric("chmux_reload_last_success") == 0
    assert c.ask("GET", q("SELECT 1")).status == 200
    wait_until(lambda: "reload_failed" in c.stderr, 5, "the log line")


# ---- each option that can be reloaded takes effect
def test_pool_and_queue_sizes(reloading, held):
    c, file = reloading(held.url, upstream__pool_size=4, upstream__queue_size=0)
    running = [Background(lambda: c.ask("GET", q("SELECT 1"))) for _ in range(4)]
    c.wait_metric('chmux_upstream_connections{state="active"}', 4)
    file["upstream", "pool_size"] = 2
    reload(c)
    assert c.metric("chmux_upstream_pool_size") == 2
    chmux_error(c.ask("GET", q("SELECT 2")), "queue_full", 503)  # what runs over the cap is no room
    file["upstream", "queue_size"] = 5
    reload(c)
    late = Background(lambda: c.ask("GET", q("SELECT 3")))
    c.wait_metric("chmux_queue_waiting", 1)
    held.gate.set()
    assert [b.result().status for b in [*running, late]] == [200] * 5
    wait_until(lambda: sum(c.metric(f'chmux_upstream_connections{{state="{s}"}}') for s in ("active", "idle", "connecting", "closing")) <= 2, 10, "the cap")
    held.gate.clear()
    file["upstream", "pool_size"] = 6
    reload(c)
    running = [Background(lambda: c.ask("GET", q("SELECT 1"))) for _ in range(6)]
    c.wait_metric('chmux_upstream_connections{state="active"}', 6)
    held.gate.set()
    assert [b.result().status for b in running] == [200] * 6


def test_another_server_and_nothing_is_cut(reloading, held, fake):
    c, file = reloading(held.url)
    running = Background(lambda: c.ask("GET", q("SELECT 1")))
    held.wait_heads(1)
    other = fake()
    with c.client() as kept:
        assert [e["host"] for e in show(c, "endpoints")["endpoints"]] == ["127.0.0.1"]
        file["upstream", "url"] = other.url
        assert reload(c)["changed"] == [change(held.url, other.url, "upstream", "url")]
        assert [e["port"] for e in show(c, "endpoints")["endpoints"]] == [other.addr[1]]
        for _ in range(3):
            assert again(kept, q("SELECT 2")).status == 200
    assert len(other.heads) == 3 and len(held.heads) == 1
    held.gate.set()
    assert running.result().status == 200
    c.wait_metric('chmux_upstream_connections{state="active"}', 0)
    wait_until(lambda: {x["address"] for x in show(c, "pool")["connections"]} == {"%s:%d" % tuple(other.addr)})  # closed, too
    # Back again, with both: what was idle there stays.
    file["upstream", "url"] = f"{other.url}, {held.url}"
    reload(c)
    assert len(show(c, "endpoints")["endpoints"]) == 2
    assert c.metric("chmux_requests_total") == 4  # counters survive


def test_a_server_that_is_added_gets_its_share_of_a_full_pool(reloading, held, fake):
    c, file = reloading(held.url, upstream__pool_size=2)
    running = [Background(lambda: c.ask("GET", q("SELECT 1"))) for _ in range(2)]
    held.wait_heads(2)
    held.gate.set()
    assert [b.result().status for b in running] == [200] * 2
    other = fake()
    file["upstream", "url"] = f"{held.url}, {other.url}"
    reload(c)
    wait_until(lambda: c.ask("GET", q("SELECT 1")).status == 200 and len(other.heads) > 0, what="traffic to the new server")
    assert c.metric('chmux_upstream_closes_total{reason="rebalance"}') == 1
    assert c.metric("chmux_upstream_connections_peak") <= 2


def test_who_waits_for_a_server_that_goes_waits_for_the_next(reloading, fake):
    dead = fake()
    dead.stop()
    c, file = reloading(dead.url, upstream__queue_timeout="60s")
    assert http1.ask(c.admin_addr, "POST", "/api/v1/pause", host="127.0.0.1").status == 200
    waiting = [Background(lambda: c.ask("GET", q("SELECT 1"))) for _ in range(3)]
    c.wait_metric("chmux_queue_waiting", 3)
    file["upstream", "url"] = fake().url.replace("127.0.0.1", "localhost")
    reload(c)
    assert http1.ask(c.admin_addr, "POST", "/api/v1/resume", host="127.0.0.1").status == 200
    assert [b.result().status for b in waiting] == [200] * 3


def test_limits_and_times(reloading, held):
    c, file = reloading(held.url)
    with c.client() as kept:
        file["chmux", "max_clients"] = 1
        file["chmux", "memory_limit"] = "300m"
        file["chmux", "idle_timeout"] = "77s"
        file["upstream", "queue_timeout"] = "50ms"
        file["upstream", "pool_size"] = 1
        file["upstream", "on_disconnect"] = "close"
        assert len(reload(c)["changed"]) == 6
        held.gate.set()
        assert again(kept, q("SELECT 1")).header("Keep-Alive") == "timeout=77"
        chmux_error(c.ask("GET", q("SELECT 1")), "max_clients", 503)
        assert c.metric("chmux_memory_limit_bytes") == 300 << 20
        file["chmux", "max_clients"] = 10
        reload(c)
        held.gate.clear()
        running = Background(lambda: again(kept, q("SELECT 1")))
        c.wait_metric('chmux_upstream_connections{state="active"}', 1)
        chmux_error(c.ask("GET", q("SELECT 1")), "queue_timeout", 503)
        held.gate.set()
        assert running.result().status == 200


def test_idle_connections_obey_the_new_limits_at_once(reloading, fake):
    c, file = reloading(fake().url)
    assert c.ask("GET", q("SELECT 1")).status == 200
    file["upstream", "idle_timeout"] = "100ms"
    reload(c)
    c.wait_metric('chmux_upstream_closes_total{reason="idle_timeout"}', 1)
    file["upstream", "idle_timeout"] = "60s"
    file["upstream", "max_age"] = "1s"
    reload(c)
    assert c.ask("GET", q("SELECT 1")).status == 200
    c.wait_metric('chmux_upstream_closes_total{reason="max_age"}', 1)
    file["upstream", "min_idle"] = 2
    reload(c)
    c.wait_metric('chmux_upstream_connections{state="idle"}', 2)


def test_log_options(reloading, fake):
    c, file = reloading(fake().url)
    file["log", "access"] = "yes"
    file["log", "format"] = "json"
    reload(c)
    assert c.ask("GET", q("SELECT 1")).status == 200
    wait_until(lambda: any('"event":"access"' in line for line in c.stderr_lines), 5, c.stderr)
    file["log", "level"] = "debug"
    reload(c)
    assert show(c, "status")["log_level"] == "debug"
    assert http1.ask(c.admin_addr, "POST", "/api/v1/reconnect", host="127.0.0.1").status == 200
    wait_until(lambda: any('"level":"debug"' in line for line in c.stderr_lines), 5, c.stderr)


def test_compression_options(reloading, fake):
    c, file = reloading(fake().url)
    assert c.ask("POST", q("INSERT INTO t FORMAT TSV"), body=b"1\n" * 2000).status == 200
    file["upstream", "request_compression"] = "gzip"
    reload(c)
    assert c.ask("POST", q("INSERT INTO t FORMAT TSV"), body=b"1\n" * 2000).status == 200
    assert c.metric('chmux_recoded_total{direction="request"}') == 1
    file["upstream", "compression_min_size"] = "1m"
    reload(c)
    assert c.ask("POST", q("INSERT INTO t FORMAT TSV"), body=b"1\n" * 2000).status == 200
    assert c.metric('chmux_recoded_total{direction="request"}') == 1


def test_compression_level(reloading, fake):
    c, file = reloading(fake().url, upstream__request_compression="gzip")
    rows = b"".join(b"row %d of the table, seen %d times\n" % (i * 7919 % 20011, i * i % 1013) for i in range(20000))

    def coded():
        """Bytes that one insert became."""
        before = c.metric(GZIPPED)
        assert c.ask("POST", q("INSERT INTO t FORMAT TSV"), body=rows).status == 200
        return c.metric(GZIPPED) - before

    quick = coded()  # within a little: an insert that comes in more pieces is flushed more often
    assert 0.95 < coded() / quick < 1.05
    file["upstream", "compression_level"] = 9
    reload(c)
    assert coded() / quick < 0.9


def test_how_results_come(reloading, ch26):
    c, file = reloading(ch26.url)

    def result(*headers, **params):
        r = c.ask("GET", q("SELECT number FROM numbers(100000) FORMAT TSV", **params), headers)
        assert r.status == 200 and r.complete
        return r, c.metric('chmux_recoded_total{direction="response"}')

    gzip = ("Accept-Encoding", "gzip")
    assert result()[1] == 0
    file["upstream", "response_compression"] = "zstd"
    reload(c)
    r, recoded = result(gzip, enable_http_compression=1)
    assert recoded == 1 and r.header("Content-Encoding") is None
    file["upstream", "local_encoding"] = "client"
    reload(c)
    r, recoded = result(gzip, enable_http_compression=1)
    assert recoded == 2 and r.header("Content-Encoding") == "gzip"
    method = 16  # behind the checksum of a ClickHouse block
    assert result(compress=1)[0].body[method] == 0x82
    file["upstream", "local_blocks"] = "none"
    reload(c)
    assert result(compress=1)[0].body[method] == 0x02


def test_access_over_tcp(reloading, fake):
    c, file = reloading(fake().url, admin__address="127.0.0.1:0")
    assert c.admin("/api/v1/status").status == 403
    file["admin", "tcp_access"] = "read"
    c.signal(signal.SIGHUP)
    c.wait_metric(OK_TOTAL, 1)
    assert show(c, "status")["state"] == "serving"


def test_times_of_a_request(reloading, held):
    c, file = reloading(held.url)
    file["chmux", "head_timeout"] = "100ms"
    file["chmux", "stall_timeout"] = "1s"
    file["upstream", "response_timeout"] = "100ms"
    reload(c)
    chmux_error(c.ask("GET", q("SELECT 1")), "upstream_timeout", 504)
    with c.client() as slow, c.client() as stalled:
        slow.send(b"GET / HT")
        stalled.send(b"POST /?query=INSERT+INTO+t+FORMAT+TSV HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1")
        chmux_error(slow.response(), "bad_request", 408)
        chmux_error(stalled.response(), "bad_request", 408)


def test_how_it_connects(reloading, cleanup, fake):
    full = cleanup.add(Silent(full=True))
    c, file = reloading(full.url, upstream__connect_concurrency=1, upstream__connect_timeout="10m")
    waiting = [Background(lambda: c.ask("GET", q("SELECT 1"))) for _ in range(3)]
    c.wait_metric("chmux_queue_waiting", 3)
    c.wait_metric('chmux_upstream_connections{state="connecting"}', 1)
    file["upstream", "connect_concurrency"] = 2
    reload(c)
    c.wait_metric('chmux_upstream_connections{state="connecting"}', 2)
    file["upstream", "connect_timeout"] = "100ms"
    file["upstream", "eject_min"] = "1h"
    file["upstream", "eject_max"] = "1h"
    file["upstream", "connect_concurrency"] = 3
    reload(c)  # the third attempt is a new one, and has the new time
    assert [b.result().status for b in waiting] == [503] * 3
    (e,) = show(c, "endpoints")["endpoints"]
    assert e["state"] == "ejected" and e["probe_in_ms"] > 60000
    file["upstream", "url"] = fake().url.replace("127.0.0.1", "localhost")
    file["upstream", "resolve_interval"] = "1s"
    reload(c)
    c.wait_metric('chmux_resolves_total{result="ok"}', lambda n: n >= 2)


def test_what_a_server_gets(reloading, fake):
    def once_each(conn):  # a reused connection dies under its second request
        if conn.request() is not None:
            conn.send(OK)
            conn.request()
            conn.close()

    up = fake(once_each)
    c, file = reloading(up.url)
    assert c.ask("POST", "/", body=b"SELECT 1").status == 200
    assert c.ask("POST", "/", body=b"SELECT 1").status == 200  # sent again
    assert {h.header("Host") for _, h in up.heads} == {"127.0.0.1"}
    file["upstream", "replay_buffer"] = 0
    file["upstream", "host_header"] = "upstream"
    file["upstream", "max_sessions"] = 1
    reload(c)
    chmux_error(c.ask("POST", "/", body=b"SELECT 1"), "upstream_closed", 502)
    assert up.heads[-1][1].header("Host") == "127.0.0.1:%d" % up.addr[1]
    for i in range(3):
        assert c.ask("GET", q("SELECT 1", session_id=i)).status in (200, 502)
    c.wait_metric("chmux_sessions", 1)


@pytest.mark.parametrize("limits,code", [({"drain_timeout": "100ms"}, 3), ({"drain_min": "1h"}, 0)], ids=["timeout", "min"])
def test_how_it_drains(reloading, held, limits, code):
    c, file = reloading(held.url)
    for key, value in limits.items():
        file["chmux", key] = value
    reload(c)
    running = Background(lambda: c.ask("GET", q("SELECT 1")))
    c.wait_metric('chmux_upstream_connections{state="active"}', 1)
    c.signal(signal.SIGTERM)
    c.wait_metric("chmux_draining", 1) if code == 0 else None
    if code == 0:
        held.gate.set()
        assert running.result().status == 200 and c.ask("GET", q("SELECT 1")).status == 200
        c.signal(signal.SIGTERM)
    assert c.wait_exit() == code


@pytest.mark.parametrize("before,after", [("0s", "1h"), ("1h", "0s")])
def test_how_long_idle_clients_stay_in_a_drain(reloading, fake, before, after):
    c, file = reloading(fake().url, chmux__drain_idle=before)
    with c.client() as kept:
        assert again(kept, q("SELECT 1")).status == 200
        file["chmux", "drain_idle"] = after
        reload(c)
        c.signal(signal.SIGTERM)
        if after == "1h":
            c.wait_metric("chmux_draining", 1)
            assert again(kept, q("SELECT 2")).status == 200  # its last answer
        assert kept.sock.recv(1) == b""
    assert c.wait_exit() == 0


# ---- listeners
def answers(addr):
    try:
        return http1.ask(addr, "GET", q("SELECT 1")).status == 200
    except (ConnectionRefusedError, FileNotFoundError):
        return False


def test_listeners_come_go_and_move(reloading, fake, tmp_path):
    c, file = reloading(fake().url)
    one, two, path = ("127.0.0.1", free_port()), ("127.0.0.1", free_port()), str(tmp_path / "web.sock")
    file["listen web", "address"] = "%s:%d" % one
    assert change(None, "%s:%d" % one, "listen web", "address") in reload(c)["changed"]
    assert answers(one) and answers(c.addr)
    with http1.RawClient(one) as kept:
        assert again(kept, q("SELECT 1")).status == 200
        file["listen web", "address"] = "%s:%d" % two
        file["listen path", "address"] = f"unix:{path}"
        reload(c)
        assert answers(two) and answers(path) and not answers(one)
        assert again(kept, q("SELECT 1")).status == 200  # who is connected stays
        inode = os.stat(path).st_ino
        # Another name for the same place is no other listener; mode and backlog change on it.
        del file["listen path", "address"]
        file["listen socket", "address"] = f"unix:{path}"
        reload(c)
        file["listen socket", "mode"] = "0600"
        file["listen socket", "backlog"] = "7"
        reload(c)
        assert os.stat(path).st_ino == inode and os.stat(path).st_mode & 0o777 == 0o600 and answers(path)
        del file["listen web", "address"]
        for key in ("address", "mode", "backlog"):
            del file["listen socket", key]
        assert any(x["before"] == "%s:%d" % two and x["after"] is None for x in reload(c)["changed"])
        assert not answers(two) and not answers(path) and not os.path.exists(path) and answers(c.addr)
        assert again(kept, q("SELECT 1")).status == 200


def test_a_listener_that_cannot_be_changes_nothing(reloading, fake, tmp_path):
    other, busy = fake(), fake()
    path = tmp_path / "s"
    c, file = reloading(fake().url, **{"listen s__address": f"unix:{path}"}, listen=("127.0.0.1:0",), count=2)
    file["listen a", "address"] = "127.0.0.1:%d" % (port := free_port())
    file["listen b", "address"] = "127.0.0.1:%d" % busy.addr[1]
    file["upstream", "url"] = other.url
    assert "in use" in reload(c, 422)["message"]
    assert not answers(("127.0.0.1", port)) and c.ask("GET", q("SELECT 1")).status == 200 and not other.heads
    file["listen b", "address"] = "0.0.0.0:0"
    assert "not a loopback address" in reload(c, 422)["message"]
    del file["listen b", "address"]
    file["listen s", "mode"] = "0600"
    file["listen s", "group"] = "nogroupofthisname"
    assert "no such group" in reload(c, 422)["message"]
    assert os.stat(path).st_mode & 0o777 == 0o660
    del file["listen s", "group"]
    reload(c)
    assert os.stat(path).st_mode & 0o777 == 0o600 and answers(("127.0.0.1", port))


# ---- TLS
def test_certificates_are_read_again(reloading, ch26, pki, terminator, tmp_path):
    ca = tmp_path / "ca.pem"
    shutil.copy(pki.ca, ca)
    t = terminator(pki.good, ch26.addr)
    c, file = reloading(t.url, upstream__tls_ca_file=ca)
    assert c.sql("SELECT 1") == "1\n"
    assert reload(c)["message"] == "reloaded: 0 options changed"
    assert c.sql("SELECT 1") == "1\n"
    assert c.metric('chmux_upstream_closes_total{reason="reload"}') == 0  # nothing is new
    shutil.copy(pki.other_ca, ca)
    message = reload(c)["message"]  # or their watch was the first to read them
    assert message == "reloaded: 0 options changed, certificates read anew" or c.metric(FILES_OK) == 1
    assert c.metric('chmux_upstream_closes_total{reason="reload"}') == 1
    chmux_error(c.ask("GET", q("SELECT 1")), "upstream_connect", 503)
    ca.write_text("no certificate")
    assert "not PEM" in reload(c, 422)["message"]
    shutil.copy(pki.ca, ca)
    reload(c)
    assert c.sql("SELECT 1") == "1\n"


def test_tls_options(reloading, ch26, pki, terminator):
    t = terminator(pki.wrong_host, ch26.addr, options="ssl-max-ver TLSv1.2")
    c, file = reloading(t.url, upstream__tls_ca_file=pki.ca)
    chmux_error(c.ask("GET", q("SELECT 1")), "upstream_connect", 503)
    file["upstream", "tls_server_name"] = "elsewhere.test"
    reload(c)
    assert c.sql("SELECT 1") == "1\n"
    del file["upstream", "tls_server_name"]
    reload(c)  # the connection under that name is not used any more
    chmux_error(c.ask("GET", q("SELECT 1")), "upstream_connect", 503)
    file["upstream", "tls_verify"] = "no"
    assert "anyone on the way" in reload(c)["warnings"][0]
    assert c.sql("SELECT 1") == "1\n"
    file["upstream", "tls_min_version"] = "1.3"
    reload(c)
    chmux_error(c.ask("GET", q("SELECT 1")), "upstream_connect", 503)


def test_from_plain_to_tls_and_back(reloading, ch26, pki, terminator):
    t = terminator(pki.good, ch26.addr)
    c, file = reloading(ch26.url, upstream__tls_ca_file=pki.ca)
    for url in (t.url, ch26.url, t.url):
        file["upstream", "url"] = url
        assert reload(c)["changed"]
        assert c.sql("SELECT 1") == "1\n"


class Mounted:
    """A folder as Kubernetes mounts a secret: names that lead through ..data into a folder that is replaced."""

    def __init__(self, folder, **files):
        self.folder, self.count = folder, 0
        folder.mkdir()
        self.put(**files)
        for name in files:
            (folder / f"{name}.pem").symlink_to(f"..data/{name}.pem")

    def put(self, **files):
        self.count += 1
        fresh, old = self.folder / f"..{self.count}", self.folder / f"..{self.count - 1}"
        fresh.mkdir()
        for name, source in files.items():
            shutil.copy(source, fresh / f"{name}.pem")
        (self.folder / "..data_tmp").symlink_to(fresh.name)
        os.rename(self.folder / "..data_tmp", self.folder / "..data")
        if old.exists():
            shutil.rmtree(old)


FILES_OK, FILES_FAILED = (f'chmux_file_reloads_total{{result="{r}"}}' for r in ("ok", "failed"))


def test_a_mounted_secret_that_changes_is_taken_without_a_signal(reloading, ch26, pki, terminator, tmp_path):
    t = terminator(pki.good, ch26.addr, client_ca=pki.ca)
    secret = Mounted(tmp_path / "tls", ca=pki.ca, cert=pki.cert(pki.client_other), key=pki.key(pki.client_other))
    d = tmp_path / "tls"
    c, file = reloading(t.url, upstream__tls_ca_file=d / "ca.pem", upstream__tls_cert_file=d / "cert.pem", upstream__tls_key_file=d / "key.pem")
    assert c.ask("GET", q("SELECT 1")).status in (502, 503)  # with TLS 1.3 a server may say so late
    secret.put(ca=pki.ca, cert=pki.cert(pki.client), key=pki.key(pki.client))
    c.wait_metric(FILES_OK, 1)
    assert c.sql("SELECT 1") == "1\n"
    # A key that does not fit: what is in force stays, and says so until it is mended.
    secret.put(ca=pki.ca, cert=pki.cert(pki.client), key=pki.key(pki.client_other))
    c.wait_metric("chmux_files_last_success", 0)
    assert c.metric(FILES_FAILED) >= 1 and not show(c, "status")["reload"]["files"]["ok"]
    wait_until(lambda: "the key does not belong to the certificate" in c.stderr, 5, c.stderr)
    assert c.sql("SELECT 1") == "1\n"
    secret.put(ca=pki.ca, cert=pki.cert(pki.client), key=pki.key(pki.client))
    c.wait_metric("chmux_files_last_success", 1)
    assert c.metric(FILES_OK) == 1  # the same as is in force
    assert c.metric(OK_TOTAL) == 0 and c.sql("SELECT 1") == "1\n"


def test_a_file_replaced_removed_or_written_is_taken(reloading, ch26, pki, terminator, tmp_path):
    ca, fresh = tmp_path / "ca.pem", tmp_path / "fresh.pem"
    shutil.copy(pki.ca, ca)
    c, file = reloading(terminator(pki.good, ch26.addr).url, upstream__tls_ca_file=ca)
    assert c.sql("SELECT 1") == "1\n"
    shutil.copy(pki.other_ca, fresh)
    os.rename(fresh, ca)
    c.wait_metric(FILES_OK, 1)
    chmux_error(c.ask("GET", q("SELECT 1")), "upstream_connect", 503)
    ca.unlink()
    c.wait_metric(FILES_FAILED, 1)
    shutil.copy(pki.ca, ca)
    c.wait_metric(FILES_OK, 2)
    assert c.sql("SELECT 1") == "1\n" and c.metric("chmux_files_last_success") == 1


# ---- under load
def test_fifty_reloads_under_load(reloading, fake):
    """64 clients, and every reload moves them: another cap, another server, other times."""
    a, b = fake(), fake()
    c, file = reloading(a.url)
    stop = threading.Event()

    def client(_):
        n = 0
        with c.client() as kept:
            while not stop.is_set():
                r = again(kept, q("SELECT 1"))
                assert r.status == 200 and r.complete, r
                n += 1
        return n

    load = Background(lambda: parallel(64, client))
    try:
        c.wait_metric("chmux_requests_total", lambda v: v > 64)
        for i in range(50):
            file["upstream", "url"] = (a.url, f"{a.url}, {b.url}", b.url)[i % 3]
            file["upstream", "pool_size"] = 1 + i % 16
            file["upstream", "idle_timeout"] = f"{1 + i % 3}s"
            reload(c)
    finally:
        stop.set()
    assert sum(load.result()) == c.metric("chmux_requests_total")
    assert c.metric(OK_TOTAL) == 50 and c.metric("chmux_refused_total") == 0


# ---- who asks
def test_those_who_ask_together_are_all_answered(reloading, fake):
    c, file = reloading(fake().url)
    file["upstream", "pool_size"] = 5
    told = parallel(20, lambda _: reload(c))
    assert all(t["ok"] for t in told) and option(c, "upstream", "pool_size") == "5"
    assert 1 <= c.metric(OK_TOTAL) <= 20


def test_no_reload_while_draining(reloading, held):
    c, file = reloading(held.url)
    running = Background(lambda: c.ask("GET", q("SELECT 1")))
    c.wait_metric('chmux_upstream_connections{state="active"}', 1)
    c.signal(signal.SIGTERM)
    c.wait_metric("chmux_draining", 1)
    assert reload(c, 409)["error"] == "draining"
    c.signal(signal.SIGHUP)
    c.wait_metric(FAILED_TOTAL, 1)
    held.gate.set()
    assert running.result().status == 200
    assert c.wait_exit() == 0


def test_the_service_manager_is_told(fake, tmp_path, cleanup):
    m = cleanup.add(Manager(tmp_path))
    file = File(tmp_path / "chmux.conf", upstream__url=fake().url)
    c = m.start(None, listen=("127.0.0.1:0",), config=file.path)
    m.wait_heard("READY")
    c.signal(signal.SIGHUP)
    m.wait_heard("READY", count=2)
    told = m.heard("RELOADING")
    assert len(told) == 1 and int(told[0].vars["MONOTONIC_USEC"]) > 0
    file["upstream", "pool_size"] = 0
    c.signal(signal.SIGHUP)
    m.wait_heard("RELOADING", count=2)
    m.wait_heard("READY", count=3)
    m.stop()
