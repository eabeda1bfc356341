"""w: the tool chmux, against a real chmuxd and against admin servers that lie."""
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading

import pytest

from helpers import Background, needs_root, q
from rig import chmuxd as chmuxd_rig
from rig.clickhouse import die_with_parent
from rig.wait import wait_until

NOBODY = 65534
LISTS = ["clients", "exchanges", "pool", "endpoints", "queue", "users", "pipes", "config", "errors", "memory"]


def tool():
    path = os.path.join(os.path.dirname(chmuxd_rig.binary()), "chmux")
    assert os.access(path, os.X_OK), f"{path}: the tool belongs beside chmuxd"
    return path


def chmux(*args, admin=None, code=0, env=None, prefix=(), **kw):
    """Runs the tool to its end; stdout, stderr. admin: an address, or a chmuxd."""
    clean = {k: v for k, v in os.environ.items() if k != "CHMUX_ADMIN_ADDRESS"}
    if admin is not None:
        env = {"CHMUX_ADMIN_ADDRESS": admin if isinstance(admin, str) else f"unix:{admin.admin_addr}", **(env or {})}
    p = subprocess.run([*prefix, tool(), *map(str, args)], capture_output=True, text=True, timeout=60,
                       env={**clean, **(env or {})}, preexec_fn=die_with_parent, **kw)
    assert not chmuxd_rig.SANITIZER.search(p.stderr), p.stderr
    assert p.returncode == code, (p.returncode, p.stdout, p.stderr)
    return p.stdout, p.stderr


def says(*args, **kw):
    """stdout of a command that works and complains about nothing."""
    out, err = chmux(*args, **kw)
    assert err == "", err
    return out


def rows(text):
    """The table at the end of text as dicts: columns are parted by two spaces and aligned."""
    lines = text.rstrip("\n").split("\n")
    head = max(i for i, line in enumerate(lines) if re.match(r"^ *[A-Z]+( |$)", line))
    names = re.split(r"  +", lines[head].strip())
    return [dict(zip(names, re.split(r"  +", line.strip()))) for line in lines[head + 1:]]


# ---- against a real chmuxd
@pytest.mark.san
def test_status_and_lists_show_what_runs(control, held):
    c = control(held.url, upstream__pool_size=1)
    first = Background(lambda: c.ask("GET", q("SELECT 1", user="alice", query_id="q-1")))
    wait_until(lambda: held.heads)
    second = Background(lambda: c.ask("GET", q("SELECT 2", user="bob", query_id="q-2")))
    wait_until(lambda: json.loads(says("show", "queue", "--json", admin=c))["waiting"] == 1)

    status = says("status", admin=c)
    assert status.startswith("chmuxd ") and f" is serving, pid {c.pid}, " in status
    assert re.search(r"^pool +size 1, active 1, idle 0,", status, re.M), status
    assert re.search(r"^queue +waiting 1, ", status, re.M), status
    assert re.search(r"^memory +used [0-9.]+ KiB, limit 256 MiB, resident ", status, re.M), status
    assert re.search(r"^LATENCY +COUNT +MEAN +P50 +P95 +P99$", status, re.M), status
    assert max(map(len, status.splitlines())) <= 80

    one, two = rows(says("show", "exchanges", admin=c))
    assert (one["USER"], one["QUERY ID"], one["STATE"], two["USER"], two["STATE"]) == ("alice", "q-1", "receiving", "bob", "queued")
    assert re.match(r"^[0-9.]+ (us|ms|s)$", one["AGE"]) and "PATH" not in one
    assert rows(says("show", "exchanges", "--wide", admin=c))[0]["PATH"] == "/"
    clients = {r["ID"]: r for r in rows(says("show", "clients", admin=c))}
    assert clients[one["CLIENT"]]["EXCHANGE"] == one["ID"]
    assert [r["STATE"] for r in rows(says("show", "pool", admin=c))] == ["active"]
    assert [(r["STATE"], r["ACTIVE"]) for r in rows(says("show", "endpoints", admin=c))] == [("up", "1")]
    assert [(r["WAITS FOR"], r["USER"]) for r in rows(says("show", "queue", admin=c))] == [("connection", "bob")]
    assert "no pipes" in says("show", "pipes", admin=c) and "no errors" in says("show", "errors", admin=c)
    config = {(r["SECTION"], r["KEY"]): r for r in rows(says("show", "config", admin=c))}
    assert config["upstream", "pool_size"]["VALUE"] == "1" and config["upstream", "pool_size"]["SOURCE"] == "--set upstream.pool_size"
    assert re.search(r"used .* KiB, limit 256 MiB", says("show", "memory", admin=c))
    assert "and more: 1 are shown" in says("show", "exchanges", "--limit", 1, admin=c)

    # killed by what the table says
    assert "ended" in says("kill", one["ID"], admin=c)
    assert first.result().status == 500
    held.gate.set()
    assert second.result().status == 200
    assert rows(says("show", "errors", admin=c))[0]["REASON"] == "killed"


