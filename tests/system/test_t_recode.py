"""t: re-encoding, row by row of the table in the manual: whatever the client speaks, the link to the server
carries what was configured, and the client sees the server's own answer in a coding it understands.

A tap between chmux and the server shows what really travelled; the decoded bytes are compared with those
the same server gives straight."""
import gzip

import pytest

import recode
from helpers import chmux_error, parallel, q
from recode import BLOCKS, FORMATS, LINKS, compressed, decode_all, encode, expected_encoding, framed_once, not_visible, target_params
from rig import chblocks, http1
from rig.http1 import request

pytestmark = pytest.mark.san
ROWS = b"".join(b"%d\trow %d\n" % (i, i) for i in range(5000))
SELECT = "SELECT number AS n, toString(number) AS s, number / 3 AS f FROM system.numbers LIMIT 20000"
INSERT = {"query": "INSERT INTO rec FORMAT TSV"}
STORED = "SELECT count(), sum(a), sum(cityHash64(s)) FROM rec"
SIDES = ("plain", "gzip", "deflate", "zstd", "lz4", "br", *BLOCKS)
ACCEPTS = (None, "", "identity", "gzip", "deflate", "br", "zstd", "lz4", "xz", "snappy", "gzip, deflate", "gzip, deflate, br, zstd",
           "*", "zstd;q=0, gzip", "lz4;q=0.1, gzip;q=0.9", "GZip", "bz2, x-gzip")
LARGE = 50_000_000


@pytest.fixture
def rec(server):
    """The table `rec`, empty."""
    return fresh(server)


@pytest.fixture
def rec26(ch26):
    return fresh(ch26)


def fresh(server):
    server.sql("CREATE TABLE IF NOT EXISTS rec (a Int32, s String) ENGINE = Memory")
    server.sql("TRUNCATE TABLE rec")
    return server


def stored_directly(server, rows=ROWS):
    """What the table holds after the rows went in without chmux; it is empty again afterwards."""
    r = http1.ask(server.addr, "POST", q(INSERT["query"]), (), rows)
    assert r.status == 200, r
    out = server.sql(STORED)
    server.sql("TRUNCATE TABLE rec")
    return out


def insert_as(link, side, plain, chunked=False, params=INSERT, headers=(), **kw):
    """An INSERT as a client that speaks `side` sends it: (response, exchange on the link, the bytes sent)."""
    body = encode(side, plain)
    params, headers = dict(params), list(headers)
    if side in BLOCKS:
        params["decompress"] = "1"
    elif side != "plain":
        headers.append(("Content-Encoding", side))
    r, e = link.ask("POST", params, headers, body, chunked=chunked, **kw)
    return r, e, body


def right_request(e, coding, plain, params):
    """What travelled was that coding of these bytes, with one framing, and the caller's parameters only."""
    assert e.head.header("Content-Encoding") == coding, e
    assert sum(n.lower() == "content-encoding" for n, _ in e.head.headers) == (coding is not None), e.head.headers
    assert decode_all(coding, e.body) == plain
    length, te = e.head.header("Content-Length"), e.head.header("Transfer-Encoding")
    assert (length is None) != (te is None), e.head.headers
    names = [n for n, _ in target_params(e.head)]
    assert "decompress" not in names and "compress" not in names, e.head.target
    assert [(n, v) for n, v in target_params(e.head) if n not in ("query_id", "enable_http_compression")] == \
        [(n, v) for n, v in params.items() if n not in ("compress", "decompress")], e.head.target
    assert not e.head.header("X-Chmux-Compression")


# ---- requests
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("codec", LINKS)
def test_an_insert_travels_in_the_links_coding(rec26, link, codec, side, framing):
    want = stored_directly(rec26)
    one = link(rec26, codec)
    r, e, sent = insert_as(one, side, ROWS, framing == "chunked")
    assert r.status == 200 and r.complete and r.body == b"", r
    not_visible(r)
    right_request(e, codec, ROWS, INSERT)
    if side == codec:
        assert e.body == sent, "a body that already had the coding was changed"
    assert len(e.body) < len(ROWS) * 0.7
    assert rec26.sql(STORED) == want


