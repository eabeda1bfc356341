"""l: TLS upstream: verified by default, resumed, drained, honest when cut; each failure says why."""
import os
import re
import ssl
import subprocess

import pytest

from helpers import CHUNKED, chmux_error, chunk, parallel, q
from rig.chmuxd import EXIT_START, EXIT_USAGE, run
from rig.http1 import ask, request
from rig.wait import wait_until

pytestmark = pytest.mark.san
FULL = 'chmux_upstream_tls_handshakes_total{kind="full"}'
RESUMED = 'chmux_upstream_tls_handshakes_total{kind="resumed"}'


def said(c, r, pattern):
    """The reason is in the answer or in the log."""
    text = r.text + "\n" + c.stderr
    wait_until(lambda: re.search(pattern, r.text + "\n" + c.stderr, re.I), 3, f"/{pattern}/ in {text!r}")


def test_tls_with_a_ca_file(server, pki, terminator, chmuxd):
    t = terminator(pki.good, server.addr)
    c = chmuxd(t.url, upstream__tls_ca_file=pki.ca)
    assert c.sql("SELECT 1") == "1\n"
    assert c.metric(FULL) >= 1


def test_tls_to_an_ip_address(ch26, pki, terminator, chmuxd):
    t = terminator(pki.good, ch26.addr)
    c = chmuxd(f"https://127.0.0.1:{t.port}", upstream__tls_ca_file=pki.ca)
    assert c.sql("SELECT 1") == "1\n"


def test_tls_with_a_ca_folder(ch26, pki, terminator, chmuxd, tmp_path):
    (tmp_path / "cas").mkdir()
    (tmp_path / "cas" / "ca.pem").write_text(open(pki.ca).read())
    subprocess.run(["openssl", "rehash", str(tmp_path / "cas")], check=True)
    c = chmuxd(terminator(pki.good, ch26.addr).url, upstream__tls_ca_dir=tmp_path / "cas")
    assert c.sql("SELECT 1") == "1\n"


@pytest.mark.parametrize("cert,why", [("expired", "expired"), ("wrong_host", "host|name"), ("unknown_issuer", "issuer|unable to get|self.signed|unknown|not trusted")])
def test_a_bad_certificate_is_refused_and_says_why(ch26, pki, terminator, chmuxd, cert, why):
    t = terminator(getattr(pki, cert), ch26.addr)
    c = chmuxd(t.url, upstream__tls_ca_file=pki.ca, admin__tcp_access="read")
    r = chmux_error(c.ask("GET", q("SELECT 1")), "upstream_connect", 503, 210)
    said(c, r, why)
    assert "localhost" not in r.text  # names are for the log and the control API
    known = ask(c.admin_addr, "GET", "/api/v1/errors", host="127.0.0.1").text
    assert ("not for localhost" in known) == (cert == "wrong_host"), known
    assert c.metric(FULL) == 0
    assert c.metric('chmux_upstream_connects_total{result="failed"}') >= 1


def test_http_to_a_port_that_speaks_tls_says_so(ch26, pki, terminator, fake, chmuxd):
    """Most TLS servers end such a connection without a word."""
    c = chmuxd(f"http://127.0.0.1:{terminator(pki.good, ch26.addr).port}")
    for method in ("POST", "GET"):
        r = chmux_error(c.ask(method, q("SELECT 1")), "upstream_closed", 502)
        assert "if this port speaks TLS, write https://" in r.text
    wait_until(lambda: "https://" in c.stderr)

    def script(conn):  # one that has answered before crashed, most likely
        if conn.request() is not None and conn.number == 1:
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    c = chmuxd(fake(script).url)
    assert c.ask("GET", q("SELECT 1")).status == 200
    assert "https://" not in chmux_error(c.ask("POST", q("SELECT 1")), "upstream_closed", 502).text


def test_the_system_cas_do_not_trust_the_test_ca(ch26, pki, terminator, chmuxd):
    c = chmuxd(terminator(pki.good, ch26.addr).url)
    chmux_error(c.ask("GET", q("SELECT 1")), "upstream_connect", 503)


def test_tls_verify_no_accepts_anything(ch26, pki, terminator, chmuxd):
    c = chmuxd(terminator(pki.expired, ch26.addr).url, upstream__tls_verify="no")
    assert c.sql("SELECT 1") == "1\n"


def test_server_name_overrides_the_host(ch26, pki, terminator, chmuxd):
    t = terminator(pki.wrong_host, ch26.addr)
    c = chmuxd(t.url, upstream__tls_ca_file=pki.ca, upstream__tls_server_name="elsewhere.test")
    assert c.sql("SELECT 1") == "1\n"


def test_the_name_is_sent_as_sni(pki, fake, chmuxd):
    names = []
    ctx = pki.server_context()
    ctx.sni_callback = lambda sock, name, _: names.append(name)
    up = fake(tls=ctx)
    c = chmuxd(f"https://localhost:{up.port}", upstream__tls_ca_file=pki.ca)
    assert c.ask("GET", "/ping").status == 200
    assert names == ["localhost"]