@pytest.mark.san
def test_json_is_what_the_server_says(control, fake):
    c = control(fake().url)
    for what in LISTS:
        assert isinstance(json.loads(says("show", what, "--json", admin=c)), dict)
    assert json.loads(says("--json", "status", admin=c))["pid"] == c.pid
    assert json.loads(says("pause", "--json", admin=c))["ok"] is True
    out, err = chmux("kill", 999, "--json", admin=c, code=1)
    assert json.loads(out)["error"] == "not_running" and "no such request runs" in err


@pytest.mark.san
def test_commands_do_what_they_say(control, fake):
    c = control(fake().url)
    status = lambda: json.loads(says("status", "--json", admin=c))  # noqa: E731
    assert says("pause", admin=c).startswith("paused: requests wait")
    assert status()["state"] == "paused" and " is paused, " in says("status", admin=c)
    assert says("resume", admin=c).startswith("resumed\n")
    assert status()["state"] == "serving"
    assert c.ask("GET", "/?query=SELECT+1").status == 200
    assert "closed 1" in says("reconnect", admin=c)
    assert "before info" in says("log-level", "debug", admin=c) and status()["log_level"] == "debug"
    assert says("wait", "--ready", "--upstream", admin=c) == "ready\n"
    assert json.loads(says("wait", "--ready", "--json", admin=c))["ready"] is True
    assert "draining" in says("drain", admin=c)
    assert c.wait_exit() == 0


def test_shutdown_now_cuts_what_runs(control, held):
    c = control(held.url)
    running = Background(lambda: c.ask("GET", q("SELECT 1")))
    wait_until(lambda: held.heads)
    assert "draining" in says("shutdown", admin=c)
    assert " is draining, " in says("status", admin=c)
    out, err = chmux("pause", admin=c, code=1)
    assert out == "" and err == "chmux: chmuxd is draining: what waits has to be served\n"
    _, err = chmux("wait", "--ready", "--timeout", "50ms", admin=c, code=1)
    assert "not ready after 50.0 ms" in err
    assert "stopping now" in says("shutdown", "--now", admin=c)
    assert c.wait_exit() == chmuxd_rig.EXIT_CUT
    c.judged = True
    with contextlib.suppress(Exception):
        running.result()


@needs_root
def test_another_user_may_look_but_not_touch(control, fake, folder):
    c = control(fake().url, admin__mode="0666")
    other = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    copy = shutil.copy(tool(), f"{folder}/chmux")
    run = lambda *args: subprocess.run([*other, copy, "--admin", f"unix:{c.admin_addr}", *args], text=True,  # noqa: E731
                                       capture_output=True, timeout=60)
    assert run("status").returncode == 0
    for args in (["pause"], ["resume"], ["reconnect"], ["kill", "1"], ["log-level", "debug"], ["drain"], ["shutdown"],
                 ["shutdown", "--now"]):
        p = run(*args)
        assert (p.returncode, p.stdout) == (1, ""), (args, p)
        assert p.stderr == (f"chmux: uid {NOBODY} may look, but not change anything; allowed by: root and the user that "
                            "chmuxd runs as, on this socket\n"), p
    os.chmod(c.admin_addr, 0o600)
    p = run("status")
    assert p.returncode == 1 and "Permission denied; who may connect is set by mode and group of [admin]" in p.stderr


