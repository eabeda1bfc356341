"""t: re-encoding and P5 Prompt: what one side has flushed reaches the other at once, inside one stream; leaving
clients and stale connections are treated as they are without it."""
import os
import threading
import zlib

import brotli
import lz4.frame
import pytest
import zstandard

import recode
from helpers import CHUNKED, OK, chmux_error, chunk, parallel, q
from recode import LINKS, Incremental, encode
from rig import chblocks, http1
from rig.chmuxd import codec_niceness
from rig.http1 import RawClient, request
from rig.wait import wait_until

pytestmark = pytest.mark.san
ROWS = [b"%d\trow %d\n" % (i, i) for i in range(12)]
ALICE = [("X-ClickHouse-User", "alice"), ("X-ClickHouse-Key", "secret")]


class Flushing:
    """A client's (or server's) streaming encoder that flushes after every row."""

    def __init__(self, side):
        self.first = b""
        if side == "plain":
            self.row, self.end = bytes, lambda: b""
        elif side.startswith("blocks"):
            self.row, self.end = lambda d: chblocks.encode(d, recode.BLOCKS[side]), lambda: b""
        elif side in ("gzip", "deflate"):
            z = zlib.compressobj(1, zlib.DEFLATED, 31 if side == "gzip" else 15)
            self.row, self.end = lambda d: z.compress(d) + z.flush(zlib.Z_SYNC_FLUSH), z.flush
        elif side == "zstd":
            z = zstandard.ZstdCompressor(level=1).compressobj()
            self.row = lambda d: z.compress(d) + z.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
            self.end = z.flush
        elif side == "lz4":
            z = lz4.frame.LZ4FrameCompressor(content_checksum=True, auto_flush=True)
            self.first = z.begin()
            self.row, self.end = z.compress, z.flush
        elif side == "br":
            z = brotli.Compressor(quality=1)
            self.row, self.end = lambda d: z.process(d) + z.flush(), z.finish


class Drain:
    """A script that decodes an INSERT as it comes; arrived() waits for plain bytes."""

    def __init__(self, coding):
        self.coding = coding
        self.plain = bytearray()
        self.changed = threading.Condition()
        self.whole = False
        self.head = None

    def __call__(self, conn):
        h = recode.mine(conn)
        if h is not None:
            self.serve(conn, h)

    def serve(self, conn, h):
        self.head = h
        decoder = Incremental(self.coding)
        while data := conn.chunk():
            with self.changed:
                self.plain += decoder.feed(data)
                self.changed.notify_all()
        if data is None or conn.line() is None:
            return
        self.whole = True
        conn.send(OK)

    def arrived(self, plain):
        with self.changed:
            assert self.changed.wait_for(lambda: bytes(self.plain) == plain, 5), (bytes(self.plain[-100:]), plain[-100:])


@pytest.mark.parametrize("side", ["plain", "gzip", "deflate", "zstd", "lz4", "br", "blocks-lz4", "blocks-none"])
@pytest.mark.parametrize("codec", LINKS)
def test_an_insert_that_drips_arrives_row_by_row(chmuxd, fake, codec, side):
    """The next row is sent only once the server has decoded the one before, out of one stream."""
    drain = Drain(codec)
    c = chmuxd(fake(drain).url, upstream__request_compression=codec)
    client = Flushing(side)
    params = {"query_id": recode.new_id(), **({"decompress": "1"} if side.startswith("blocks") else {})}
    headers = [("Transfer-Encoding", "chunked"), *([("Content-Encoding", side)] if side in recode.ENCODERS else [])]
    with c.client() as k:
        k.send(request("POST", q("INSERT INTO t FORMAT TSV", **params), headers))
        if client.first:
            k.send(chunk(client.first))
        for i, row in enumerate(ROWS):
            k.send(chunk(client.row(row)))
            drain.arrived(b"".join(ROWS[: i + 1]))
        end = client.end()
        k.send((chunk(end) if end else b"") + b"0\r\n\r\n")
        r = k.response("POST")
    assert r.status == 200 and r.body == b"ok\n" and drain.whole, r
    assert drain.head.header("Content-Encoding") == codec and drain.head.header("Transfer-Encoding") == "chunked"


@pytest.mark.parametrize("workers", [0, 2])
def test_an_insert_that_drips_through_workers(chmuxd, fake, workers):
    """Nothing is coded inline here: each row takes the way through the queues."""
    drain = Drain("zstd")
    c = chmuxd(fake(drain).url, upstream__request_compression="zstd", chmux__inline_limit=0, chmux__workers=workers)
    with c.client() as k:
        k.send(request("POST", q("INSERT INTO t FORMAT TSV", query_id=recode.new_id()), [("Transfer-Encoding", "chunked")]))
        for i, row in enumerate(ROWS):
            k.send(chunk(row))
            drain.arrived(b"".join(ROWS[: i + 1]))
        k.send(b"0\r\n\r\n")
        assert k.response("POST").status == 200