@pytest.mark.parametrize("side", ["xz", "snappy"])
@pytest.mark.parametrize("codec", LINKS)
def test_a_coding_chmux_does_not_know_passes_untouched(rec26, link, codec, side):
    want = stored_directly(rec26)
    r, e, sent = insert_as(link(rec26, codec), side, ROWS)
    assert r.status == 200 and r.complete, r
    assert e.head.header("Content-Encoding") == side and e.body == sent and e.head.header("Content-Length") == str(len(sent))
    assert rec26.sql(STORED) == want


@pytest.mark.parametrize("value", ["identity", "x-gzip", "bz2", "gzip, gzip", "gzip,"])
def test_content_encodings_the_server_refuses_are_refused_by_it(ch26, link, value):
    one = link(ch26)
    sql = b"SELECT 1" + b" " * 3000
    headers = [("Content-Encoding", value)]
    straight = http1.ask(ch26.addr, "POST", "/", headers, sql)
    r, e = one.ask("POST", {}, headers, sql)
    assert (r.status, r.header("X-ClickHouse-Exception-Code")) == (straight.status, straight.header("X-ClickHouse-Exception-Code")), (r, straight)
    assert e.head.header("Content-Encoding") == value and e.body == sql


@pytest.mark.parametrize("side", ["plain", "gzip", "blocks-lz4"])
@pytest.mark.parametrize("fmt", FORMATS)
def test_every_insert_format_arrives_whole(rec26, link, fmt, side):
    want = stored_directly(rec26)
    rows = http1.ask(rec26.addr, "POST", "/", (), f"SELECT toInt32(number) AS a, concat('row ', toString(number)) AS s FROM numbers(5000) FORMAT {fmt}".encode()).body
    params = {"query": f"INSERT INTO rec FORMAT {fmt}"}
    r, e, _ = insert_as(link(rec26), side, rows, params=params)
    assert r.status == 200 and r.complete, r
    right_request(e, "zstd", rows, params)
    assert rec26.sql(STORED) == want


@pytest.mark.parametrize("side", SIDES)
def test_several_frames_are_one_body(rec26, link, side):
    """As curl or a log shipper makes them: members, frames or blocks back to back; br has no such thing."""
    if side in ("plain", "br"):
        parts = [ROWS]
    else:
        parts = [ROWS[:10], ROWS[10:1000], b"", ROWS[1000:]]
    want = stored_directly(rec26)
    body = b"".join(encode(side, p) for p in parts)
    params, headers = dict(INSERT), []
    if side in BLOCKS:
        params["decompress"] = "1"
    elif side != "plain":
        headers.append(("Content-Encoding", side))
    one = link(rec26)
    r, e = one.ask("POST", params, headers, body)
    assert r.status == 200 and r.complete, r
    right_request(e, "zstd", ROWS, INSERT)
    assert rec26.sql(STORED) == want


@pytest.mark.parametrize("side", SIDES)
def test_a_query_in_the_body_runs(ch26, link, side):
    sql = b"SELECT 'in the body', sum(number) FROM numbers(1000) /* " + b"x" * 2000 + b" */"
    headers = [("Content-Encoding", side)] if side not in BLOCKS and side != "plain" else []
    r, e = link(ch26).ask("POST", {"decompress": "1"} if side in BLOCKS else {}, headers, encode(side, sql))
    assert r.status == 200 and r.complete and r.body == b"in the body\t499500\n", r
    right_request(e, "zstd", sql, {})


def test_blocks_of_every_method_in_one_body(rec26, link):
    """26.7 wants one method per body; the link carries none of them, so a mix is fine."""
    want = stored_directly(rec26)
    body = chblocks.encode(ROWS[:7000], chblocks.LZ4) + chblocks.encode(ROWS[7000:9000], chblocks.NONE) + chblocks.encode(ROWS[9000:], chblocks.ZSTD)
    r, e = link(rec26).ask("POST", {**INSERT, "decompress": "1"}, (), body)
    assert r.status == 200 and r.complete, r
    assert rec26.sql(STORED) == want


def test_blocks_inside_gzip(rec26, link):
    """Two codings at once: the outer one is the content coding."""
    want = stored_directly(rec26)
    body = gzip.compress(chblocks.encode(ROWS))
    r, _ = link(rec26).ask("POST", {**INSERT, "decompress": "1"}, [("Content-Encoding", "gzip")], body)
    assert r.status == 200 and r.complete, r
    assert rec26.sql(STORED) == want