def test_tcp_addresses_by_number_and_by_name(chmuxd, fake):
    c = chmuxd(fake().url, admin__tcp_access="control")
    port = c.admin_addr[1]
    for address in (f"127.0.0.1:{port}", f"localhost:{port}", f"127.0.0.1:{port},unix:/nowhere"):
        assert " is serving" in says("status", admin=address)
    assert says("pause", "--admin", f"localhost:{port}").startswith("paused")
    closed = chmuxd(fake().url)
    _, err = chmux("status", admin=f"127.0.0.1:{closed.admin_addr[1]}", code=1)
    assert "serves health only; allowed by: a unix socket in [admin] address; or [admin] tcp_access = read" in err


def test_nobody_there_is_said_with_the_address(tmp_path):
    for address in (f"unix:{tmp_path}/none", f"{tmp_path}/none", "unix:@chmux-none", "127.0.0.1:1"):
        out, err = chmux("status", admin=address, code=1)
        assert out == "" and err.startswith(f"chmux: {address}: no chmuxd answers there (") and err.count("\n") == 1
    out, err = chmux("wait", "--ready", "--timeout", "50ms", admin=f"{tmp_path}/none", code=1)
    assert f"the last look: {tmp_path}/none: no chmuxd answers" in err


def test_wait_sees_chmuxd_come(folder, chmuxd, fake):
    address = f"unix:{folder}/admin.sock"
    waiting = Background(lambda: says("wait", "--ready", "--timeout", "60", admin=address))
    chmuxd(fake().url, admin=address)
    assert waiting.result() == "ready\n"


def test_watch_repeats_until_it_fails(control, fake):
    c = control(fake().url)
    p = subprocess.Popen([tool(), "--admin", c.admin_addr, "--json", "--watch=0.1", "status"], text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=die_with_parent)
    seen = [json.loads(p.stdout.readline())["uptime_ms"] for _ in range(3)]
    assert seen == sorted(set(seen))
    c.signal(signal.SIGQUIT)
    c.wait_exit()
    _, err = p.communicate(timeout=30)
    assert p.returncode == 1 and "no chmuxd answers there" in err


def test_a_reader_that_leaves_ends_it_silently(control, fake):
    c = control(fake().url)
    p = subprocess.run(["bash", "-c", f"{tool()} --admin {c.admin_addr} --watch=0.1 show config | head -n 1"], text=True,
                       capture_output=True, timeout=30, preexec_fn=lambda: signal.signal(signal.SIGPIPE, signal.SIG_IGN))
    assert p.stdout.startswith("SECTION") and p.stderr == ""
    with open("/dev/full", "w") as full:
        p = subprocess.run([tool(), "--admin", c.admin_addr, "status"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert p.returncode == 1 and "cannot write: No space left on device" in p.stderr


# ---- against what is no chmuxd
@pytest.fixture
def liar(tmp_path):
    """liar(bytes or function(socket)): the address of an admin server that answers so, to every client."""
    made = []

    def make(what):
        path = f"{tmp_path}/liar{len(made)}"
        s = socket.socket(socket.AF_UNIX)
        s.bind(path)
        s.listen(8)
        made.append(s)

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    conn, _ = s.accept()
                    with conn, contextlib.suppress(OSError):
                        while b"\r\n\r\n" not in (conn.recv(65536) or b"\r\n\r\n"):
                            pass
                        what(conn) if callable(what) else conn.sendall(what)

        threading.Thread(target=serve, daemon=True).start()
        return path

    yield make
    for s in made:
        s.shutdown(socket.SHUT_RDWR)
        s.close()


def http(body, status="200 OK", length=None, kind="application/json"):
    body = body.encode() if isinstance(body, str) else body
    return (f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body) if length is None else length}\r\n"
            "\r\n").encode() + body


