"""t: re-encoding and what goes wrong: exceptions inside results, streams that the server cuts or breaks, and
bodies that a client cuts or breaks. A client sees a whole response if and only if the server's was whole
(P3), and the server gets a whole request if and only if the client's was."""
import json
import os
import re
import zlib

import pytest

import recode
from helpers import CHUNKED, chmux_error, chunk, q
from recode import BLOCKS, LINKS, decode_all, decode_what_came, encode
from rig import chblocks, http1
from rig.http1 import chunk_body, request
from rig.wait import wait_until

pytestmark = pytest.mark.san
MIB = 1 << 20
ROWS = b"".join(b"%d\t%s\n" % (i, zlib.crc32(b"%d" % i).to_bytes(4, "big").hex().encode()) for i in range(5000))
MANY = b"".join(b"%d\t%s\n" % (i, os.urandom(20).hex().encode()) for i in range(100000))
INSERT = {"query": "INSERT INTO rec FORMAT TSV"}
STORED = "SELECT count() FROM rec"
SIDES = ("gzip", "deflate", "zstd", "lz4", "br", *BLOCKS)
NAMES = {side: "blocks" if side in BLOCKS else side for side in SIDES}  # as the error text says it


# ---- exceptions inside a result
THROWS = {
    # over 1 MiB compressed comes first, so ClickHouse has answered 200 by then
    "late": ("SELECT hex(sipHash128(number)), throwIf(number = 400000, 'boom') FROM numbers(500000)", {"max_threads": "1"}),
    # a few rows: the exception may still become a status, as it does without chmux
    "small": ("SELECT number, sleepEachRow(0.01), throwIf(number = 6, 'boom') FROM numbers(10)", {"max_block_size": "1"}),
}
WANTS = {"plain": (None, {}), "gzip": ("gzip", {}), "br": ("br", {}), "zstd": ("zstd", {}), "blocks": (None, {"compress": "1"})}


def exception_text(plain, tag):
    """The message of the exception block at the very end of a result."""
    m = re.search(rb"\r\n__exception__\r\n%s\r\n(.*\n)(\d+) %s\r\n__exception__\r\n$" % (tag, tag), plain, re.S)
    assert m, plain[-600:]
    assert int(m.group(2)) == len(m.group(1)), plain[-600:]
    return m.group(1), plain[: m.start()]


@pytest.mark.parametrize("name", THROWS)
@pytest.mark.parametrize("want", WANTS)
@pytest.mark.parametrize("codec", LINKS)
def test_an_exception_arrives_inside_the_new_encoding(ch26, link, codec, want, name):
    sql, params = THROWS[name]
    accept, compress = WANTS[want]
    one = link(ch26, codec, upstream__local_encoding="client")
    with one.chmux.client() as k:
        r, e = one.keep(k, "POST", {**params, **compress}, [("Accept-Encoding", accept)] if accept else (), sql.encode())
        coding = r.header("Content-Encoding")
        if r.status == 200:
            assert r.ended in ("short", "reset") and r.framing == "chunked", r
            assert coding == accept and e.encoding == codec
            plain = chblocks.decode(r.body, verify=False) if compress else decode_what_came(coding, r.body)
            text, rows = exception_text(plain, r.header("X-ClickHouse-Exception-Tag").encode())
            assert text.startswith(b"Code: 395.") and b"boom" in text
            assert rows == recode.decode_what_came(e.encoding, e.response.body)[: len(rows)]
            # the new stream is ended as properly as ClickHouse ended its own
            assert compress or len(decode_all(coding, r.body)) == len(plain)
            assert k.at_eof()
        else:
            assert name == "small" and r.status == 500 and r.complete, r
            assert r.header("X-ClickHouse-Exception-Code") == "395"
            plain = decode_what_came(coding, r.body) if not compress else chblocks.decode(r.body) if e.encoding else r.body
            assert b"Code: 395." in plain and b"boom" in plain, plain
    assert one.chmux.sql("SELECT 1") == "1\n"