@pytest.mark.parametrize("size,coded", [(0, False), (1, False), (1023, False), (1024, True), (1025, True)])
def test_small_bodies_pass_as_they_are(ch26, link, size, coded):
    """compression_min_size, 1k: the caller's Content-Length decides; a chunked body is always coded."""
    one = link(ch26)
    comment = (b"," + b"1" * size)[:size]
    r, e = one.ask("POST", {"query": "SELECT 1"}, (), comment)
    assert r.complete
    straight = http1.ask(ch26.addr, "POST", q("SELECT 1"), (), comment)
    assert (r.status, r.body) == (straight.status, straight.body)
    assert (e.head.header("Content-Encoding") == "zstd") == coded, e
    assert decode_all(e.head.header("Content-Encoding"), e.body) == comment
    if size:
        r, e = one.ask("POST", {"query": "SELECT 1"}, (), comment, chunked=True)
        assert (r.status, r.body) == (straight.status, straight.body)
        right_request(e, "zstd", comment, {"query": "SELECT 1"})


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("side", ["plain", *BLOCKS])
def test_empty_bodies(ch26, link, side, chunked):
    params = {"decompress": "1"} if side in BLOCKS else {}
    straight = http1.ask(ch26.addr, "POST", q("SELECT 5", **params), (), b"", chunked=chunked)
    r, e = link(ch26, upstream__compression_min_size=0).ask("POST", {"query": "SELECT 5", **params}, (), b"", chunked=chunked)
    assert (r.status, r.body, r.complete) == (straight.status, straight.body, True), (r, straight)


@pytest.mark.parametrize("side", ["gzip", "deflate", "zstd", "lz4", "br"])
def test_a_coded_body_of_nothing(ch26, link, side):
    """A valid frame of no bytes; the query is in the URL."""
    body = encode(side, b"")
    straight = http1.ask(ch26.addr, "POST", q("SELECT 5"), [("Content-Encoding", side)], body)
    assert straight.body == b"5\n"
    for codec in LINKS:
        r, e = link(ch26, codec, upstream__compression_min_size=0).ask("POST", {"query": "SELECT 5"}, [("Content-Encoding", side)], body)
        assert r.status == 200 and r.body == b"5\n" and r.complete, r


def test_a_get_stays_a_get(ch26, link):
    """No body, none invented: a GET is read-only for ClickHouse."""
    r, e = link(ch26).ask("GET", {"query": "SELECT 1"})
    assert r.body == b"1\n" and e.head.method == "GET" and e.body == b""
    assert e.head.header("Content-Length") is None and e.head.header("Transfer-Encoding") is None and e.head.header("Content-Encoding") is None
    r, e = link(ch26).ask("GET", {"query": "CREATE TABLE never (a Int8) ENGINE = Memory"})
    assert r.status == 500 and r.header("X-ClickHouse-Exception-Code") == "164", r


# ---- responses
@pytest.mark.parametrize("local", ["identity", "client"])
@pytest.mark.parametrize("codec", LINKS)
def test_a_result_travels_in_the_links_coding(ch26, link, codec, local):
    one = link(ch26, codec, upstream__local_encoding=local)
    plain = one.direct(SELECT)
    for accept in ACCEPTS:
        r, e = one.select(SELECT, accept)
        assert r.status == 200 and r.complete, (accept, r)
        not_visible(r)
        framed_once(r)
        compressed(e, codec, plain.body)
        assert r.header("Content-Encoding") == expected_encoding(accept, codec, local), (accept, r.headers)
        assert decode_all(r.header("Content-Encoding"), r.body) == plain.body, accept
        if r.header("Content-Encoding") == codec:
            assert r.body == e.response.body, f"{accept}: what the client understands was changed on the way"
        for name in ("Content-Type", "X-ClickHouse-Format", "X-ClickHouse-Timezone"):
            assert r.header(name) == plain.header(name), name
        assert r.header("X-ClickHouse-Query-Id") == e.head.query_id and r.header("X-ClickHouse-Summary")


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("codec", LINKS)
def test_every_result_format_arrives_whole(server, link, codec, fmt):
    sql = f"{SELECT} FORMAT {fmt}"
    one = link(server, codec)
    plain = one.direct(sql)
    r, e = one.select(sql)
    assert r.status == 200 and r.complete and r.body == plain.body and r.header("Content-Encoding") is None, r
    compressed(e, codec if server.version == "26.7" else "gzip", plain.body)
    r, e = one.select(sql, params={"compress": "1"})
    assert r.status == 200 and r.complete and chblocks.decode(r.body) == plain.body, r
    compressed(e, codec if server.version == "26.7" else "gzip", plain.body)


