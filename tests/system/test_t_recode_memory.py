"""t: re-encoding and P4 Bounded: bombs, slow peers and many of them at once stay within memory_limit."""
import os
import socket
import threading
import time
import zlib

import pytest
import zstandard

import recode
from helpers import CHUNKED, OK, Background, chunk, parallel, q, small_buffers
from recode import Incremental
from rig.http1 import RawClient, request
from rig.wait import wait_until

MIB = 1 << 20
BOMB = 256 * MIB
SLACK = 32 * MIB  # what the process is besides its budget
PARKED = 'chmux_pipes{state="parked"}'


@pytest.fixture(scope="session")
def gzip_bomb():
    """256 MiB of zeros in 256 KiB."""
    z = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = bytes(16 * MIB)
    return b"".join([*(z.compress(zeros) for _ in range(BOMB // len(zeros))), z.flush()])


@pytest.fixture(scope="session")
def zstd_bomb():
    z = zstandard.ZstdCompressor(level=1, write_checksum=True).compressobj()
    zeros = bytes(16 * MIB)
    return b"".join([*(z.compress(zeros) for _ in range(BOMB // len(zeros))), z.flush()])


def samples(c):
    """Watches RSS in a thread until stopped; .peak."""

    class Watch:
        peak = 0
        done = threading.Event()

        def run(self):
            while not self.done.wait(0.01):
                self.peak = max(self.peak, c.rss())

        def stop(self):
            self.done.set()
            self.thread.join()
            return max(self.peak, c.peak_rss())

    w = Watch()
    w.done = threading.Event()
    w.thread = threading.Thread(target=w.run, daemon=True)
    w.thread.start()
    return w


class Counting:
    """A script that decodes an INSERT and counts its plain bytes; stops reading at the gate after its head."""

    def __init__(self, coding, gate):
        self.coding, self.gate = coding, gate
        self.plain = 0
        self.zeros = True
        self.whole = False

    def __call__(self, conn):
        conn.sock.settimeout(120)
        if recode.mine(conn) is None:
            return
        conn.stall(self.gate)
        decoder = Incremental(self.coding)
        while data := conn.chunk():
            for i in range(0, len(data), 1024):  # a kilobyte may be a megabyte of zeros
                out = decoder.feed(data[i : i + 1024])
                self.plain += len(out)
                self.zeros &= out.count(0) == len(out)
        if data is None or conn.line() is None:
            return
        self.whole = True
        conn.send(OK)


@pytest.mark.memory
@pytest.mark.slow
@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_a_gzip_bomb_to_a_server_that_reads_slowly(chmuxd, fake, gate, gzip_bomb, codec):
    """It moves in bounded steps: RSS within the budget all the time."""
    g = gate()
    server = Counting(codec, g)
    up = fake(server, keep_bytes=False, rcvbuf=16384, deadline=60)
    c = chmuxd(up.url, upstream__request_compression=codec, chmux__memory_limit="32m")
    watch = samples(c)
    body = gzip_bomb

    def upload():
        return c.ask("POST", q("INSERT INTO t FORMAT RowBinary", query_id=recode.new_id()), [("Content-Encoding", "gzip")], body, timeout=120)

    answer = Background(upload)
    up.wait_heads(1)
    wait_until(lambda: c.metric('chmux_codec_bytes_total{codec="gzip",op="decode",side="out"}') > 64 * MIB, 30)
    g.set()
    r = answer.result(120)
    assert r.status == 200 and r.complete, r
    assert server.whole and server.plain == BOMB and server.zeros
    assert watch.stop() < 32 * MIB + SLACK, watch.peak


@pytest.mark.memory
@pytest.mark.slow
@pytest.mark.parametrize("want", ["plain", "lz4"])
def test_a_bomb_from_the_server_to_a_slow_reader(chmuxd, fake, zstd_bomb, want):
    """10 kB that decode to 256 MiB: the reader's pace is the pace of the decoder."""

    def script(conn):
        conn.sock.settimeout(120)
        if recode.mine(conn) is None:
            return
        conn.send(CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Encoding: zstd\r\n\r\n") + chunk(zstd_bomb) + b"0\r\n\r\n")
        conn.wait_eof()

    c = chmuxd(fake(script, keep_bytes=False).url, upstream__response_compression="zstd", upstream__local_encoding="client", chmux__memory_limit="32m")
    k = RawClient(None, sock=small_buffers(c.addr))
    k.sock.settimeout(60)
    k.send(request("GET", q("SELECT 1", query_id=recode.new_id()), [("Accept-Encoding", want)] if want == "lz4" else ()))
    r = k.head()
    assert r.status == 200 and r.header("Content-Encoding") == (want if want == "lz4" else None)
    if want == "plain":  # of LZ4 it is 4 MiB, which sockets may hold
        c.wait_metric(PARKED, 1, 30)
        assert c.rss() < 32 * MIB + SLACK
    decoder, size = Incremental("lz4"), 0
    while True:
        n = int(k.line(), 16)
        data = k.take(n) if n else b""
        assert k.take(2) == b"\r\n"
        if not n:
            break
        if want == "lz4":
            for i in range(0, n, 4096):
                size += len(decoder.feed(data[i : min(i + 4096, n)]))
        else:
            size += n
    k.close()
    assert size == BOMB
    assert c.peak_rss() < 32 * MIB + SLACK, c.peak_rss()


SLOW_READERS = 200
EACH = 2 * MIB


@pytest.fixture(scope="session")
def large_result():
    """(plain, zstd): rows that compress to about half."""
    plain = b"".join(b"%d\t%s\n" % (i, zlib.crc32(b"%d" % i).to_bytes(4, "big").hex().encode() * 2) for i in range(EACH // 24))
    return plain, zstandard.ZstdCompressor(level=1, write_checksum=True).compress(plain)


@pytest.mark.memory
@pytest.mark.slow
@pytest.mark.parametrize("want,limit", [("plain", 64), ("blocks", 64)])
def test_200_slow_readers_of_large_results(chmuxd, fake, large_result, want, limit, summary):
    """More stopped transfers than the budget could buffer: RSS stays within it, and each gets all its bytes, or an
    honest 503 (memory), or a short end."""
    plain, body = large_result

    def script(conn):
        conn.sock.settimeout(120)
        while (h := recode.mine(conn)) is not None:
            conn.body(h)
            conn.send(CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Encoding: zstd\r\n\r\n"))
            for i in range(0, len(body), 65536):
                conn.send(chunk(body[i : i + 65536]))
            conn.send(b"0\r\n\r\n")

    c = chmuxd(fake(script, keep_bytes=False, deadline=120).url, upstream__response_compression="zstd", upstream__local_encoding="client",
               upstream__pool_size=SLOW_READERS, upstream__connect_concurrency=64, chmux__memory_limit=f"{limit}m", chmux__buffer_size="64k")
    watch = samples(c)
    params = {"compress": "1"} if want == "blocks" else {}
    clients = [RawClient(None, sock=small_buffers(c.addr, 8192)) for _ in range(SLOW_READERS)]
    for k in clients:
        k.sock.settimeout(120)
        k.send(request("GET", q("SELECT 1", query_id=recode.new_id(), **params), [("Accept-Encoding", "gzip")] if want == "gzip" else ()))
    # All have been answered or refused, and nobody reads: wait until bytes stop coming in.
    last = {"in": -1, "since": time.monotonic()}

    def still():
        now = c.metric('chmux_bytes_total{side="upstream",direction="in"}')
        if now != last["in"]:
            last.update({"in": now, "since": time.monotonic()})
        return now > 0 and time.monotonic() - last["since"] > 0.5

    wait_until(still, 90, "the transfers to be stopped", interval=0.05)
    assert c.rss() < limit * MIB + SLACK, c.rss()
    assert c.metric("chmux_memory_used_bytes") <= limit * MIB
    kinds = {"whole": 0, "503": 0, "short": 0}

    def drain(i):
        r = clients[i].response()
        clients[i].close()
        if r.status == 503:
            assert r.complete and r.header("X-Chmux-Error") == "memory", r
            kinds["503"] += 1
            return
        assert r.status == 200, r
        if not r.complete:
            assert r.ended in ("short", "reset"), r
            kinds["short"] += 1
            return
        if want == "blocks":
            got = recode.chblocks.decode(r.body, verify=False)
        else:
            got = recode.decode_all(r.header("Content-Encoding"), r.body)
        assert got == plain
        kinds["whole"] += 1

    for i in range(0, SLOW_READERS, 20):  # some at a time: the others go on being slow
        parallel(min(20, SLOW_READERS - i), lambda n, i=i: drain(i + n))
    peak = watch.stop()
    summary.append(f"200 slow readers, {want}, memory_limit {limit} MiB: peak RSS {peak / MIB:.1f} MiB, {kinds}")
    assert peak < limit * MIB + SLACK, (peak, kinds)
    assert kinds["whole"] >= (SLOW_READERS // 2 if limit == 256 else SLOW_READERS // 10), kinds
    wait_until(lambda: c.metric("chmux_exchanges") == 0)


@pytest.mark.memory
def test_a_coded_insert_to_a_stopped_server_stops_the_client(chmuxd, fake, gate):
    """Back pressure passes through the pipe, towards the client."""
    g = gate()

    def script(conn):
        if recode.mine(conn) is not None:
            conn.stall(g)

    up = fake(script, rcvbuf=65536, keep_bytes=False, deadline=60)
    c = chmuxd(up.url, upstream__request_compression="lz4", chmux__memory_limit="32m")
    block = os.urandom(MIB)
    with c.client() as k:
        k.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        k.send(request("POST", q("INSERT INTO t FORMAT RowBinary", query_id=recode.new_id()), [("Content-Length", str(1 << 30))]))
        k.sock.settimeout(1.0)
        sent = 0
        try:
            while sent < 256 * MIB:
                sent += k.sock.send(block)
        except TimeoutError:
            pass
        assert sent < 64 * MIB, f"{sent / MIB:.0f} MiB went towards a server that does not read"
        assert c.rss() < 32 * MIB + SLACK
    g.set()


@pytest.mark.san
def test_memory_is_given_back(ch26, link):
    """After many coded transfers at once, the budget is as free as before."""
    one = link(ch26, upstream__local_encoding="client")

    def client(i):
        r = one.chmux.ask("POST", "/?compress=1" if i % 3 == 0 else "/", [("Accept-Encoding", "gzip")] if i % 3 == 1 else (), b"SELECT number, 'abc' FROM numbers(100000)")
        assert r.status == 200 and r.complete, r

    parallel(32, client)
    wait_until(lambda: one.chmux.metric("chmux_exchanges") == 0)
    wait_until(lambda: one.chmux.metric("chmux_memory_used_bytes") < 16 * MIB, what="the budget to be free (some codecs may stay in a cache)")
    one.chmux.wait_metric("chmux_pipes", 0)


@pytest.mark.memory
def test_decoders_may_not_take_more_than_the_budget(chmuxd, fake):
    """A frame whose window is larger than chmux allows is an error, found before anything is allocated."""
    z = zstandard.ZstdCompressor(compression_params=zstandard.ZstdCompressionParameters(window_log=27, compression_level=1)).compressobj()
    body = z.compress(bytes(MIB)) + z.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)

    c = chmuxd(fake(recode.serve_ok).url, upstream__request_compression="gzip", chmux__memory_limit="64m")
    r = c.ask("POST", q("INSERT INTO t FORMAT TSV", query_id=recode.new_id()), [("Content-Encoding", "zstd")], body + z.compress(b"x") + z.flush(), chunked=True)
    assert r.status == 400 and r.header("X-Chmux-Error") == "bad_encoding" and "window" in r.text, r
    assert c.peak_rss() < 64 * MIB


def test_requests_that_were_sent_hold_no_memory_their_answers_need(chmuxd, ch26):
    """16 encoders fill what codecs may have; each answer needs a window of a decoder."""
    c = chmuxd(ch26.url, upstream__request_compression="zstd", upstream__response_compression="zstd", chmux__memory_limit="32m",
               upstream__compression_level=1)
    sql = ("SELECT number, hex(sipHash128(number)) FROM numbers(60000)" + " " * 3000).encode()
    want = c.ask("POST", "/", [("X-Chmux-Compression", "off")], sql).body
    got = parallel(16, lambda _: c.ask("POST", "/", (), sql, timeout=60))
    assert [(r.status, r.complete) for r in got] == [(200, True)] * 16 and all(r.body == want for r in got)