def test_client_certificate(ch26, pki, terminator, chmuxd):
    t = terminator(pki.good, ch26.addr, client_ca=pki.ca)
    c = chmuxd(t.url, upstream__tls_ca_file=pki.ca, upstream__tls_cert_file=pki.cert(pki.client), upstream__tls_key_file=pki.key(pki.client))
    assert c.sql("SELECT 1") == "1\n"


@pytest.mark.parametrize("which", [None, "client_other"])
def test_a_missing_or_unknown_client_certificate_is_an_error(ch26, pki, terminator, chmuxd, which):
    t = terminator(pki.good, ch26.addr, client_ca=pki.ca)
    options = {}
    if which:
        pem = getattr(pki, which)
        options = {"upstream__tls_cert_file": pki.cert(pem), "upstream__tls_key_file": pki.key(pem)}
    c = chmuxd(t.url, upstream__tls_ca_file=pki.ca, **options)
    r = c.ask("GET", q("SELECT 1"))
    assert r.status in (502, 503) and r.header("X-Chmux-Error"), r
    said(c, r, "certificate|alert|tls")


def test_minimum_version(pki, fake, chmuxd):
    up = fake(tls=pki.server_context(max_version=ssl.TLSVersion.TLSv1_2))
    ok = chmuxd(up.url.replace("127.0.0.1", "localhost"), upstream__tls_ca_file=pki.ca)
    assert ok.ask("GET", "/ping").status == 200
    no = chmuxd(up.url.replace("127.0.0.1", "localhost"), upstream__tls_ca_file=pki.ca, upstream__tls_min_version="1.3")
    r = chmux_error(no.ask("GET", "/ping"), "upstream_connect", 503)
    said(no, r, "version|protocol|tls")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions_are_resumed(pki, fake, chmuxd, version):
    """The server closes after every response; from the second connection on the handshake is short."""

    def script(conn):
        conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n")
        conn.wait_eof()

    up = fake(script, tls=pki.server_context(max_version=version))
    c = chmuxd(f"https://localhost:{up.port}", upstream__tls_ca_file=pki.ca)
    for _ in range(6):
        assert c.ask("GET", "/ping").status == 200
    assert up.tls_resumed == 5 and up.tls_full == 1, (up.tls_resumed, up.tls_full)
    assert c.metric(FULL) == 1 and c.metric(RESUMED) == 5
    assert c.metric("chmux_upstream_tls_handshake_seconds_count") == 6
    assert 0 < c.metric("chmux_upstream_tls_handshake_seconds_sum") < c.metric("chmux_upstream_connect_seconds_sum")


def test_100_short_lived_clients_need_at_most_pool_size_full_handshakes(pki, fake, chmuxd):
    up = fake(tls=pki.server_context())
    c = chmuxd(f"https://localhost:{up.port}", upstream__tls_ca_file=pki.ca, upstream__pool_size=8)
    parallel(100, lambda i: ask(c.addr, "GET", "/ping"))
    assert up.peak <= 8 and up.tls_full <= 8 and c.metric(FULL) <= 8


def test_large_bodies_through_tls_are_whole(server, pki, terminator, chmuxd):
    """Both directions, several at once: pending records are drained, renegotiated wants are honoured."""
    c = chmuxd(terminator(pki.good, server.addr).url, upstream__tls_ca_file=pki.ca)
    want = server.sql("SELECT number FROM system.numbers LIMIT 400000").encode()
    server.sql("TRUNCATE TABLE cmp")
    rows = b"".join(b"%d\trow %d\n" % (i, i) for i in range(100000))

    def client(i):
        r = c.ask("POST", "/", (), b"SELECT number FROM system.numbers LIMIT 400000")
        assert r.complete and r.body == want
        r = c.ask("POST", q("INSERT INTO cmp FORMAT TSV"), (), rows, chunked=bool(i % 2))
        assert r.status == 200 and r.complete

    parallel(4, client)
    assert server.sql("SELECT count(), sum(a) FROM cmp") == f"400000\t{4 * sum(range(100000))}\n"
    server.sql("TRUNCATE TABLE cmp")


def test_a_record_with_many_small_chunks_arrives_at_once(pki, fake, chmuxd, gate):
    """More plain bytes in one TLS record than one read takes: nothing may wait in OpenSSL's buffer."""
    g = gate()
    data = b"".join(chunk(b"%d\n" % i) for i in range(1500))[:16000]

    def script(conn):
        conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 16000\r\n\r\n")
        conn.send(data)
        conn.stall(g)

    up = fake(script, tls=pki.server_context())
    c = chmuxd(f"https://localhost:{up.port}", upstream__tls_ca_file=pki.ca)
    with c.client() as k:
        k.send(request("GET", "/?query=SELECT"))
        k.head()
        assert k.take(len(data)) == data
    g.set()