@pytest.mark.parametrize("accept", ["gzip;q=1, identity;q=0", "gzip, *;q=0"])
def test_a_client_that_refuses_plain_does_not_get_it(ch26, link, accept):
    one = link(ch26)
    r, e = one.select(SELECT, accept)
    assert r.status == 200 and r.header("Content-Encoding") == "gzip" and r.complete, r
    assert decode_all("gzip", r.body) == one.direct(SELECT).body


@pytest.mark.parametrize("blocks", ["lz4", "none"])
@pytest.mark.parametrize("codec", LINKS)
def test_blocks_are_rebuilt_for_a_client_that_wants_them(ch26, link, codec, blocks):
    one = link(ch26, codec, upstream__local_blocks=blocks)
    for sql in ("SELECT 1", SELECT, "SELECT number FROM numbers(500000) FORMAT RowBinary", "SELECT repeat('x', 1000000), repeat('y', 48576) FORMAT RowBinary"):
        plain = one.direct(sql)
        r, e = one.select(sql, params={"compress": "1"})
        assert r.status == 200 and r.complete and r.header("Content-Encoding") is None, r
        not_visible(r)
        assert chblocks.decode(r.body, verify=len(r.body) < 3_000_000) == plain.body
        assert {b[1] for b in chblocks.split(r.body)} == {chblocks.METHODS[blocks]}
        assert max(b[2] for b in chblocks.split(r.body)) <= 1 << 20, "blocks larger than the server's own"
        assert "compress" not in [n for n, _ in target_params(e.head)], e.head.target
        compressed(e, codec, plain.body)
        for name in ("Content-Type", "X-ClickHouse-Format"):
            assert r.header(name) == plain.header(name)


def test_compress_zero_is_no_wish_for_blocks(ch26, link):
    r, e = link(ch26).select("SELECT 1", params={"compress": "0"})
    assert r.body == b"1\n" and r.complete, r


@pytest.mark.parametrize("accept", ["gzip", "zstd", "br", "lz4"])
def test_compress_with_accept_encoding_is_untouched(ch26, link, accept):
    one = link(ch26)
    r, e = one.select(SELECT, accept, params={"compress": "1"})
    assert r.status == 200 and r.complete and r.body == e.response.body, r
    assert r.header("Content-Encoding") == accept == e.encoding and e.head.header("Accept-Encoding") == accept
    assert ("compress", "1") in target_params(e.head)
    assert chblocks.decode(decode_all(accept, r.body)) == one.direct(SELECT).body


@pytest.mark.parametrize("local", ["identity", "client"])
@pytest.mark.parametrize("accept", [None, "gzip", "zstd"])
@pytest.mark.parametrize("compress", [None, "1"])
def test_empty_results(ch26, link, accept, compress, local):
    """No rows: no body, and no Content-Encoding for it."""
    one = link(ch26, upstream__local_encoding=local)
    params = {"compress": compress} if compress else {}
    headers = [("Accept-Encoding", accept)] if accept else []
    straight = http1.ask(ch26.addr, "POST", q("SELECT 1 WHERE 0", **params), headers, b"")
    r, e = one.select("SELECT 1 WHERE 0", accept, params=params)
    assert (r.status, r.body, r.complete) == (200, straight.body, True) == (200, b"", True), (r, straight)
    assert r.header("Content-Encoding") is None, r.headers
    not_visible(r)


def test_tiny_results(ch26, link):
    for codec in LINKS:
        for accept in (None, "gzip", "zstd"):
            one = link(ch26, codec, upstream__local_encoding="client")
            r, e = one.select("SELECT 1", accept)
            assert r.complete and decode_all(r.header("Content-Encoding"), r.body) == b"1\n", r
            assert r.header("Content-Encoding") == expected_encoding(accept, codec, "client")
            compressed(e, codec, b"1\n")