@pytest.mark.parametrize("want", WANTS)
@pytest.mark.parametrize("sql,code", [("SELECT nope", "47"), ("SELECT * FROM nope.nope", "81"), ("SELEKT 1 FROM", "62"), ("SELECT throwIf(1)", "395")])
def test_errors_before_the_first_byte(ch26, link, want, sql, code):
    accept, compress = WANTS[want]
    headers = [("Accept-Encoding", accept)] if accept else []
    straight = http1.ask(ch26.addr, "POST", "/?" + "&".join(f"{k}={v}" for k, v in compress.items()), headers, sql.encode())
    for local in ("identity", "client"):
        one = link(ch26, upstream__local_encoding=local)
        with one.chmux.client() as k:
            r, e = one.keep(k, "POST", compress, headers, sql.encode())
            assert (r.status, r.header("X-ClickHouse-Exception-Code"), r.complete) == (straight.status, code, True), (r, straight)
            plain = chblocks.decode(r.body) if compress else decode_all(r.header("Content-Encoding"), r.body)
            same = chblocks.decode(straight.body) if compress else decode_all(straight.header("Content-Encoding"), straight.body)
            assert plain == same and plain.startswith(b"Code: " + code.encode()), (plain, same)
            k.send(request("GET", "/ping"))
            assert k.response().body == b"Ok.\n"


def test_an_exception_for_a_http_1_0_client(ch26, link):
    """There the end tells nothing, with or without chmux: the text must be there."""
    sql, params = THROWS["late"]
    for accept in (None, "gzip"):
        r, _ = link(ch26, upstream__local_encoding="client").select(sql, accept, params=params, version="HTTP/1.0")
        assert r.status == 200 and r.framing == "close", r
        plain = decode_what_came(r.header("Content-Encoding"), r.body)
        assert b"boom" in exception_text(plain, r.header("X-ClickHouse-Exception-Tag").encode())[0]


def test_an_exception_written_in_the_format_is_a_whole_response(ch26, link):
    sql = "SELECT hex(sipHash128(number)) AS h, throwIf(number = 200000, 'boom') FROM numbers(250000) FORMAT JSONEachRow"
    for accept, compress in WANTS.values():
        r, _ = link(ch26, upstream__local_encoding="client").select(sql, accept, params={"max_threads": "1", "http_write_exception_in_output_format": "1", **compress})
        assert r.status == 200 and r.complete, r
        plain = chblocks.decode(r.body, verify=False) if compress else decode_all(r.header("Content-Encoding"), r.body)
        assert plain.rstrip().splitlines()[-1].startswith(b'{"exception": "Code: 395.'), plain[-300:]


def test_an_exception_of_18_16(ch18, link):
    """It appends the text and ends the response as if nothing were wrong: so does chmux."""
    sql = "SELECT number, throwIf(number = 2500000) FROM system.numbers LIMIT 3000000"
    for accept, compress in ((None, {}), ("gzip", {}), (None, {"compress": "1"})):
        r, e = link(ch18, upstream__local_encoding="client").select(sql, accept, params=compress)
        assert r.status == 200 and r.complete and e.response.complete, r
        plain = chblocks.decode(r.body, verify=False) if compress else decode_all(r.header("Content-Encoding"), r.body)
        assert b"DB::Exception" in plain[-500:] and plain.startswith(b"0\t0\n1\t0\n")


