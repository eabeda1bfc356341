"""m: bad input gets a clear error and nothing is lost: requests, configuration, wrong protocols."""
import socket
import ssl

import pytest

from helpers import chmux_error
from rig.chmuxd import EXIT_START, EXIT_USAGE, run
from rig.fake import free_port
from rig.http1 import RawClient, request
from rig.wait import wait_until

pytestmark = [pytest.mark.san, pytest.mark.loop]
H = b"POST / HTTP/1.1\r\nHost: x\r\n"

# What chmux refuses though ClickHouse may not: whatever could make two readers see two different ends.
REFUSED = {
    "length beside chunked": H + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked beside length": H + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "differing lengths": H + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "the same length twice": H + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "list of differing lengths": H + b"Content-Length: 3, 4\r\n\r\nabcd",
    "length not a number": H + b"Content-Length: abc\r\n\r\n",
    "length with a sign": H + b"Content-Length: +3\r\n\r\nabc",
    "length negative": H + b"Content-Length: -3\r\n\r\n",
    "length in hex": H + b"Content-Length: 0x3\r\n\r\nabc",
    "length empty": H + b"Content-Length:\r\n\r\n",
    "length over 2^64": H + b"Content-Length: 99999999999999999999\r\n\r\n",
    "folded header": H + b"X-A: 1\r\n 2\r\n\r\n",
    "folded with a tab": H + b"X-A: 1\r\n\t2\r\n\r\n",
    "bare CR in a value": H + b"X-A: 1\r2\r\n\r\n",
    "bare LF line end": b"GET / HTTP/1.1\nHost: x\n\n",
    "bare LF in the head": H + b"X-A: 1\nX-B: 2\r\n\r\n",
    "space before the colon": H + b"X-A : 1\r\n\r\n",
    "space before the colon of a length": H + b"Content-Length : 3\r\n\r\nabc",
    "NUL in a value": H + b"X-A: a\0b\r\n\r\n",
    "NUL in the target": b"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n",
    "control character in a value": H + b"X-A: a\x01b\r\n\r\n",
    "no colon": H + b"X-A\r\n\r\n",
    "empty name": H + b": v\r\n\r\n",
    "space in a name": H + b"X A: v\r\n\r\n",
    "no target": b"GET HTTP/1.1\r\nHost: x\r\n\r\n",
    "three spaces": b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
    "no version": b"GET /\r\nHost: x\r\n\r\n",
    "garbage": b"\x01\x02\x03\x04garbage\r\n\r\n",
    "chunked not last": H + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "chunked twice": H + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "unknown transfer coding": H + b"Transfer-Encoding: xchunked\r\n\r\n",
    "chunked in 1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
}
BAD_CHUNKS = {
    "no hex": b"xyz\r\nabc\r\n0\r\n\r\n",
    "size over 2^63": b"8000000000000000\r\nabc",
    "size of 17 digits": b"11111111111111111\r\nabc",
    "negative": b"-1\r\n\r\n",
    "with 0x": b"0x3\r\nabc\r\n0\r\n\r\n",
    "empty size": b"\r\nabc\r\n0\r\n\r\n",
    "bare LF": b"3\nabc\n0\n\n",
    "data too long": b"3\r\nabcd\r\n0\r\n\r\n",
    "NUL in an extension": b"3;a=\0\r\nabc\r\n0\r\n\r\n",
    "bare CR": b"3\rabc\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_request_that_breaks_rfc_9112_is_refused_and_closed(chmuxd, fake, name):
    up = fake()
    c = chmuxd(up.url)
    with c.client() as k:
        k.send(REFUSED[name])
        r = k.response("POST")
        chmux_error(r, "bad_request", 400)
        assert k.at_eof(), "the connection stays open after bad framing"
    assert not up.heads, "it reached the server"


@pytest.mark.parametrize("name", BAD_CHUNKS)
def test_a_bad_chunk_in_a_request_is_refused_and_cut_upstream(chmuxd, fake, name):
    """A good chunk first, so that the request is on its way; the server must not see its end."""
    complete = []

    def script(conn):
        h = conn.head()
        if h is not None:
            body = conn.body(h)
            complete.append(body)

    up = fake(script)
    c = chmuxd(up.url)
    with c.client() as k:
        k.send(request("POST", "/?query=INSERT", [("Transfer-Encoding", "chunked")]) + b"4\r\ngood\r\n")
        up.wait_heads(1)
        k.send(BAD_CHUNKS[name])
        r = k.response("POST")
        assert (r.status == 400 and r.header("X-Chmux-Error") == "bad_request") or not r.complete, r
    up.wait_open(0)
    assert complete == [None]


@pytest.mark.parametrize("name,raw,status", [
    ("URI over 1 MiB", b"GET /" + b"x" * 1048577 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
    ("name over 4 KiB", H + b"X" * 4097 + b": v\r\n\r\n", 431),
    ("value over 128 KiB", H + b"X-A: " + b"v" * 131073 + b"\r\n\r\n", 431),
    ("1001 fields", b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: v\r\n" % i for i in range(1001)) + b"\r\n", 431),
])
def test_a_head_over_the_servers_limits_is_refused(chmuxd, fake, name, raw, status):
    up = fake()
    c = chmuxd(up.url)
    with c.client() as k:
        try:
            k.send(raw)
        except (BrokenPipeError, ConnectionResetError):
            pass
        chmux_error(k.response(), "too_large", status)
    assert not up.heads


def test_an_endless_head_is_refused_in_bounded_memory(chmuxd, fake):
    c = chmuxd(fake().url)
    with c.client() as k:
        try:
            k.send(b"GET / HTTP/1.1\r\n")
            for i in range(100000):
                k.send(b"X-%d: %s\r\n" % (i, b"v" * 1000))
        except (BrokenPipeError, ConnectionResetError):
            pass
        r = k.response()
        assert r.status in (431, 0), r
    assert c.ask("GET", "/ping").status == 200


def test_http2_is_told(chmuxd, fake):
    up = fake()
    c = chmuxd(up.url)
    with c.client() as k:
        k.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        r = k.response()
        assert r.status in (400, 505) and r.header("X-Chmux-Error") == "bad_request"
    assert not up.heads


def test_a_native_client_on_the_http_port_is_told(chmuxd, fake):
    """As ClickHouse does: an exception packet it can show, naming the right kind of port."""
    c = chmuxd(fake().url)
    with c.client() as k:
        k.send(b"\x00\x11ClickHouse client\x18\x07\xb2\xa9\x03\x00\x07default\x00")
        try:
            while True:
                k.fill()
        except Exception:
            pass
        text = bytes(k.buf)
    assert b"HTTP" in text and (b"native" in text or b"TCP" in text or b"tcp" in text), text


def test_a_tls_client_on_the_http_port_is_told(chmuxd, fake):
    c = chmuxd(fake().url)
    ctx = ssl.create_default_context()
    hello = ssl.MemoryBIO()
    obj = ctx.wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        obj.do_handshake()
    with c.client() as k:
        k.send(hello.read())
        try:
            while True:
                k.fill()
        except Exception:
            pass
        text = bytes(k.buf)
    assert text.startswith(b"HTTP/1.1 400") and (b"TLS" in text or b"https" in text or b"HTTPS" in text), text


def test_garbage_costs_only_its_own_connection(chmuxd, fake):
    c = chmuxd(fake().url)
    with c.client() as good:
        for raw in REFUSED.values():
            with RawClient(c.addr) as k:
                k.send(raw)
            good.send(request("GET", "/ping"))
            assert good.response().status == 200


def test_a_refusal_does_not_lose_the_answers_before_it(chmuxd, fake):
    """Two good pipelined requests, then a bad one: two answers, then the 400."""
    up = fake()
    c = chmuxd(up.url)
    with c.client() as k:
        k.send(request("GET", "/a") + request("POST", "/b", (), b"x", chunked=True) + b"BAD\r\n\r\n")
        assert k.response().body == b"ok\n" and k.response().body == b"ok\n"
        chmux_error(k.response(), "bad_request", 400)
    assert [h.path for _, h in up.heads] == ["/a", "/b"]


# ---- configuration
def check(tmp_path, text, *args, env=None):
    f = tmp_path / "chmux.conf"
    f.write_text(text)
    return run("--check", "--config", str(f), *args, env=env), str(f)


@pytest.mark.parametrize("text,line,words", [
    ("[upstream]\nurl = http://a:1\nno_such_key = 1\n", 3, ["no_such_key"]),
    ("[nonsense]\nx = 1\n", 1, ["nonsense"]),
    ("[upstream]\nqueue_timeout = 5 parsecs\n", 2, ["queue_timeout"]),
    ("[upstream]\nqueue_timeout = 5\n", 2, ["queue_timeout"]),
    ("[chmux]\nmemory_limit = 12q\n", 2, ["memory_limit"]),
    ("[chmux]\n\nmax_clients = 0\n", 3, ["max_clients"]),
    ("[upstream]\npool_size = many\n", 2, ["pool_size"]),
    ("[upstream]\npool_size = 99999\n", 2, ["pool_size", "4096"]),
    ("[upstream]\non_disconnect = explode\n", 2, ["on_disconnect", "kill"]),
    ("[chmux]\nallow_remote = perhaps\n", 2, ["allow_remote"]),
    ("[upstream]\nurl = ftp://a\n", 2, ["url"]),
    ("[upstream]\nurl = http://user:pw@a:1\n", 2, ["url"]),
    ("[upstream]\ntls_min_version = 1.0\n", 2, ["tls_min_version"]),
    ("[log]\nlevel = loud\n", 2, ["level"]),
    ("this is no ini\n", 1, []),
])
def test_a_bad_configuration_names_file_line_and_key(tmp_path, text, line, words):
    p, name = check(tmp_path, text)
    assert p.returncode in (EXIT_START, EXIT_USAGE), (p.returncode, p.stderr)
    assert f"{name}:{line}" in p.stderr, p.stderr
    for w in words:
        assert w in p.stderr, p.stderr
    assert "pw@" not in p.stderr, "a password in an error"


def test_all_errors_are_told_at_once(tmp_path):
    p, _ = check(tmp_path, "[upstream]\npool_size = x\nqueue_size = y\nfoo = 1\n")
    assert "pool_size" in p.stderr and "queue_size" in p.stderr and "foo" in p.stderr


def test_a_good_configuration_passes_the_check(tmp_path):
    p, _ = check(tmp_path, "[chmux]\nmax_clients = 10\n[listen a]\naddress = 127.0.0.1:0\n[upstream]\nurl = http://127.0.0.1:1\nqueue_timeout = 1500ms\n")
    assert p.returncode == 0, p.stderr


def test_a_missing_configuration_file_is_named():
    p = run("--config", "/no/such/chmux.conf")
    assert p.returncode in (EXIT_START, EXIT_USAGE) and "/no/such/chmux.conf" in p.stderr


def test_an_unreadable_configuration_file_is_named(tmp_path):
    p = run("--config", str(tmp_path))  # a folder cannot be read as a file, not even by root
    assert p.returncode in (EXIT_START, EXIT_USAGE) and str(tmp_path) in p.stderr


def test_unknown_environment_variables_are_errors():
    p = run("--check", "--upstream", "http://127.0.0.1:1", env={"CHMUX_UPSTREAM_POOLSIZE": "3"})
    assert p.returncode != 0 and "CHMUX_UPSTREAM_POOLSIZE" in p.stderr


def test_a_bad_environment_value_names_the_variable():
    p = run("--check", "--upstream", "http://127.0.0.1:1", env={"CHMUX_UPSTREAM_POOL_SIZE": "x"})
    assert p.returncode != 0 and "CHMUX_UPSTREAM_POOL_SIZE" in p.stderr


@pytest.mark.parametrize("args,word", [
    (["--no-such-flag"], "no-such-flag"), (["--set", "nonsense"], "nonsense"), (["--set", "upstream.nope=1"], "nope"),
    (["--pool-size", "x"], "pool-size"), (["stray"], "stray"), (["--listen"], "listen"), (["--upstream", "http://"], "http://"),
])
def test_bad_flags_are_named(args, word):
    p = run(*args, "--check")
    assert p.returncode in (EXIT_START, EXIT_USAGE) and word in p.stderr, (p.returncode, p.stderr)


def test_flags_beat_environment_beat_file(tmp_path):
    f = tmp_path / "c.conf"
    f.write_text("[upstream]\npool_size = 3\nqueue_size = 4\nmin_idle = 1\n")
    p = run("--print-config", "--config", str(f), "--pool-size", "5", env={"CHMUX_UPSTREAM_POOL_SIZE": "6", "CHMUX_UPSTREAM_QUEUE_SIZE": "7"})
    assert p.returncode == 0, p.stderr
    lines = {l.split("=")[0].strip(): l.split("=", 1)[1] for l in p.stdout.splitlines() if "=" in l and not l.lstrip().startswith(("#", ";"))}
    assert lines["pool_size"].split()[0] == "5"
    assert lines["queue_size"].split()[0] == "7"
    assert lines["min_idle"].split()[0] == "1"


def test_print_config_can_be_read_back(tmp_path):
    first = run("--print-config", "--upstream", "http://127.0.0.1:1", "--pool-size", "7")
    assert first.returncode == 0 and "pool_size = 7" in first.stdout
    f = tmp_path / "printed.conf"
    f.write_text(first.stdout)
    assert run("--check", "--config", str(f)).returncode == 0


def test_a_port_in_use_is_named(fake):
    with socket.create_server(("127.0.0.1", 0)) as s:
        addr = f"127.0.0.1:{s.getsockname()[1]}"
        p = run("--upstream", fake().url, "--listen", addr)
        assert p.returncode == EXIT_START and addr in p.stderr and "in use" in p.stderr, p.stderr
        p = run("--upstream", fake().url, "--listen", "127.0.0.1:0", "--admin", addr)
        assert p.returncode == EXIT_START and addr in p.stderr, p.stderr


@pytest.mark.parametrize("addr", ["0.0.0.0:0", "[::]:0"])
def test_a_remote_address_is_refused_unless_allowed(chmuxd, fake, addr):
    p = run("--upstream", "http://127.0.0.1:1", "--listen", addr)
    assert p.returncode in (EXIT_START, EXIT_USAGE) and "allow_remote" in p.stderr
    if addr.startswith("0"):
        c = chmuxd(fake().url, listen=(addr,), chmux__allow_remote="yes")
        c.addr = ("127.0.0.1", c.addr[1])
        assert c.ask("GET", "/ping").status == 200


@pytest.mark.parametrize("addr", ["127.0.0.1", "127.0.0.1:99999", "nonsense", "unix:", ":", "[::1", "127.0.0.1:x"])
def test_a_bad_address_is_named(addr):
    p = run("--upstream", "http://127.0.0.1:1", "--listen", addr)
    assert p.returncode in (EXIT_START, EXIT_USAGE) and addr in p.stderr, p.stderr


def test_a_name_that_is_not_found_is_told(chmuxd):
    c = chmuxd("http://no-such-host.invalid:1", upstream__connect_timeout="2s")
    chmux_error(c.ask("GET", "/ping", timeout=60), "upstream_connect", 503)
    wait_until(lambda: "no-such-host.invalid" in c.stderr, what="the name in the log")


def test_upstream_refused_is_told_in_the_log(chmuxd):
    port = free_port()
    c = chmuxd(f"http://127.0.0.1:{port}")
    chmux_error(c.ask("GET", "/ping"), "upstream_connect", 503)
    wait_until(lambda: str(port) in c.stderr and "refused" in c.stderr.lower(), what=f"{port} and refused in the log")