@pytest.mark.parametrize("accept", [None, "gzip", "zstd, gzip"])
@pytest.mark.parametrize("path", ["/ping", "/", "/nowhere", "/play", "/replicas_status"])
def test_other_paths(server, link, path, accept):
    if server.version != "26.7" and path == "/play":
        pytest.skip("18.16 has no such page")
    headers = [("Accept-Encoding", accept)] if accept else []
    for codec in ("zstd", "gzip"):
        for method in ("GET", "HEAD"):
            straight = http1.ask(server.addr, method, path, headers)
            r = http1.ask(link(server, codec).addr, method, path, headers)
            not_visible(r, straight)
            framed_once(r)
            assert (r.status, r.complete, r.header("Content-Type")) == (straight.status, True, straight.header("Content-Type")), (r, straight)
            assert decode_all(r.header("Content-Encoding") if r.body else None, r.body) == decode_all(straight.header("Content-Encoding") if straight.body else None, straight.body)


@pytest.mark.parametrize("accept", [None, "gzip", "zstd"])
def test_head_of_a_query(server, link, accept):
    headers = [("Accept-Encoding", accept)] if accept else []
    straight = http1.ask(server.addr, "HEAD", q(SELECT), headers)
    one = link(server)
    with one.chmux.client() as k:
        r, e = one.keep(k, "HEAD", {"query": SELECT}, headers)
        assert r.status == straight.status == 200 and r.complete, r
        not_visible(r)
        framed_once(r)
        if not accept:
            assert r.header("Content-Encoding") is None
        if straight.header("Connection", "").lower() != "close":
            k.send(request("GET", q("SELECT 2")))
            assert k.response().body == b"2\n"


# ---- connections
@pytest.mark.parametrize("codec", LINKS)
def test_one_connection_serves_all_kinds_in_turn(server, link, codec):
    """Keep-alive after each: every side of requests and responses on one connection, each followed by a /ping."""
    fresh(server)
    want = stored_directly(server)
    one = link(server, codec, upstream__local_encoding="client")
    plain = one.direct(SELECT).body
    old = server.version != "26.7"
    with one.chmux.client() as k:
        for side in ("plain", "gzip", "deflate", "blocks-lz4") if old else SIDES:
            params = {**INSERT, **({"decompress": "1"} if side in BLOCKS else {})}
            headers = [("Content-Encoding", side)] if side not in BLOCKS and side != "plain" else []
            for chunked in (False, True):
                r, e = one.keep(k, "POST", params, headers, encode(side, ROWS), chunked=chunked)
                assert r.status == 200 and r.complete, (side, r)
                assert server.sql(STORED) == want, side
                server.sql("TRUNCATE TABLE rec")
                k.send(request("GET", "/ping"))
                assert k.response().body == b"Ok.\n", side
        for accept in (None, "gzip", "br", "zstd", "lz4", "deflate"):
            for compress in ({}, {"compress": "1"}) if accept is None else ({},):
                r, e = one.keep(k, "POST", compress, [("Accept-Encoding", accept)] if accept else (), SELECT.encode())
                assert r.status == 200 and r.complete, (accept, r)
                assert (chblocks.decode(r.body) if compress else decode_all(r.header("Content-Encoding"), r.body)) == plain
                k.send(request("GET", "/ping"))
                assert k.response().body == b"Ok.\n", accept


def test_pipelined_requests_are_answered_in_order(rec26, link):
    one = link(rec26, upstream__local_encoding="client")
    want = stored_directly(rec26)
    plain = one.direct(SELECT).body
    insert = request("POST", q(INSERT["query"]), [("Content-Encoding", "gzip")], encode("gzip", ROWS))
    blocks = request("POST", q(INSERT["query"], decompress=1), (), encode("blocks-lz4", ROWS), chunked=True)
    selects = [request("POST", "/", h, SELECT.encode()) for h in ((), [("Accept-Encoding", "gzip")], [("Accept-Encoding", "zstd")])]
    with one.chmux.client() as k:
        k.send(insert + selects[0] + b"".join(selects[1:]) + request("POST", "/", (), b"TRUNCATE TABLE rec") + blocks + request("GET", q(STORED)))
        assert k.response("POST").status == 200
        for coding in (None, "gzip", "zstd"):
            r = k.response("POST")
            assert r.complete and r.header("Content-Encoding") == coding and decode_all(coding, r.body) == plain, r
        assert [k.response("POST").status for _ in range(2)] == [200, 200]
        assert k.response().text == want