# ---- results the server breaks: a fake upstream
def serve(coding, parts, framing, end, after=None):
    """A script: answers the request recode-* by a body in `coding`, sent as parts; after each part it stalls at the
    gate of that number in `after`. framing: length, chunked, close. end: whole (the framing's own end), cut."""

    def script(conn):
        while (h := recode.mine(conn)) is not None:
            if conn.body(h) is None:
                return
            total = sum(map(len, parts))
            head = b"HTTP/1.1 200 OK\r\nContent-Type: text/tab-separated-values; charset=UTF-8\r\nConnection: Keep-Alive\r\n"
            head += b"Content-Encoding: %s\r\n" % coding.encode() if coding else b""
            if framing == "length":
                head += b"Content-Length: %d\r\n\r\n" % (total + (10 if end == "cut" else 0))
            else:
                head += b"Transfer-Encoding: chunked\r\n\r\n"
            out = [chunk(p) for p in parts] if framing == "chunked" else list(parts)
            out[0] = head + out[0]
            if framing == "chunked" and end == "whole":
                out[-1] += b"0\r\n\r\n"
            for i, part in enumerate(out):
                conn.send(part)
                if after and i in after:
                    conn.stall(after[i])
            if end == "cut":
                return

    return script


def broken(kind, coding, plain):
    body = encode(coding, plain)
    at = len(body) // 2
    return {
        "cut": body[:at],
        "cut-by-3": body[:-3],
        "garbage": b"<html>this is what some gateway thinks of you</html>",
        "flipped": body[:at] + bytes([body[at] ^ 0x55]) + body[at + 1 :],
        "checksum": body[:-5] + bytes([body[-5] ^ 0xFF]) + body[-4:] if coding == "gzip" else body[:-1] + bytes([body[-1] ^ 0xFF]),
        "rubbish-behind": body + b"rubbish behind the end",
    }[kind]


BREAKS = ("cut", "cut-by-3", "garbage", "flipped", "checksum", "rubbish-behind")
LOCAL = {"plain": (None, {}), "gzip": ("gzip", {}), "br": ("br", {}), "blocks": (None, {"compress": "1"})}


def ask_fake(c, want, **kw):
    accept, compress = LOCAL[want]
    params = "&".join(f"{k}={v}" for k, v in {**compress, "query_id": recode.new_id()}.items())
    k = c.client()
    k.send(request("GET", f"/?query=SELECT+1&{params}", [("Accept-Encoding", accept)] if accept else (), **kw))
    return k


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("kind", BREAKS)
@pytest.mark.parametrize("codec", LINKS)
def test_a_small_broken_result_is_an_error(chmuxd, fake, codec, kind, framing):
    """Nothing of it has gone to the client yet: a 502, and the connection to the server is not used again."""
    up = fake(serve(codec, [broken(kind, codec, ROWS[:3000])], framing, "whole"), deadline=60)
    c = chmuxd(up.url, upstream__response_compression=codec)
    for want in ("plain", "blocks"):
        with ask_fake(c, want) as k:
            r = k.response()
        if r.status == 200:
            assert not r.complete, f"{kind}: a broken result looks whole: {r}"
            assert r.body and kind != "garbage", f"not a byte of it was delivered, and yet a 200: {r}"
        else:
            chmux_error(r, "bad_encoding", 502)
            assert codec in r.text and re.search(r"\d", r.text.partition("chmux:")[2]), r.text
    assert c.metric('chmux_codec_errors_total{side="upstream"}') == 2