HOSTILE = {
    "silent": (b"", "the connection was closed without an answer"),
    "half a head": (b"HTTP/1.1 200 OK\r\nContent-Le", "closed in the middle of the answer"),
    "cut": (http('{"version":', length=1000), "the answer was cut after 11 bytes"),
    "cut chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"a\":", "the answer was cut"),
    "bad chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "the answer is broken: "),
    "two lengths": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", "does not speak HTTP"),
    "no http": (b"SSH-2.0-OpenSSH_9.2p1\r\n", "what answers there does not speak HTTP"),
    "endless head": (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20000, "does not speak HTTP"),
    "no json": (http("<html>\x1b[31m", kind="text/html"), "the answer is not JSON"),
    "a list": (http("[1]"), "no JSON object"),
    "deep": (http("[" * 100000), "the answer is not JSON"),
    "huge": (http(b"\"" + b"x" * (9 << 20)), "the answer is over 8 MiB"),
    "busy": (http("too many\x1b[2J admin clients\nmore\n", "503 Service Unavailable", kind="text/plain"),
             "answered 503 Service Unavailable: too many\\x1b[2J admin clients\n"),
    "refused": (http('{"error":"x","message":"no\\u001b[31m","allowed_by":"a\\nb"}', "403 Forbidden"), "chmux: no\\x1b[31m; a\\x0ab\n"),
    "wrong types": (http('{"error":1,"message":[2],"errors":{"a":1}}', "400 Bad Request"), "answered 400 Bad Request"),
    "wrong errors": (http('{"message":"no","errors":[3,{"a":1},"\\u001b"]}', "400 Bad Request"), "chmux: no\nchmux: \nchmux: \nchmux: \\x1b\n"),
}


@pytest.mark.san
@pytest.mark.parametrize("how", HOSTILE)
def test_a_bad_answer_is_told_and_obeyed_by_no_terminal(liar, how):
    answer, told = HOSTILE[how]
    out, err = chmux("status", admin=liar(answer), code=1)
    assert told in err and out == "" and "\x1b" not in err, err
    assert err.startswith("chmux: ")


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\n", http('{"a":', length=100)])
def test_a_stall_ends_in_time(liar, gate, start):
    g = gate()

    def stall(conn):
        conn.sendall(start)
        g.wait(60)

    address = liar(stall)
    _, err = chmux("status", "--timeout", "200ms", admin=address, code=1)
    assert re.fullmatch(rf"chmux: {address}: no (whole )?answer within 200 ms\n", err)


@pytest.mark.san
def test_fields_that_are_new_missing_or_hostile(liar):
    rows_ = [{"id": 1, "state": "\x1b[31mred\n", "upstream": "main", "lag_ms": 1500, "held_bytes": 2048, "tls_version": None},
             {"id": 2, "peer": "p", "upstream": "\u202eother"}, 7]
    text = says("show", "clients", admin=liar(http(json.dumps({"open": 2, "new_thing_ms": 5, "clients": rows_, "truncated": False}))))
    assert "\x1b" not in text and "\u202e" not in text
    one, two, _ = rows(text)
    assert (one["STATE"], one["UPSTREAM"], one["LAG"], one["HELD"]) == ("\\x1b[31mred\\x0a", "main", "1.5 s", "2.0 KiB")
    assert two["UPSTREAM"] == "\\u202eother" and "TLS VERSION" not in one and "AGE" not in one
    assert text.startswith("open 2, new thing 5.0 ms\n")

    text = says("status", admin=liar(http(json.dumps({"state": "odd", "novel": {"a_bytes": 1024}, "latency": {"x": 1},
                                                      "upstreams": [{"name": "a", "active": 1}, {"name": "b", "active": 22}]}))))
    assert text.startswith("chmuxd - is odd, pid -, ") and re.search(r"^novel +a 1.0 KiB$", text, re.M)
    assert rows(text) == [{"NAME": "a", "ACTIVE": "1"}, {"NAME": "b", "ACTIVE": "22"}]
    pool = {"active": 1, "idle": 2, "size": 4}
    text = says("status", admin=liar(http(json.dumps({"upstreams": [
        {"name": n, "up": True, "pool": pool, "queue": {"waiting": 7, "paused": False}} for n in ("a", "b")]}))))
    assert rows(text)[1] == {"NAME": "b", "UP": "yes", "BUSY": "1", "IDLE": "2", "SIZE": "4", "WAITING": "7", "PAUSED": "no"}
    for empty in ("{}", '{"clients":null}', '{"clients":[]}', '{"clients":{"a":1}}', '{"clients":[[],1,"x"]}'):
        says("show", "clients", admin=liar(http(empty)))
        says("status", admin=liar(http(empty)))
    raw = says("show", "clients", "--json", admin=liar(http('{"a":"\u009b31m\x7f"}')))
    assert raw == '{"a":"\\u009b31m\\u007f"}\n'