@pytest.mark.parametrize("accept", [None, "gzip"])
def test_http_1_0_clients(server, link, accept):
    """No chunks for them: the close is the end."""
    fresh(server)
    want = stored_directly(server)
    one = link(server, upstream__local_encoding="client")
    plain = one.direct(SELECT).body
    r, e = one.select(SELECT, accept, version="HTTP/1.0")
    assert r.status == 200 and r.complete and r.framing in ("close", "length"), r
    assert decode_all(r.header("Content-Encoding"), r.body) == plain and r.header("Content-Encoding") == accept
    assert "chunked" not in (r.header("Transfer-Encoding") or "")
    r, e = one.ask("POST", INSERT, [("Content-Encoding", "gzip")], encode("gzip", ROWS), version="HTTP/1.0")
    assert r.status == 200 and r.complete, r
    assert server.sql(STORED) == want


def test_sessions(server, link):
    one = link(server)
    sid = recode.new_id()
    session = {"session_id": sid}
    r, _ = one.ask("POST", session, (), b"CREATE TEMPORARY TABLE tt (a Int32, s String)")
    assert r.status == 200, r
    for side in ("plain", "gzip", "blocks-lz4"):
        r, _, _ = insert_as(one, side, ROWS, params={"query": "INSERT INTO tt FORMAT TSV", **session})
        assert r.status == 200, r
    r, e = one.ask("POST", {**session, "compress": "1"}, (), b"SELECT count(), sum(a) FROM tt")
    if server.version == "26.7":
        assert chblocks.decode(r.body) == b"15000\t%d\n" % (3 * sum(range(5000))), r
    else:  # it would have to be told enable_http_compression, which a session may refuse; small blocks it loses itself
        assert r.complete and r.body == e.response.body and e.encoding is None, r
        r, _ = one.ask("POST", session, (), b"SELECT count(), sum(a) FROM tt")
        assert r.body == b"15000\t%d\n" % (3 * sum(range(5000))), r
    answers = parallel(8, lambda i: one.chmux.ask("POST", q("SELECT count() FROM tt", session_id=sid, compress=i % 2), (), b""))
    assert all(a.status == 200 and a.complete for a in answers), answers


def test_expect_100_continue(rec26, link):
    want = stored_directly(rec26)
    one = link(rec26)
    with one.chmux.client() as k:
        body = encode("gzip", ROWS)
        k.send(request("POST", q(INSERT["query"]), [("Content-Encoding", "gzip"), ("Expect", "100-continue"), ("Content-Length", str(len(body)))]))
        assert k.line().startswith(b"HTTP/1.1 100") and k.line() == b"\r\n"
        k.send(body)
        assert k.response("POST").status == 200
    assert rec26.sql(STORED) == want


MULTIPART = [("Content-Type", "multipart/form-data; boundary=recode-boundary")]


@pytest.mark.parametrize("codec", LINKS)
def test_multipart_external_data(server, link, codec):
    rows = "".join(f"{i}\n" for i in range(5000))
    body = f'--recode-boundary\r\nContent-Disposition: form-data; name="ext"; filename="e"\r\n\r\n{rows}\r\n--recode-boundary--\r\n'.encode()
    params = {"query": "SELECT sum(id), count() FROM ext", "ext_structure": "id UInt32"}
    for compress in ({}, {"compress": "1"}):
        for chunked in (False, True):
            r, e = link(server, codec).ask("POST", {**params, **compress}, MULTIPART, body, chunked=chunked)
            assert r.status == 200 and r.complete, r
            assert (chblocks.decode(r.body) if compress else r.body) == b"12497500\t5000\n", r


