"""t2: TLS on listeners: certificates of both sides, resumption, honest ends, and everything else told what is wrong."""
import contextlib
import json
import os
import resource
import shutil
import signal
import ssl
import subprocess
import threading

import pytest

from helpers import CHUNKED, chmux_error, chunk, q
from rig.chmuxd import EXIT_START, EXIT_USAGE, parse_addr, run
from rig.http1 import RawClient, ask, connect, request
from rig.wait import wait_until

pytestmark = pytest.mark.san
DONE = 'chmux_client_tls_handshakes_total{result="%s"}'
NOW = 'chmux_client_tls_handshakes{state="%s"}'


def secured(pki, pem=None, **more):
    """Options that put TLS on the listener made by --listen."""
    pem = pem or pki.good
    options = {"tls_cert_file": pki.cert(pem), "tls_key_file": pki.key(pem), **more}
    return {f"listen__flag1.{k}": v for k, v in options.items()}


def context(pki, cert=None, highest=None):
    ctx = ssl.create_default_context(cafile=pki.ca)
    if cert:
        ctx.load_cert_chain(cert)
    if highest:
        ctx.maximum_version = highest
    return ctx


def dial(c, ctx, session=None):
    """A connection over TLS. An end without close_notify raises ssl.SSLEOFError, a reset ends in Closed."""
    sock = ctx.wrap_socket(connect(c.addr), server_hostname="localhost", session=session, suppress_ragged_eofs=False)
    return RawClient(c.addr, sock=sock)


def get(client, target="/ping", **kw):
    return client.send(request("GET", target, **kw)).response("GET")


def api(c, what):
    return ask(c.admin_addr, "GET", f"/api/v1/{what}", host="127.0.0.1").text


def errors(c):
    return api(c, "errors")


READ = {"admin__tcp_access": "read"}


@pytest.fixture
def tls(fake, chmuxd, pki):
    """chmuxd with a TLS listener in front of a fake upstream."""
    return chmuxd(fake().url, **READ, **secured(pki))


def test_curl_and_both_versions(tls, pki):
    url = f"https://localhost:{tls.addr[1]}/?query=SELECT+1"
    for extra in (["--tls-max", "1.2"], ["--tlsv1.3"], ["--http2"]):  # http2: ALPN offers it, we choose http/1.1
        p = subprocess.run(["curl", "-sS", "--cacert", pki.ca, *extra, url], capture_output=True, text=True, timeout=30)
        assert p.stdout == "ok\n", p.stderr
    p = subprocess.run(["curl", "-sS", url], capture_output=True, text=True, timeout=30)
    assert p.returncode == 60  # does not trust our CA: curl says so, and so do we
    wait_until(lambda: "does not accept our certificate" in errors(tls), 3, errors(tls))
    assert tls.metric(DONE % "full") == 3 and tls.metric(DONE % "failed") == 1


def test_a_driver_over_https(ch26, pki, chmuxd, summary):
    clickhouse_connect = pytest.importorskip("clickhouse_connect")
    c = chmuxd(ch26.url, **secured(pki))
    client = clickhouse_connect.get_client(host="localhost", port=c.addr[1], secure=True, ca_cert=pki.ca)
    client.command("DROP TABLE IF EXISTS tls_rows")
    client.command("CREATE TABLE tls_rows (n UInt64, s String) ENGINE = Memory")
    client.insert("tls_rows", [[i, "x" * (i % 100)] for i in range(20000)], column_names=["n", "s"])
    assert client.query("SELECT sum(n), sum(length(s)) FROM tls_rows").result_rows == [(199990000, 990000)]
    assert len(client.query("SELECT * FROM tls_rows").result_rows) == 20000
    client.command("DROP TABLE tls_rows")
    client.close()


def test_large_bodies_both_ways(ch26, pki, chmuxd):
    c = chmuxd(ch26.url, **secured(pki))
    client = dial(c, context(pki))
    body = b"".join(b"%d\tsome text\n" % i for i in range(300000))
    client.send(request("POST", "/?query=INSERT+INTO+cmp+FORMAT+TSV", (), body, chunked=True))
    assert client.response("POST").status == 200
    r = get(client, q("SELECT a, s FROM cmp ORDER BY a"))
    assert r.complete and r.body == body
    get(client, q("SELECT 1"))  # the same connection
    ch26.sql("TRUNCATE TABLE cmp")
    assert c.metric(DONE % "full") == 1