def test_an_until_close_body_cut_without_close_notify_is_no_end(pki, fake, chmuxd):
    """A FIN without TLS's own goodbye may come from anybody on the path."""

    def script(conn):
        conn.request()
        conn.send(b"HTTP/1.1 404 Not Found\r\nConnection: Close\r\n\r\nhalf")
        os.close(conn.sock.detach())  # no unwrap(): closed under TLS

    up = fake(script, tls=pki.server_context())
    c = chmuxd(f"https://localhost:{up.port}", upstream__tls_ca_file=pki.ca)
    with c.client() as k:
        k.send(request("GET", "/x"))
        r = k.response()
    assert not r.complete or r.status == 502, f"truncation looked like the end: {r}"


@pytest.mark.parametrize("after", [3000, 5000, 17000, 60000])
@pytest.mark.parametrize("reset", [False, True])
def test_a_cut_tls_record_ends_short(pki, fake, chmuxd, relay, after, reset):
    def script(conn):
        conn.request()
        conn.send(CHUNKED + b"".join(chunk(b"x" * 9000) for _ in range(20)) + b"0\r\n\r\n")
        conn.wait_eof()

    up = fake(script, tls=pki.server_context())
    between = relay(up.addr, cut_down_after=after, reset=reset)
    c = chmuxd(f"https://localhost:{between.port}", upstream__tls_ca_file=pki.ca)
    r = c.ask("POST", "/?query=INSERT", (), b"x")
    assert not (r.status == 200 and r.complete), r
    assert len(r.body) < 180000
    assert c.metric('chmux_upstream_connections{state="idle"}') == 0


def test_a_cut_in_the_handshake_is_an_error(pki, fake, chmuxd, relay):
    up = fake(tls=pki.server_context())
    between = relay(up.addr, cut_down_after=200)
    c = chmuxd(f"https://localhost:{between.port}", upstream__tls_ca_file=pki.ca)
    chmux_error(c.ask("GET", "/ping"), "upstream_connect", 503)


def test_https_to_a_plain_port_is_told(fake, chmuxd):
    up = fake(lambda conn: conn.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"))
    c = chmuxd(f"https://127.0.0.1:{up.port}")
    r = chmux_error(c.ask("GET", "/ping"), "upstream_connect", 503)
    said(c, r, "not speak TLS|no TLS|plain|http://|wrong.*(scheme|version)")


def test_http_to_a_tls_port_is_told(fake, chmuxd):
    def script(conn):  # what a TLS server sends to garbage: a fatal alert, decode_error
        conn._fill()
        conn.send(b"\x15\x03\x03\x00\x02\x02\x32")

    c = chmuxd(fake(script).url)
    r = c.ask("GET", "/ping")
    assert r.status in (502, 503), r
    said(c, r, "TLS|https")


def test_connections_are_reused_over_tls(ch26, pki, terminator, chmuxd):
    c = chmuxd(terminator(pki.good, ch26.addr).url, upstream__tls_ca_file=pki.ca)
    for i in range(20):
        assert c.sql(f"SELECT {i}") == f"{i}\n"
    assert c.metric(FULL) + c.metric(RESUMED) == 1


def test_throwif_through_tls_ends_short(ch26, pki, terminator, chmuxd):
    c = chmuxd(terminator(pki.good, ch26.addr).url, upstream__tls_ca_file=pki.ca)
    r = c.ask("GET", q("SELECT number, sleepEachRow(0.02), throwIf(number = 6) FROM numbers(10)", max_block_size=1))
    assert r.status == 200 and not r.complete and b"__exception__" in r.body


def test_warm_tls_connections(pki, fake, chmuxd):
    up = fake(tls=pki.server_context())
    c = chmuxd(f"https://localhost:{up.port}", upstream__tls_ca_file=pki.ca, upstream__min_idle=2)
    wait_until(lambda: up.tls_full + up.tls_resumed >= 2, what="warm connections with TLS done")
    assert c.ask("GET", "/ping").status == 200
    assert up.accepted == 2


@pytest.mark.parametrize("option,value", [("tls_ca_file", "/no/such/file"), ("tls_cert_file", "/no/such/file")])
def test_unreadable_tls_files_stop_the_start(option, value):
    args = ["--upstream", "https://localhost:1", "--listen", "127.0.0.1:0", "--set", f"upstream.{option}={value}"]
    if option == "tls_cert_file":
        args += ["--set", f"upstream.tls_key_file={value}"]
    p = run(*args)
    assert p.returncode in (EXIT_START, EXIT_USAGE)
    assert value in p.stderr


def test_a_file_that_is_no_certificate_stops_the_start(tmp_path):
    bad = tmp_path / "bad.pem"
    bad.write_text("this is not PEM\n")
    p = run("--upstream", "https://localhost:1", "--listen", "127.0.0.1:0", "--set", f"upstream.tls_ca_file={bad}")
    assert p.returncode in (EXIT_START, EXIT_USAGE) and str(bad) in p.stderr