def test_reload_of_a_real_one(control, fake, tmp_path):
    conf = tmp_path / "c.conf"
    conf.write_text("[upstream]\nqueue_size = 10\n")
    c = control(fake().url, config=conf)
    conf.write_text("[upstream]\nqueue_size = 20\n")
    (change,) = rows(says("reload", admin=c))
    assert (change["KEY"], change["BEFORE"], change["AFTER"]) == ("queue_size", "10", "20")
    assert re.search(r"^queue .*size 20", says("status", admin=c), re.M)
    conf.write_text("[upstream]\nqueue_size = many\nfoo = 1\n")
    out, err = chmux("reload", admin=c, code=1)
    assert out == "" and f"chmux: {conf}:2: " in err and f"chmux: {conf}:3: " in err
    assert re.search(r"^reload +succeeded 1, failed 1, .*last ok no,\s+last time 20", says("status", admin=c), re.M | re.S)
    assert json.loads(chmux("reload", "--json", admin=c, code=1)[0])["error"] == "reload"


def test_reload_tells_what_changed_and_what_was_wrong(liar):
    change = {"section": "upstream", "key": "pool_size", "before": "16", "after": "8"}
    text = says("reload", admin=liar(http(json.dumps({"ok": True, "message": "reloaded", "changed": [change], "restart_needed": []}))))
    assert text.startswith("reloaded\n") and rows(text) == [{"SECTION": "upstream", "KEY": "pool_size", "BEFORE": "16", "AFTER": "8"}]
    bad = {"error": "config", "message": "the old configuration stays", "errors": ["f:1: first", "f:2: second\x1b"]}
    out, err = chmux("reload", admin=liar(http(json.dumps(bad), "422 Unprocessable Content")), code=1)
    assert (out, err) == ("", "chmux: the old configuration stays\nchmux: f:1: first\nchmux: f:2: second\\x1b\n")


# ---- wrong usage, check
def test_wrong_usage_is_exit_2_with_the_nearest_command():
    out, err = chmux("statsu", code=2)
    assert out == "" and "did you mean status?" in err and "usage: chmux" in err
    for args in ([], ["kill"], ["kill", "x"], ["show", "nothing"], ["status", "more"], ["drain", "--now"], ["--nonsense"]):
        out, err = chmux(*args, code=2)
        assert out == "" and err.startswith("chmux: ") and "usage: chmux" in err
    assert says("--help") == says("help") and "show WHAT" in says("help")
    assert re.fullmatch(r"chmux [0-9.]+\n", says("--version"))


def test_check_is_what_chmuxd_checks(tmp_path):
    good, bad = tmp_path / "good.conf", tmp_path / "bad.conf"
    good.write_text("[upstream]\npool_size = 3\n")
    bad.write_text("[upstream]\npool_size = many\nfoo = 1\n")
    assert says("check", good) == f"{good}: the configuration is valid\n"
    out, err = chmux("check", bad, code=2)
    assert out == "" and err == chmuxd_rig.run("--check", "--config", str(bad)).stderr and err.count("\n") == 2
    out, _ = chmux("check", bad, "--json", code=2)
    assert json.loads(out) == {"ok": False, "errors": err.splitlines(), "warnings": []}
    assert json.loads(says("check", "--json", good))["ok"] is True
    assert chmux("check", tmp_path / "none", code=2)[1] == f"{tmp_path}/none: No such file or directory\n"
    assert says("check", "-", input="[log]\nlevel = debug\n") == "-: the configuration is valid\n"
    assert "CHMUX_UPSTREAM_POOL_SIZE" in chmux("check", good, env={"CHMUX_UPSTREAM_POOL_SIZE": "x"}, code=2)[1]