# ---- X-Chmux-Compression
def test_the_header_turns_it_on_for_one_request(rec26, link):
    one = link(rec26, None)
    want = stored_directly(rec26)
    plain = one.direct(SELECT).body
    for codec in LINKS:
        wish = [("X-Chmux-Compression", codec)]
        r, e, _ = insert_as(one, "plain", ROWS, headers=wish)
        assert r.status == 200, r
        right_request(e, codec, ROWS, INSERT)
        assert rec26.sql(STORED) == want
        rec26.sql("TRUNCATE TABLE rec")
        r, e = one.select(SELECT, headers=wish)
        assert r.body == plain and r.complete and r.header("Content-Encoding") is None, r
        compressed(e, codec, plain)
        assert not e.head.header("X-Chmux-Compression")
    r, e = one.select(SELECT)
    assert r.body == plain and e.encoding is None and e.head.header("Accept-Encoding") is None
    r, e, sent = insert_as(one, "gzip", ROWS)
    assert r.status == 200 and e.body == sent and e.head.header("Content-Encoding") == "gzip"


def test_the_header_turns_it_off_for_one_request(rec26, link):
    one = link(rec26)
    off = [("X-Chmux-Compression", "off")]
    for side in ("plain", "gzip", "xz"):
        r, e, sent = insert_as(one, side, ROWS, headers=off)
        assert r.status == 200 and e.body == sent, r
        assert e.head.header("Content-Encoding") == (None if side == "plain" else side) and not e.head.header("X-Chmux-Compression")
    for accept in (None, "gzip", "br, gzip"):
        r, e = one.select(SELECT, accept, headers=off)
        assert r.complete and r.body == e.response.body and e.head.header("Accept-Encoding") == accept, r
    r, e = one.select(SELECT, headers=off, params={"compress": "1"})
    assert r.body == e.response.body and ("compress", "1") in target_params(e.head), r


@pytest.mark.parametrize("value,request_coding,response_coding", [
    ("request=zstd, response=off", "zstd", None), ("response=lz4", None, "lz4"), ("request=gzip", "gzip", None),
    ("response=gzip,request=lz4", "lz4", "gzip"), ("request=off, response=off", None, None)])
def test_the_header_names_directions(rec26, link, value, request_coding, response_coding):
    one = link(rec26, None)
    wish = [("X-Chmux-Compression", value)]
    r, e, _ = insert_as(one, "plain", ROWS, headers=wish)
    assert r.status == 200, r
    right_request(e, request_coding, ROWS, INSERT)
    r, e = one.select(SELECT, headers=wish)
    assert r.complete and r.body == one.direct(SELECT).body and e.encoding == response_coding, (r, e)


@pytest.mark.parametrize("value", ["", "zstd1", "br", "on", "request=", "request=zstd, request=zstd", "request=zstd, reply=off", "zstd, off", "request=deflate"])
def test_a_bad_header_is_refused(ch26, link, value):
    one = link(ch26)
    with one.chmux.client() as k:
        k.send(request("POST", "/", [("X-Chmux-Compression", value)], b"SELECT 1"))
        chmux_error(k.response("POST"), "bad_request", 400)
    assert not [e for e in one.tap.exchanges() if e.body and b"SELECT 1" in e.body and "query_id" in e.head.target and e.head.header("X-Chmux-Compression")]


# ---- what must stay hidden
def test_no_setting_of_chmux_is_visible(ch26, link):
    sql = "SELECT name, value FROM system.settings WHERE changed ORDER BY name"
    for codec in LINKS:
        one = link(ch26, codec)
        plain = one.direct(sql)
        for params in ({}, {"compress": "1"}):
            r, e = one.ask("POST", params, (), sql.encode())
            text = chblocks.decode(r.body) if params else r.body
            assert b"enable_http_compression" not in text, text
            assert text == plain.body


def test_the_callers_own_setting_stands(ch26, link):
    """enable_http_compression=0 in the URL is the caller's will."""
    one = link(ch26)
    r, e = one.select(SELECT, "gzip", params={"enable_http_compression": "0"})
    assert r.body == one.direct(SELECT).body and r.header("Content-Encoding") is None and r.complete, r
    assert [v for n, v in target_params(e.head) if n == "enable_http_compression"] == ["0"], e.head.target
    assert e.encoding is None