def test_the_response_behind_a_broken_stream_is_whole(chmuxd, fake):
    """HTTP framing alone decides where the next response begins, so a connection outlives a broken body on it; the
    next client gets nothing of it."""
    good = encode("zstd", ROWS)
    bodies = iter([good[:-3], good, good[:-3], good])

    def script(conn):
        while (h := recode.mine(conn)) is not None:
            conn.body(h)
            conn.send(CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Encoding: zstd\r\n\r\n") + chunk_body(next(bodies), 65536))

    up = fake(script)
    c = chmuxd(up.url, upstream__response_compression="zstd", upstream__pool_size=1)
    for whole in (False, True, False, True):
        with ask_fake(c, "plain") as k:
            r = k.response()
        assert (r.status == 200 and r.complete and r.body == ROWS) if whole else not r.complete or r.status == 502, r
    assert c.metric('chmux_codec_errors_total{side="upstream"}') == 2


# gzip over a gzip link is passed through: there the client is the judge.
DECODED = [(codec, want) for codec in LINKS for want in LOCAL if codec != want]


@pytest.mark.parametrize("end", ["whole", "cut"])
@pytest.mark.parametrize("codec,want", DECODED)
def test_a_result_cut_after_some_bytes_ends_short(chmuxd, fake, gate, codec, want, end):
    """The client has its first rows; then the server's stream ends inside a frame, with the framing's proper end or
    without: what came arrives, and the response is not complete."""
    g = gate()
    body = encode(codec, MANY)
    up = fake(serve(codec, [body[: len(body) // 2], body[len(body) // 2 : -1000]], "chunked", end, {0: g}), deadline=60)
    c = chmuxd(up.url, upstream__response_compression=codec, upstream__local_encoding="client")
    with ask_fake(c, want) as k:
        head = k.head()
        while len(k.buf) < 100:
            k.fill()
        g.set()
        assert head.status == 200
        r = http1.Response()
        r.headers = head.headers
        try:
            k._chunked(r, 0)
        except http1.Closed:
            r.ended = "short"
    assert r.ended == "short", r
    if want == "blocks":
        whole = r.body[: sum(16 + len(b[3]) for b in whole_blocks(r.body))]
        plain = chblocks.decode(whole, verify=False)
    else:
        plain = decode_what_came(r.header("Content-Encoding"), r.body)
    assert len(plain) > len(MANY) // 4 and MANY.startswith(plain), (len(plain), plain[-100:])
    assert c.metric('chmux_codec_errors_total{side="upstream"}') == (end == "whole")


def whole_blocks(body):
    """The blocks of a body that may be cut in its last one."""
    at = 0
    while len(body) - at >= 25 and at + 16 + int.from_bytes(body[at + 17 : at + 21], "little") <= len(body):
        size = int.from_bytes(body[at + 17 : at + 21], "little")
        yield (None, None, None, body[at + 16 : at + 16 + size])
        at += 16 + size


@pytest.mark.parametrize("kind", ["flipped", "checksum"])
@pytest.mark.parametrize("codec", LINKS)
def test_a_large_broken_result_is_never_complete(chmuxd, fake, codec, kind):
    c = chmuxd(fake(serve(codec, [broken(kind, codec, MANY)], "chunked", "whole")).url,
               upstream__response_compression=codec, upstream__local_encoding="client")
    wants = [want for other, want in DECODED if other == codec]
    for want in wants:
        with ask_fake(c, want) as k:
            r = k.response()
        assert (r.status == 200 and r.ended in ("short", "reset")) or (r.status == 502 and r.complete), r
    assert c.metric('chmux_codec_errors_total{side="upstream"}') == len(wants)


def test_a_broken_result_for_a_http_1_0_client_is_a_reset(chmuxd, fake):
    """Its only end is the close: a broken one must not look like it."""
    c = chmuxd(fake(serve("zstd", [broken("flipped", "zstd", MANY)], "chunked", "whole")).url, upstream__response_compression="zstd")
    with ask_fake(c, "plain", version="HTTP/1.0") as k:
        r = k.response()
    assert r.status == 502 or r.ended == "reset", r


def test_a_result_in_another_coding_than_asked_for(chmuxd, fake):
    """A gateway that compresses on its own: chmux decodes what it knows, and passes what the client accepts."""
    for coding in ("gzip", "zstd", "lz4", "br", "deflate"):
        c = chmuxd(fake(serve(coding, [encode(coding, ROWS)], "chunked", "whole")).url, upstream__response_compression="zstd")
        with ask_fake(c, "plain") as k:
            r = k.response()
        assert r.status == 200 and r.complete and r.header("Content-Encoding") is None and r.body == ROWS, r


def test_a_result_in_an_unknown_coding_passes(chmuxd, fake):
    c = chmuxd(fake(serve("xz", [encode("xz", ROWS)], "length", "whole")).url, upstream__response_compression="zstd")
    with ask_fake(c, "plain") as k:
        r = k.response()
    assert r.status == 200 and r.complete and r.header("Content-Encoding") == "xz" and r.body == encode("xz", ROWS), r


def test_several_frames_are_one_result(chmuxd, fake):
    for codec in LINKS:
        body = encode(codec, ROWS[:100]) + encode(codec, b"") + encode(codec, ROWS[100:])
        c = chmuxd(fake(serve(codec, [body], "chunked", "whole")).url, upstream__response_compression=codec, upstream__local_encoding="client")
        for want, (accept, compress) in LOCAL.items():
            if accept == codec:
                continue
            with ask_fake(c, want) as k:
                r = k.response()
            assert r.status == 200 and r.complete, r
            assert (chblocks.decode(r.body) if compress else decode_all(r.header("Content-Encoding"), r.body)) == ROWS


# ---- bodies the client breaks
def damaged(side, plain):
    """(what, body) of every way to break it that must be noticed."""
    body = encode(side, plain)
    n = len(body)
    yield "only its first byte", body[:1]
    yield "cut in its header", body[:5]
    yield "cut at a third", body[: n // 3]
    yield "cut by 3 bytes", body[:-3]
    yield "cut by 1 byte", body[:-1]
    yield "garbage", b"\xff\xfe this is nothing of the kind " * 10
    yield "garbage behind the end", body + b"\0garbage behind the end"
    if side != "br":  # has no checksum
        yield "a byte flipped", body[: n // 2] + bytes([body[n // 2] ^ 0x20]) + body[n // 2 + 1 :]
        yield "a byte of the last ten flipped", body[:-3] + bytes([body[-3] ^ 0x01]) + body[-2:]


def post_damaged(addr, side, body, chunked, params=INSERT):
    """(response, is the connection closed after it, query_id)."""
    params = {**params, "query_id": recode.new_id(), **({"decompress": "1"} if side in BLOCKS else {})}
    headers = [("Content-Encoding", side)] if side not in BLOCKS else []
    with http1.RawClient(addr) as k:
        try:
            k.send(request("POST", q(params.pop("query"), **params), headers, body, chunked=chunked))
        except (BrokenPipeError, ConnectionResetError):
            pass  # answered early
        r = k.response("POST")
        if (r.header("Connection") or "").lower() == "close":
            assert k.at_eof()
        elif r.complete:
            k.send(request("GET", "/ping"))
            assert k.response().body == b"Ok.\n", "the connection was kept but is not usable"
    return r, params["query_id"]


def told(r, side, size):
    """The error names the codec, a reason, and an offset inside the body."""
    chmux_error(r, "bad_encoding", 400)
    text = r.text.partition("chmux: ")[2]
    assert NAMES[side] in text, text
    numbers = [int(n) for n in re.findall(r"\b\d+\b", text)]
    assert numbers and any(n <= size for n in numbers), text


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("codec", LINKS)
def test_a_broken_body_is_a_400_and_no_row_is_stored(ch26, link, codec, side, chunked):
    ch26.sql("CREATE TABLE IF NOT EXISTS rec (a Int32, s String) ENGINE = Memory")
    ch26.sql("TRUNCATE TABLE rec")
    one = link(ch26, codec, upstream__compression_min_size=0)
    for what, body in damaged(side, ROWS):
        r, query_id = post_damaged(one.addr, side, body, chunked)
        assert r.status == 400, (what, r)
        told(r, side, len(body))
        assert ch26.sql(STORED) == "0\n", what
        assert not [e for e in one.tap.exchanges() if e.head.query_id == query_id and e.body is not None], f"{what}: the server got a whole request"
    assert one.chmux.sql("SELECT 1") == "1\n"


@pytest.mark.parametrize("side", SIDES)
def test_a_body_broken_far_inside(ch26, link, side):
    """Megabytes of it are with the server when it is found out: the request is aborted, not completed."""
    ch26.sql("CREATE TABLE IF NOT EXISTS rec (a Int32, s String) ENGINE = Memory")
    ch26.sql("TRUNCATE TABLE rec")
    one = link(ch26)
    plain = MANY[: 2 * MIB] if side in BLOCKS else MANY  # the hash is slow here
    body = encode(side, plain)
    cuts = {"cut": body[:-7]}
    if side != "br":
        at = len(body) - 1000
        cuts["flipped"] = body[:at] + bytes([body[at] ^ 0x10]) + body[at + 1 :]
    for what, data in cuts.items():
        r, query_id = post_damaged(one.addr, side, data, True)
        told(r, side, len(data))
        assert r.header("Connection", "").lower() == "close" or r.complete
        assert not [e for e in one.tap.exchanges() if e.head.query_id == query_id and e.body is not None], what
        wait_until(lambda: query_id not in ch26.queries(), what="the INSERT to end on the server")
        assert ch26.sql(STORED) == "0\n", what


@pytest.mark.parametrize("codec", LINKS)
@pytest.mark.parametrize("side", SIDES)
def test_the_server_never_sees_the_end_of_a_broken_body(chmuxd, fake, side, codec):
    """No final chunk, no full Content-Length: the fake upstream says what it got."""
    seen = []

    def script(conn):
        while (h := recode.mine(conn)) is not None:
            seen.append((h.query_id, conn.body(h) is not None))
            if not seen[-1][1]:
                return
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: Keep-Alive\r\n\r\n")

    c = chmuxd(fake(script).url, upstream__request_compression=codec, upstream__compression_min_size=0)
    for what, body in damaged(side, ROWS):
        for chunked in (False, True):
            r, query_id = post_damaged_once(c.addr, side, body, chunked)
            told(r, side, len(body))
            wait_until(lambda: c.metric("chmux_exchanges") == 0)
            assert not [i for i, whole in seen if i == query_id and whole], what
    r, query_id = post_damaged_once(c.addr, side, encode(side, ROWS), False)
    assert r.status == 200 and r.complete and (query_id, True) in seen, r


def post_damaged_once(addr, side, body, chunked):
    params = {"query_id": recode.new_id(), **({"decompress": "1"} if side in BLOCKS else {})}
    headers = [("Content-Encoding", side)] if side not in BLOCKS else []
    return http1.ask(addr, "POST", q("INSERT INTO t FORMAT TSV", **params), headers, body, chunked=chunked), params["query_id"]


def test_a_cut_zstd_body_is_refused_although_clickhouse_takes_it(ch26, link):
    """The very same request, straight: 26.7 answers 200."""
    sql = b"SELECT 41 + 1" + b" " * 3000
    body = encode("zstd", sql)[:-3]
    headers = [("Content-Encoding", "zstd")]
    assert http1.ask(ch26.addr, "POST", "/", headers, body).body == b"42\n"
    for codec in LINKS:
        r, _ = post_damaged(link(ch26, codec, upstream__compression_min_size=0).addr, "zstd", body, False, {"query": ""})
        told(r, "zstd", len(body))


def test_with_coding_off_the_server_judges(ch26, link):
    """Off: not our business, byte for byte."""
    body = encode("zstd", b"SELECT 41 + 1")[:-3]
    r = http1.ask(link(ch26, None).addr, "POST", "/", [("Content-Encoding", "zstd")], body)
    assert r.status == 200 and r.body == b"42\n", r


def test_a_client_that_leaves_in_the_middle_of_a_body(ch26, link):
    """Inside a frame, and behind one: the server must not take what came for the whole."""
    ch26.sql("CREATE TABLE IF NOT EXISTS rec (a Int32, s String) ENGINE = Memory")
    ch26.sql("TRUNCATE TABLE rec")
    one = link(ch26)
    for side in ("plain", "gzip", "zstd", "blocks-lz4"):
        for body in (encode(side, ROWS), encode(side, ROWS)[:-2]):
            query_id = recode.new_id()
            params = {"query_id": query_id, **({"decompress": "1"} if side in BLOCKS else {})}
            headers = [("Transfer-Encoding", "chunked"), *([("Content-Encoding", side)] if side in ("gzip", "zstd") else [])]
            k = one.chmux.client()
            k.send(request("POST", q(INSERT["query"], **params), headers) + chunk_body(body, 65536)[: -len(b"0\r\n\r\n")])
            one.tap.find(query_id)
            k.close()
            wait_until(lambda: one.chmux.metric("chmux_exchanges") == 0)
            assert one.tap.find(query_id).body is None
            assert ch26.sql(STORED) == "0\n", side


@pytest.mark.parametrize("coding", [None, "zstd"])
@pytest.mark.parametrize("early", ["gzip", "zstd", "br, gzip"])
def test_an_interim_head_says_nothing_about_the_answer(chmuxd, fake, early, coding):
    """A Content-Encoding in a 103 is that of the 103."""
    body = encode(coding or "plain", b"the answer\n" * 50)

    def script(conn):
        while (h := recode.mine(conn)) is not None and conn.body(h) is not None:
            conn.send(b"HTTP/1.1 103 Early Hints\r\nContent-Encoding: %s\r\n\r\n" % early.encode())
            conn.send(b"HTTP/1.1 200 OK\r\nConnection: Keep-Alive\r\n%sContent-Length: %d\r\n\r\n%s" % (
                b"Content-Encoding: %s\r\n" % coding.encode() if coding else b"", len(body), body))

    c = chmuxd(fake(script).url, upstream__response_compression="zstd")
    for _ in range(2):
        r = c.ask("GET", q("SELECT 1", query_id=recode.new_id()))
        assert r.status == 200 and r.complete and r.interim == ["HTTP/1.1 103 Early Hints"], r
        assert r.header("Content-Encoding") is None and r.body == b"the answer\n" * 50, r


def test_codec_errors_are_counted_and_logged_once(chmuxd, fake):
    c = chmuxd(fake(recode.serve_ok).url, upstream__request_compression="zstd", upstream__compression_min_size=0)
    body = encode("gzip", ROWS)
    r, query_id = post_damaged_once(c.addr, "gzip", body[:-3], False)
    told(r, "gzip", len(body))
    assert c.metric('chmux_codec_errors_total{side="client"}') == 1
    assert c.metric('chmux_refused_total{reason="bad_encoding"}') == 1
    wait_until(lambda: query_id in c.stderr, what="the log line")
    lines = [line for line in c.stderr_lines if query_id in line and "gzip" in line]
    assert len(lines) == 1 and "request" in lines[0] and re.search(r"(byte|offset|at)[_a-z]*=\d+", lines[0]), lines


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_query_id_cannot_forge_what_is_logged_of_a_codec_error(chmuxd, fake, log_format):
    """A quote or a line end in it adds neither a field nor a line."""
    c = chmuxd(fake(recode.serve_ok).url, upstream__request_compression="zstd", log__format=log_format)
    query_id = f'{recode.new_id()} "\nerror why="forged" \\'
    r = c.ask("POST", q("INSERT INTO t FORMAT TSV", query_id=query_id, decompress="1"), (), b"x" * 3000)
    chmux_error(r, "bad_encoding", 400)
    wait_until(lambda: "codec_error" in c.stderr, what="the log line")
    line = next(line for line in c.stderr_lines if "codec_error" in line)
    if log_format == "json":
        fields = json.loads(line)
        assert fields["event"] == "codec_error" and fields["query_id"] == query_id and fields["why"] != "forged", line
    else:
        names = re.findall(r'(\w+)=(?:"(?:[^"\\]|\\.)*"|\S+)', line)
        assert names == ["id", "direction", "codec", "offset", "why", "query_id"], line