@pytest.mark.parametrize("settings,nice", [({}, 10), ({"chmux__worker_nice": 3}, 3), ({"chmux__worker_nice": 0}, 0)])
def test_workers_give_way_to_the_loop(chmuxd, fake, settings, nice):
    drain = Drain("zstd")
    c = chmuxd(fake(drain).url, upstream__request_compression="zstd", chmux__inline_limit=0, chmux__workers=2, **settings)
    target = q("INSERT INTO t FORMAT TSV", query_id=recode.new_id())
    assert c.ask("POST", target, [("Transfer-Encoding", "chunked")], chunk(ROWS[0]) + b"0\r\n\r\n").status == 200
    mine = os.getpriority(os.PRIO_PROCESS, 0)
    assert nice + mine in codec_niceness(f"/proc/{c.pid}")  # the thread that ran; another may be about to begin
    assert os.getpriority(os.PRIO_PROCESS, c.pid) == mine


def test_100_dripping_inserts_at_once(chmuxd, fake):
    """Each on its own: none waits for another."""
    drains = {}

    def script(conn):
        h = recode.mine(conn)
        if h is not None:
            drains[h.query_id].serve(conn, h)

    c = chmuxd(fake(script).url, upstream__request_compression="zstd", upstream__pool_size=100, upstream__connect_concurrency=100)
    clients = []
    for _ in range(100):
        query_id = recode.new_id()
        drains[query_id] = Drain("zstd")
        clients.append((c.client(), drains[query_id]))
        clients[-1][0].send(request("POST", q("INSERT INTO t FORMAT TSV", query_id=query_id), [("Transfer-Encoding", "chunked")]))
    for n in range(5):
        for k, drain in clients:
            k.send(chunk(ROWS[n]))
        for k, drain in clients:
            drain.arrived(b"".join(ROWS[: n + 1]))
    for k, drain in clients:
        k.send(b"0\r\n\r\n")
        assert k.response("POST").status == 200 and drain.whole
        k.close()