def test_settings_and_parameters_pass(ch26, link):
    params = {"max_threads": "3", "param_x": "a b&c", "wait_end_of_query": "1"}
    r, e = link(ch26).ask("POST", {**params, "compress": "1"}, (), b"SELECT getSetting('max_threads'), {x:String}")
    assert chblocks.decode(r.body) == b"3\ta b&c\n", r
    assert [p for p in target_params(e.head) if p[0] not in ("query_id", "enable_http_compression")] == list(params.items())


# ---- large ones
@pytest.mark.parametrize("codec", LINKS)
def test_a_large_insert(rec26, link, codec):
    rows = b"".join(b"%d\tthe same text in many rows\n" % i for i in range(LARGE // 34))
    want = stored_directly(rec26, rows)
    for side in ("plain", "gzip", "zstd", "blocks-zstd") if codec == "zstd" else ("plain",):
        one = link(rec26, codec)
        r, e, _ = insert_as(one, side, rows, side == "gzip")
        assert r.status == 200 and r.complete, r
        right_request(e, codec, rows, INSERT)
        assert rec26.sql(STORED) == want
        rec26.sql("TRUNCATE TABLE rec")


@pytest.mark.parametrize("codec", LINKS)
def test_a_large_result(ch26, link, codec):
    sql = f"SELECT number, 'the same text in many rows' FROM numbers({LARGE // 34}) FORMAT JSONEachRow"
    for accept, compress in ((None, {}), ("gzip", {}), (None, {"compress": "1"})) if codec == "zstd" else ((None, {}),):
        one = link(ch26, codec, upstream__local_encoding="client")
        plain = one.direct(sql)
        r, e = one.select(sql, accept, params=compress)
        assert r.status == 200 and r.complete, r
        got = chblocks.decode(r.body, verify=False) if compress else decode_all(r.header("Content-Encoding"), r.body)
        assert got == plain.body and len(got) > LARGE
        compressed(e, codec, got)


# ---- threads
@pytest.mark.parametrize("workers", [0, 1, 4])
def test_any_number_of_workers(rec26, link, workers):
    """Many at once, of every kind, through few threads or none."""
    want = stored_directly(rec26)
    one = link(rec26, chmux__workers=workers, chmux__inline_limit=0, upstream__local_encoding="client")
    plain = one.direct("SELECT number, 'x' FROM numbers(300000)").body

    def client(i):
        side = SIDES[i % len(SIDES)]
        r, e, _ = insert_as(one, side, ROWS, bool(i % 2))
        assert r.status == 200 and r.complete, (side, r)
        right_request(e, "zstd", ROWS, INSERT)
        accept = (None, "gzip", "br", "zstd", "lz4")[i % 5]
        r, e = one.select("SELECT number, 'x' FROM numbers(300000)", accept)
        assert r.complete and decode_all(r.header("Content-Encoding"), r.body) == plain, (accept, r)

    parallel(16, client)
    count, total, _ = rec26.sql(STORED).split("\t")
    assert (int(count), int(total)) == (16 * int(want.split("\t")[0]), 16 * int(want.split("\t")[1]))
    m = one.chmux.metrics()
    assert m["chmux_exchanges"] == 0 and m['chmux_recoded_total{direction="request"}'] > 0 and m['chmux_recoded_total{direction="response"}'] > 0


def test_the_metrics_tell_what_was_saved(rec26, chmuxd):
    c = chmuxd(rec26.url, upstream__request_compression="zstd", upstream__response_compression="zstd")
    r = http1.ask(c.addr, "POST", q(INSERT["query"]), (), ROWS)
    assert r.status == 200, r
    plain = http1.ask(c.addr, "POST", "/", (), SELECT.encode()).body
    m = c.metrics()
    assert m['chmux_recoded_total{direction="request"}'] == 1 and m['chmux_recoded_total{direction="response"}'] >= 1
    assert m['chmux_link_bytes_total{direction="request",form="local"}'] == len(ROWS)
    assert m['chmux_link_bytes_total{direction="response",form="local"}'] >= len(plain)
    for direction in ("request", "response"):
        link, local = (m[f'chmux_link_bytes_total{{direction="{direction}",form="{f}"}}'] for f in ("link", "local"))
        assert 0 < link < local / 2
        assert abs(m[f'chmux_link_permille{{direction="{direction}"}}'] - 1000 * link / local) <= 1