@pytest.mark.parametrize("highest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions_are_resumed_by_ticket(tls, pki, highest):
    ctx = context(pki, highest=highest)
    first = dial(tls, ctx)
    get(first)  # 1.3 sends its tickets behind the handshake
    session = first.sock.session
    first.close()
    again = dial(tls, ctx, session)
    assert again.sock.session_reused and get(again).status == 200
    assert tls.metric(DONE % "resumed") == 1 and tls.metric(DONE % "full") == 1


def test_plain_http_is_told_to_use_https(tls):
    with tls.client() as c:
        r = chmux_error(get(c), "bad_request", 400)
        assert "use https://" in r.text and c.at_eof()
    with tls.client() as c:
        c.send(b"OPTIONS * HTTP/1.1\r\n")  # not even a whole head
        assert "use https://" in c.response().text
    with tls.client() as c:
        c.send(b"\x00\x11ClickHouse client\x01\x01")  # the native protocol: an Exception packet
        wait_until(lambda: tls.metric(DONE % "plain") == 3)
        assert c.take(1) == b"\x02"


def test_tls_to_a_plain_port_is_told_so(chmux26, pki):
    with pytest.raises(ssl.SSLError, match="(?i)wrong.version|http"):
        dial(chmux26, context(pki))


def test_other_garbage_ends_the_connection(tls, pki):
    hello = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"
    for junk in (b"\x16\x03\x01\xff\xff" + os.urandom(200), hello, b"\x16" + bytes(400), b"\x80\x2e\x01\x00\x02" + bytes(40)):
        with tls.client() as c:
            c.send(junk)
            with contextlib.suppress(Exception):
                while True:
                    c.fill()  # an alert, an error text, or nothing; then the end
    assert get(dial(tls, context(pki))).status == 200


@pytest.mark.parametrize("highest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_client_certificates_required(fake, chmuxd, pki, highest):
    c = chmuxd(fake().url, log__access="yes", **READ, **secured(pki, tls_client_auth="require", tls_client_ca_file=pki.ca))
    client = dial(c, context(pki, pki.client, highest))
    assert get(client, q("SELECT 1")).status == 200
    (seen,) = [v for v in json.loads(api(c, "clients"))["clients"] if v["state"] == "idle"]
    assert (seen["certificate"], seen["cn"]) == ("CN=client", "client") and seen["tls"].startswith("TLSv1.")
    wait_until(lambda: 'cert="CN=client"' in c.stderr or "cert=CN=client" in c.stderr, 5, c.stderr)
    for cert, why in ((None, "showed no certificate"), (pki.client_other, "is not accepted")):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            get(dial(c, context(pki, cert, highest))).body.decode("ascii").index("never")
        wait_until(lambda: why in errors(c), 5, errors(c))


def test_client_certificates_optional(fake, chmuxd, pki):
    c = chmuxd(fake().url, **secured(pki, tls_client_auth="optional", tls_client_ca_file=pki.ca))
    assert get(dial(c, context(pki))).status == 200
    assert get(dial(c, context(pki, pki.client))).status == 200
    with pytest.raises((ssl.SSLError, ConnectionError)):  # one that is shown must be good
        get(dial(c, context(pki, pki.client_other))).body.decode("ascii").index("never")


def test_the_name_asked_for_does_not_matter(tls, pki):
    ctx = context(pki)
    ctx.check_hostname = False
    for name in ("elsewhere.example", None):
        with ctx.wrap_socket(connect(tls.addr), server_hostname=name) as s:
            assert get(RawClient(tls.addr, sock=s)).status == 200


def test_minimum_version(fake, chmuxd, pki):
    c = chmuxd(fake().url, **READ, **secured(pki, tls_min_version="1.3"))
    assert get(dial(c, context(pki))).status == 200
    with pytest.raises(ssl.SSLError, match="(?i)protocol.version"):
        dial(c, context(pki, highest=ssl.TLSVersion.TLSv1_2))
    wait_until(lambda: "no common TLS version" in errors(c))


# ---- honest ends
def streamer(cut):
    """An answer without a length; cut: the upstream breaks off inside it."""

    def script(conn):
        conn.request()
        conn.send(CHUNKED + chunk(b"x" * 1000))
        if not cut:
            conn.send(b"0\r\n\r\n")
            conn.wait_eof()

    return script


def test_the_end_of_an_answer_without_framing_is_told(fake, chmuxd, pki):
    c = chmuxd(fake(streamer(False)).url, **secured(pki))
    r = get(dial(c, context(pki)), q("SELECT 1"), version="HTTP/1.0")
    assert r.framing == "close" and r.complete and len(r.body) == 1000  # close_notify came: no SSLEOFError


def test_a_cut_answer_has_no_close_notify(fake, chmuxd, pki):
    c = chmuxd(fake(streamer(True)).url, **secured(pki))
    client = dial(c, context(pki))
    try:
        r = get(client, q("SELECT 1"), version="HTTP/1.0")
        assert r.ended == "reset", r
    except ssl.SSLEOFError:
        pass


def test_a_client_that_leaves_is_noticed(fake, chmuxd, pki):
    up = fake(lambda conn: conn.request() and conn.wait_eof())
    c = chmuxd(up.url, upstream__on_disconnect="close", **secured(pki))
    client = dial(c, context(pki))
    client.send(request("GET", q("SELECT sleep(3)")))
    up.wait_heads(1)
    client.close()
    c.wait_metric('chmux_exchanges_finished_total{result="client_gone"}', 1)


# ---- limits
def test_handshakes_that_stall_are_ended(fake, chmuxd, pki):
    c = chmuxd(fake().url, chmux__head_timeout="300ms", **secured(pki))
    with c.client() as silent, c.client() as slow:
        slow.send(b"\x16\x03\x01\x02\x00\x01")
        assert silent.at_eof() and slow.at_eof()
    assert c.metric(DONE % "timeout") == 2 and c.metric(NOW % "running") == 0


def test_handshakes_beyond_the_cap_wait_their_turn(fake, chmuxd, pki):
    c = chmuxd(fake().url, chmux__max_handshakes=2, chmux__head_timeout="10m", **secured(pki))
    stuck = [c.client().send(b"\x16\x03\x01\x02\x00\x01") for _ in range(2)]
    c.wait_metric(NOW % "running", 2)
    ctx = context(pki)
    waiting = ctx.wrap_socket(connect(c.addr), server_hostname="localhost", do_handshake_on_connect=False)
    waiting.setblocking(False)
    with pytest.raises(ssl.SSLWantReadError):
        waiting.do_handshake()
    c.wait_metric(NOW % "waiting", 1)
    gone = c.client().send(b"\x16\x03\x01")
    c.wait_metric(NOW % "waiting", 2)
    gone.close()  # while it waits
    c.wait_metric(NOW % "waiting", 1)
    stuck[0].close()
    waiting.setblocking(True)
    waiting.settimeout(30)
    waiting.do_handshake()
    assert get(RawClient(c.addr, sock=waiting)).status == 200
    assert c.metric(NOW % "waiting") == 0
    stuck[1].close()
    c.wait_metric(NOW % "running", 0)


def test_one_client_too_many_gets_an_alert(fake, chmuxd, pki):
    c = chmuxd(fake().url, chmux__max_clients=1, **secured(pki))
    first = dial(c, context(pki))
    with pytest.raises(ssl.SSLError, match="(?i)internal.error"):
        dial(c, context(pki))
    assert get(first).status == 200


def test_drain_finishes_what_runs(fake, chmuxd, pki):
    go = threading.Event()

    def script(conn):
        while conn.request() is not None:
            conn.stall(go)
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n")

    up = fake(script)
    c = chmuxd(up.url, chmux__drain_idle="100ms", **secured(pki))
    ctx = context(pki)
    busy, idle = dial(c, ctx), dial(c, ctx)
    busy.send(request("GET", q("SELECT 1")))
    up.wait_heads(1)
    c.signal()
    assert idle.at_eof()  # close_notify came, or it would raise SSLEOFError
    go.set()
    r = busy.response()
    assert r.complete and r.header("Connection").lower() == "close" and busy.at_eof()
    busy.close()
    assert c.wait_exit() == 0


# ---- start
@pytest.mark.parametrize("name,why", [
    ("expired", "certificate has expired"), ("missing", "No such file"), ("text", "not PEM"),
    ("other_key", "does not belong"), ("locked", "encrypted"), ("client_ca", "not PEM")])
def test_files_that_cannot_work_are_named_at_start_and_by_check(pki, tmp_path, name, why):
    cert, key, ca, bad = pki.cert(pki.good), pki.key(pki.good), pki.ca, tmp_path / "bad.pem"
    bad.write_text("no certificate\n")
    if name == "expired":
        cert = bad = pki.cert(pki.expired)
        key = pki.key(pki.expired)
    elif name == "missing":
        cert = bad = tmp_path / "none.pem"
    elif name == "text":
        cert = bad
    elif name == "other_key":
        key = bad = pki.key(pki.client)
    elif name == "locked":
        subprocess.run(["openssl", "ec", "-aes128", "-passout", "pass:x", "-in", key, "-out", bad], check=True,
                       capture_output=True)
        key = bad
    else:
        ca = bad
    options = {"tls_cert_file": cert, "tls_key_file": key, "tls_client_auth": "require", "tls_client_ca_file": ca}
    args = ["--listen", "127.0.0.1:0"] + [f"--set=listen.flag1.{k}={v}" for k, v in options.items()]
    for more, code in (([], EXIT_START), (["--check"], EXIT_USAGE)):
        p = run(*args, *more)
        assert p.returncode == code, p.stderr
        assert f"[listen flag1] {bad}: " in p.stderr and why in p.stderr, p.stderr


@pytest.mark.parametrize("options,why", [
    ({"tls_cert_file": "/c"}, "tls_key_file"), ({"tls_key_file": "/k"}, "plain HTTP"),
    ({"tls_cert_file": "/c", "tls_key_file": "/k", "tls_client_auth": "require"}, "tls_client_ca_file"),
    ({"tls_cert_file": "/c", "tls_key_file": "/k", "tls_client_ca_file": "/ca"}, "everybody would be let in")])
def test_options_that_do_not_fit_together(options, why):
    p = run("--check", "--listen", "127.0.0.1:0", *[f"--set=listen.flag1.{k}={v}" for k, v in options.items()])
    assert p.returncode == EXIT_USAGE and why in p.stderr, p.stderr


# ---- reload
def serial(client):
    return client.sock.getpeercert()["serialNumber"]


def swap(folder, cert, key):
    """As Kubernetes does it: another folder, and a link renamed over the old one."""
    version = folder / f"v{len(list(folder.glob('v*')))}"
    version.mkdir()
    shutil.copy(cert, version / "tls.crt")
    shutil.copy(key, version / "tls.key")
    (folder / "next").symlink_to(version)
    os.replace(folder / "next", folder / "now")


def reloads(c, result):
    before = c.metric(f'chmux_reloads_total{{result="{result}"}}')
    c.signal(signal.SIGHUP)
    c.wait_metric(f'chmux_reloads_total{{result="{result}"}}', lambda v: v > before)


def test_reload_takes_a_new_certificate_and_leaves_who_is_there(fake, chmuxd, pki, tmp_path):
    swap(tmp_path, pki.cert(pki.good), pki.key(pki.good))
    second = pki._leaf("second", "ca", "DNS:localhost")
    options = {"tls_cert_file": tmp_path / "now/tls.crt", "tls_key_file": tmp_path / "now/tls.key"}
    c = chmuxd(fake().url, **{f"listen__flag1.{k}": v for k, v in options.items()})
    ctx = context(pki)
    old = dial(c, ctx)
    get(old)
    ticket = old.sock.session
    reloads(c, "ok")  # nothing has changed: tickets stay good
    assert dial(c, ctx, ticket).sock.session_reused
    swap(tmp_path, pki.cert(second), pki.key(second))
    reloads(c, "ok")
    new = dial(c, ctx, ticket)
    assert serial(new) != serial(old) and not new.sock.session_reused
    assert get(old).status == get(new).status == 200
    end = c.metric("chmux_listener_certificate_not_after_seconds")
    assert end == ssl.cert_time_to_seconds(new.sock.getpeercert()["notAfter"])
    swap(tmp_path, pki.cert(pki.good), pki.key(second))  # they do not belong together
    reloads(c, "failed")
    wait_until(lambda: "[listen flag1]" in c.stderr and "does not belong" in c.stderr, 10, c.stderr)
    assert serial(dial(c, ctx)) == serial(new)


def test_reload_turns_tls_on_and_off(fake, chmuxd, pki, tmp_path):
    file = tmp_path / "chmux.conf"
    text = "[listen a]\naddress = 127.0.0.1:0\n"
    tls = f"tls_cert_file = {pki.cert(pki.good)}\ntls_key_file = {pki.key(pki.good)}\n"
    file.write_text(text)
    c = chmuxd(fake().url, listen=(), config=file)
    wait_until(lambda: c._bound()[0])
    c.addr = parse_addr(c._bound()[0][0][0])
    plain = c.client()
    assert get(plain).status == 200
    file.write_text(text + tls)
    reloads(c, "ok")
    secure = dial(c, context(pki))
    assert get(secure).status == get(plain).status == 200
    file.write_text(text)
    reloads(c, "ok")
    assert get(c.client()).status == get(secure).status == 200


@pytest.mark.slow
@pytest.mark.memory
def test_an_idle_client_costs_little(fake, chmuxd, pki, summary):
    n, (soft, hard) = 1500, resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    c = chmuxd(fake().url, chmux__max_clients=n + 10, **secured(pki))
    ctx = context(pki)
    before = c.rss()
    clients = [dial(c, ctx) for _ in range(n)]
    assert c.metric(DONE % "full") == n
    each = (c.rss() - before) / n
    summary.append(f"an idle TLS client: {each / 1024:.1f} KiB of chmuxd's memory")
    assert each < 24576
    assert get(clients[0]).status == get(clients[-1]).status == 200
    for s in clients:
        s.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