@pytest.mark.parametrize("want", ["plain", "gzip", "br", "lz4", "zstd", "blocks"])
@pytest.mark.parametrize("codec", LINKS)
def test_a_result_that_drips_arrives_row_by_row(chmuxd, fake, codec, want):
    """The server releases the next row only once the client has decoded the one before, out of one stream."""
    released = threading.Semaphore(0)

    def script(conn):
        h = recode.mine(conn)
        if h is None:
            return
        conn.body(h)
        server = Flushing(codec)
        conn.send(CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Encoding: %s\r\n\r\n" % codec.encode()))
        if server.first:
            conn.send(chunk(server.first))
        for row in ROWS:
            assert released.acquire(timeout=10)
            conn.send(chunk(server.row(row)))
        conn.send(chunk(server.end()) + b"0\r\n\r\n")

    c = chmuxd(fake(script).url, upstream__response_compression=codec, upstream__local_encoding="client")
    params = {"query_id": recode.new_id(), **({"compress": "1"} if want == "blocks" else {})}
    headers = [("Accept-Encoding", want)] if want in recode.OURS else []
    plain = bytearray()
    decode = {"plain": bytes, "blocks": chblocks.decode, "br": brotli.Decompressor().process}.get(want) or Incremental(want).feed
    k = c.client()
    k.sock.settimeout(5)
    k.send(request("GET", q("SELECT 1", **params), headers))
    released.release()
    r = k.head()
    assert r.header("Content-Encoding") == (want if want in recode.OURS else None) and r.header("Transfer-Encoding") == "chunked", r.headers

    def one_chunk():
        size = int(k.line(), 16)
        data = k.take(size)
        assert k.take(2) == b"\r\n"
        return data

    for i in range(len(ROWS)):
        if i:
            released.release()
        while bytes(plain) != b"".join(ROWS[: i + 1]):
            data = one_chunk()
            assert data, "the body ended early"
            plain += decode(data)
    while (data := one_chunk()):
        plain += decode(data)
    assert bytes(plain) == b"".join(ROWS)
    k.close()


def test_the_head_of_a_result_does_not_wait_for_its_body(chmuxd, fake, gate):
    """ClickHouse's 200 and progress lines come through while the first block is still computed."""
    g = gate()

    def script(conn):
        h = recode.mine(conn)
        if h is None:
            return
        conn.body(h)
        conn.send(b'HTTP/1.1 200 OK\r\nX-ClickHouse-Progress: {"read_rows":"1"}\r\n')
        conn.stall(g)
        body = encode("zstd", b"1\n")
        conn.send(b"Content-Encoding: zstd\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    c = chmuxd(fake(script).url, upstream__response_compression="zstd")
    with c.client() as k:
        k.send(request("GET", q("SELECT 1", query_id=recode.new_id())))
        assert k.line() == b"HTTP/1.1 200 OK\r\n"
        assert k.line().startswith(b"X-ClickHouse-Progress:")
        g.set()
        k.buf[:0] = b"HTTP/1.1 200 OK\r\n"
        r = k.response()
    assert r.body == b"1\n" and r.complete and r.header("Content-Encoding") is None, r


def test_a_result_starts_before_its_insert_like_body_ends(ch26, link):
    """A large SELECT of 26.7 through the pipes: its first rows are there long before its last."""
    one = link(ch26)
    with one.chmux.client() as k:
        k.send(request("POST", "/?max_threads=1", (), b"SELECT hex(sipHash128(number)), sleepEachRow(0.00001) FROM numbers(400000)"))
        r = k.head()
        assert r.status == 200 and r.header("Content-Encoding") is None
        while len(k.buf) < 1000:
            k.fill()
        assert one.server.queries("query LIKE '%sipHash128(number)), sleepEachRow%'"), "the query had ended before its first byte came"
        size = 0
        while True:
            n = int(k.line(), 16)
            size += len(k.take(n)) if n else 0
            k.take(2)
            if not n:
                break
    assert size == 400000 * 35


# ---- clients that leave
AGGREGATE = "SELECT sum(sleepEachRow(0.05)) FROM numbers(1200)"
STREAM = "SELECT hex(sipHash128(number)), sleepEachRow(0.05) FROM numbers(1200)"


@pytest.mark.parametrize("accept,compress", [(None, None), ("gzip", None), ("zstd", None), (None, 1)])
@pytest.mark.parametrize("name,sql", [("aggregate", AGGREGATE), ("stream", STREAM)])
def test_a_client_that_leaves_has_its_query_killed(ch26, link, name, sql, accept, compress):
    one = link(ch26, upstream__local_encoding="client")
    query_id = recode.new_id()
    params = {"query_id": query_id, "max_block_size": 1, **({"compress": 1} if compress else {})}
    killed = one.chmux.metric('chmux_kill_queries_total{result="ok"}')
    k = RawClient(one.addr)
    headers = [*ALICE, *([("Accept-Encoding", accept)] if accept else [])]
    # the SQL is long enough to be coded too: the kill must know the caller by the head alone
    k.send(request("POST", "/?" + "&".join(f"{n}={v}" for n, v in params.items()), headers, sql.encode() + b" " * 2000))
    wait_until(lambda: ch26.queries(f"query_id = '{query_id}'"), what="the query to run")
    k.close()
    wait_until(lambda: not ch26.queries(f"query_id = '{query_id}'"), what="the query to be killed")
    one.chmux.wait_metric('chmux_kill_queries_total{result="ok"}', lambda v: v > killed)
    wait_until(lambda: one.chmux.metric("chmux_exchanges") == 0)


def test_clients_that_leave_in_the_middle_of_large_results(ch26, link):
    """While steps run in the workers: nothing is freed under them, nothing leaks."""
    one = link(ch26, upstream__local_encoding="client")
    used = one.chmux.metric("chmux_memory_used_bytes")

    def client(i):
        with one.chmux.client() as k:
            headers = [("Accept-Encoding", ("gzip", "br", "lz4")[i % 3])] if i % 4 else []
            k.send(request("POST", "/?compress=1" if i % 5 == 0 else "/", headers, b"SELECT hex(sipHash128(number)) FROM numbers(600000)"))
            k.take(1000 + 50000 * i)
            if i % 2:
                k.reset()

    parallel(12, client)
    wait_until(lambda: one.chmux.metric("chmux_exchanges") == 0)
    wait_until(lambda: one.chmux.metric("chmux_memory_used_bytes") <= used + (16 << 20))
    assert one.chmux.sql("SELECT 1") == "1\n"


# ---- stale connections
def dies_on_reuse(after_body=True):
    """Connection 1 answers one request of ours and dies at the next; later ones serve."""

    def first(conn):
        h = recode.mine(conn)
        conn.body(h)
        conn.send(OK)
        h = recode.mine(conn)
        if h is not None and after_body:
            conn.body(h)

    return [first, recode.serve_ok]


def warmed(chmuxd, fake, **options):
    up = fake(dies_on_reuse())
    c = chmuxd(up.url, upstream__pool_size=1, upstream__request_compression="zstd", upstream__response_compression="zstd",
               upstream__compression_min_size=0, **options)
    assert c.ask("GET", q("SELECT 1", query_id=recode.new_id())).status == 200
    wait_until(lambda: c.metric('chmux_upstream_connections{state="idle"}') == 1)
    return c, up


def asked(up, query_id):
    return [(n, h) for n, h in up.heads if h.query_id == query_id]


def test_a_get_on_a_dead_reused_connection_is_sent_again(chmuxd, fake):
    c, up = warmed(chmuxd, fake)
    query_id = recode.new_id()
    r = c.ask("GET", q("SELECT 1", query_id=query_id, compress=1))
    assert r.status == 200 and r.complete, r
    first, second = asked(up, query_id)
    assert first[0] == 1 and second[0] > 1 and first[1].raw == second[1].raw, "the retry differs"


def test_a_small_select_in_the_body_is_sent_again(chmuxd, fake):
    c, up = warmed(chmuxd, fake)
    query_id = recode.new_id()
    r = c.ask("POST", f"/?query_id={query_id}", (), b"SELECT 1 /* " + b"x" * 2000 + b" */")
    assert r.status == 200 and r.complete and r.body == b"ok\n", r
    first, second = asked(up, query_id)
    assert first[1].header("Content-Encoding") == second[1].header("Content-Encoding") == "zstd"


def test_an_insert_is_not_sent_again(chmuxd, fake):
    c, up = warmed(chmuxd, fake)
    query_id = recode.new_id()
    r = c.ask("POST", q("INSERT INTO t FORMAT TSV", query_id=query_id), (), b"".join(ROWS) * 100)
    chmux_error(r, "upstream_closed", 502)
    assert len(asked(up, query_id)) == 1
    r = c.ask("POST", q("INSERT INTO t FORMAT TSV", query_id=recode.new_id()), (), b"".join(ROWS) * 100)
    assert r.status == 200, r


def test_connections_to_the_server_are_reused(ch26, link):
    """A coded exchange that ended on its framing and on a frame's end gives its connection back."""
    one = link(ch26, upstream__pool_size=1)
    one.select("SELECT 1")
    accepted = one.tap.accepted
    for i in range(20):
        r, _ = one.select("SELECT number FROM numbers(100000)", (None, "gzip", "zstd")[i % 3], params={"compress": "1"} if i % 4 == 3 else {})
        assert r.status == 200 and r.complete, r
        r, _ = one.ask("POST", {"query": "SELECT count() FROM ext", "ext_structure": "a UInt8"}, (), b"")
    assert one.tap.accepted == accepted, "a connection was given up for nothing"


def test_a_response_before_the_end_of_the_request(chmuxd, fake):
    """The server refuses an INSERT at its first byte and closes: the client reads why."""
    error = b"Code: 60. DB::Exception: no such table. (UNKNOWN_TABLE)\n"

    def script(conn):
        h = recode.mine(conn)
        if h is None:
            return
        body = encode("zstd", error)
        conn.send(b"HTTP/1.1 404 Not Found\r\nX-ClickHouse-Exception-Code: 60\r\nContent-Encoding: zstd\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        conn.wait_eof()

    c = chmuxd(fake(script).url, upstream__request_compression="zstd", upstream__response_compression="zstd")
    with c.client() as k:
        k.send(request("POST", q("INSERT INTO nope FORMAT TSV", query_id=recode.new_id()), [("Transfer-Encoding", "chunked")]))
        k.send(chunk(b"".join(ROWS)))
        r = k.response("POST")
    assert r.status == 404 and r.body == error and r.complete, r


def test_sigterm_finishes_coded_transfers(ch26, chmuxd):
    """P9 with pipes: what runs is sent whole, then the exit is clean."""
    c = chmuxd(ch26.url, upstream__response_compression="zstd", upstream__local_encoding="client", chmux__drain_min="0s")
    k = c.client()
    k.send(request("POST", "/", [("Accept-Encoding", "gzip")], b"SELECT hex(sipHash128(number)) FROM numbers(1000000)"))
    assert k.head().status == 200
    c.signal()
    r = http1.Response()
    k._chunked(r, 0)
    assert r.complete and zlib.decompress(r.body, 31).count(b"\n") == 1000000
    k.close()
    assert c.wait_exit() == 0
