"""s: chaos. A server and clients that do whatever a seed tells them, for a bounded number of steps; what
must hold in the end holds whatever they did. CHAOS_SEEDS=100-150 runs other seeds than the two here."""
import os
import random
import signal
import socket
import struct

import pytest

import recode
from helpers import parallel
from rig.http1 import RawClient, request
from rig.wait import wait_until

pytestmark = pytest.mark.san
CLIENTS, STEPS, CAP = 10, 40, 4
SETTLED = 4 << 20  # bytes of the budget that spare exchanges may keep
CODECS = 8 << 20  # and kept codecs


def seeds():
    first, _, last = os.environ.get("CHAOS_SEEDS", "1-2").partition("-")
    return range(int(first), int(last or first) + 1)


def text_of(ident, n):
    return (ident + ",").encode() * n


# ---- the server
def interim(conn, r):
    if r.random() < 0.1:
        conn.send(r.choice([b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n"]))


def answer_of(r, ident, accept=None):
    """Head and body of a whole answer, the head naming what the body must be."""
    n = r.choice([0, 1, 5, 100, 3000, 20000])
    body = text_of(ident, n)
    head = [b"HTTP/1.1 200 OK", b"X-Id: " + ident.encode(), b"X-Count: %d" % n]
    if r.random() < 0.3:
        head += [b'X-ClickHouse-Progress: {"read_rows":"%d"}' % i for i in range(r.randrange(5))]
    coding = next((c for c in ("zstd", "lz4", "gzip") if c in recode.accepted(accept)), None)
    if coding and body and r.random() < 0.8:  # a server need not
        body = recode.encode(coding, body)
        head.append(b"Content-Encoding: " + coding.encode())
    if r.random() < 0.5:
        head.append(b"Content-Length: %d" % len(body))
    else:
        head.append(b"Transfer-Encoding: chunked")
        size = r.choice([7, 1000, 50000])
        body = b"".join(b"%X\r\n%s\r\n" % (len(p), p) for p in (body[i : i + size] for i in range(0, len(body), size)))
        body += b"0\r\n\r\n"
    return b"\r\n".join(head) + b"\r\n\r\n", body


def send_in_pieces(conn, r, data):
    while data:
        n = r.choice([1, 10, 1000, 100000, len(data)])
        conn.send(data[:n])
        data = data[n:]


def end(conn, r):
    if r.random() < 0.5:
        conn.reset()
    return False


def one_request(conn, r, h):
    """False: the connection is over."""
    ident = h.header("X-Id", "none")
    head, body = answer_of(r, ident, h.header("Accept-Encoding"))
    if h.method == "HEAD":
        body = b""
    what = r.choices(["answer", "answer_close", "early", "cut", "broken", "die", "stall"], [60, 8, 8, 8, 3, 8, 2])[0]
    if what == "die":
        return end(conn, r)
    if what == "early":
        conn.send(head + body)
        return end(conn, r) if r.random() < 0.5 else False
    if what == "stall":
        conn.wait_eof()
        return False
    if conn.body(h) is None:
        return False
    interim(conn, r)
    if what == "cut":
        conn.send((head + body)[: r.randrange(len(head + body))])
        return end(conn, r)
    if what == "broken":
        conn.send(head[:-2] + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n")
        return False
    send_in_pieces(conn, r, head + body)
    return what == "answer"


def server(seed, written):
    def script(conn):
        r = random.Random(seed * 100003 + conn.number)
        while (h := conn.head()) is not None:
            if "INSERT" in h.target:
                with conn.fake.lock:
                    written.append(h.header("X-Id"))
            if not one_request(conn, r, h):
                return
            if r.random() < 0.05:
                return  # closes an idle connection

    return script


# ---- the clients
def check(r, ident, may_refuse=True):
    """A complete answer is the right one, or an error of our own. True: the connection goes on."""
    assert r.ended != "timeout", f"hung: {ident}"
    assert not str(r.ended).startswith("bad"), r
    if not r.complete:
        return False
    if r.header("X-Chmux-Error"):
        assert may_refuse and r.status in (400, 408, 502, 503, 504), r
    else:
        assert r.status == 200 and r.header("X-Id") == ident, f"{ident} got {r}"
        if r.framing != "none":
            assert r.body == text_of(ident, int(r.header("X-Count"))), f"{ident} got a wrong body"
    return r.header("Connection", "").lower() != "close"


class Chaotic:
    def __init__(self, c, seed, number):
        self.c = c
        self.r = random.Random(seed * 7919 + number)
        self.number = number
        self.made = 0
        self.k = None

    def client(self):
        if self.k is None:
            sock = socket.socket()
            if self.r.random() < 0.2:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.settimeout(30)
            sock.connect(self.c.addr)
            self.k = RawClient(None, sock=sock)
        return self.k

    def drop(self, reset=False):
        if self.k is not None:
            if reset:
                self.k.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.k.close()
        self.k = None

    def one(self, method=None):
        """(id, method, bytes) of a new request."""
        r = self.r
        ident = f"{self.number}.{self.made}"
        self.made += 1
        method = method or r.choice(["GET", "GET", "HEAD", "POST", "POST"])
        headers = [("X-Id", ident)]
        target = "/?query=SELECT+1" if method != "POST" or r.random() < 0.4 else "/?query=INSERT+INTO+t+FORMAT+TSV"
        if r.random() < 0.2:
            target += f"&session_id=s{r.randrange(3)}"
        if method == "POST":
            body = b"x" * r.choice([0, 1, 100, 10000, 300000])
            return ident, method, request(method, target, headers, body, chunked=r.random() < 0.5)
        return ident, method, request(method, target, headers)

    def send(self, data):
        """False: the other side would not take it all."""
        pieces = self.r.random() < 0.3
        k = self.client()
        try:
            if pieces:
                k.send_pieces(data, self.r.choice([1000, 30000]))
            else:
                k.send(data)
            return True
        except (BrokenPipeError, ConnectionResetError):
            return False

    def step_ask(self):
        ident, method, data = self.one()
        self.send(data)
        if not check(self.k.response(method), ident):
            self.drop()

    def step_pipeline(self):
        asked = [self.one(self.r.choice(["GET", "HEAD"])) for _ in range(self.r.randrange(2, 6))]
        self.send(b"".join(data for _, _, data in asked))
        for ident, method, _ in asked:
            if not check(self.k.response(method), ident):
                self.drop()
                return

    def step_expect(self):
        ident, _, data = self.one("POST")
        head, _, body = data.partition(b"\r\n\r\n")
        self.send(head + b"\r\nExpect: 100-continue\r\n\r\n")
        self.send(body)
        if not check(self.k.response("POST"), ident):
            self.drop()

    def step_abort(self):
        """Leaves in the middle of what it sends, or behind it, or inside the answer."""
        _, _, data = self.one()
        whole = self.r.random() < 0.5
        self.send(data if whole else data[: self.r.randrange(1, len(data))])
        if whole and self.r.random() < 0.5:
            try:
                self.k.sock.recv(self.r.choice([1, 100, 5000]))
            except ConnectionResetError:
                pass
        self.drop(self.r.random() < 0.5)

    def step_nonsense(self):
        self.drop()
        self.send(self.r.choice([b"\x16\x03\x01\x02", b"GET / HTTP/9.9\r\n\r\n", b"\0\x0aClickHouse", b"G ET / HTTP/1.1\r\n\r\n",
                                 b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
                                 b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"]))
        try:
            self.k.fill()
        except Exception as e:  # Closed: an answer or an end, but no hang
            assert not isinstance(e, TimeoutError), "hung on nonsense"
        self.drop()

    def run(self):
        steps = [self.step_ask, self.step_pipeline, self.step_expect, self.step_abort, self.step_nonsense]
        for _ in range(STEPS):
            self.r.choices(steps, [50, 15, 10, 20, 5])[0]()
        self.drop()


def hog(c):
    """An unfinished head of 2.5 MiB, which takes 4 MiB of the budget for as long as it is open."""
    k = c.client()
    k.send(b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: %s\r\n" % (i, b"x" * 100000) for i in range(26)))
    return k


CODED = {"upstream__response_compression": "zstd", "upstream__request_compression": "zstd", "upstream__compression_min_size": 0,
         "chmux__inline_limit": "500b", "chmux__workers": 2}  # some bodies inline, some in the workers


@pytest.mark.parametrize("kind", ["", "tight", "coded"])
@pytest.mark.parametrize("seed", seeds())
def test_chaos_leaves_nothing_behind(chmuxd, fake, seed, kind):
    tight = kind == "tight"
    written = []
    up = fake(server(seed, written), keep_bytes=False, deadline=30)
    options = {"chmux__buffer_size": "16k"}
    if tight:
        options = {"chmux__memory_limit": "16m", "chmux__buffer_size": "1m", "chmux__head_timeout": "10m"}
    elif kind == "coded":
        options |= CODED
    c = chmuxd(up.url, upstream__pool_size=CAP, upstream__response_timeout="300ms", chmux__stall_timeout="1s",
               upstream__queue_timeout="10s", upstream__replay_buffer="16k", log__access="yes", **options)
    hogs = [hog(c) for _ in range(3 if tight else 0)]
    parallel(CLIENTS, lambda i: Chaotic(c, seed, i).run())
    for k in hogs:
        k.close()
    for gauge in ("chmux_exchanges", "chmux_clients", "chmux_queue_waiting", "chmux_pipes", 'chmux_upstream_connections{state="active"}'):
        c.wait_metric(gauge, 0, 20)
    c.wait_metric("chmux_memory_used_bytes", lambda v: v < SETTLED + (CODECS if kind == "coded" else 0))
    m = c.metrics()
    assert m["chmux_requests_total"] > CLIENTS * STEPS / 2
    if kind == "coded":
        assert min(m[f'chmux_recoded_total{{direction="{d}"}}'] for d in ("request", "response")) > 5, m
    assert up.peak <= CAP
    twice = {i for i in written if written.count(i) > 1}
    assert not twice, f"written twice: {twice}"
    c.signal(signal.SIGTERM)
    assert c.wait_exit() == 0, c.stderr[-3000:]
    wait_until(lambda: up.open == 0)


@pytest.mark.parametrize("seed", seeds())
@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGQUIT], ids=["SIGTERM", "SIGQUIT"])
def test_chaos_ends_when_told(chmuxd, fake, seed, sig):
    """The signal comes in the middle of it: whatever runs is finished, or cut and never made to look whole."""
    up = fake(server(seed, []), keep_bytes=False, deadline=30)
    c = chmuxd(up.url, upstream__pool_size=CAP, upstream__response_timeout="300ms", chmux__stall_timeout="1s",
               chmux__drain_timeout="20s", chmux__buffer_size="16k")
    after = random.Random(seed).randrange(30, CLIENTS * STEPS)

    def run(i):
        if i == CLIENTS:  # counted by what the server has seen, which no signal stops
            wait_until(lambda: len(up.heads) >= after, 60)
            c.signal(sig)
            return
        try:
            Chaotic(c, seed, i).run()
        except ConnectionRefusedError:
            assert len(up.heads) >= after, "refused before the signal"
        except ConnectionResetError:  # a connection cut while it was made
            assert len(up.heads) >= after, "reset before the signal"

    parallel(CLIENTS + 1, run)
    code = c.wait_exit()
    assert code == 0 if sig == signal.SIGTERM else code in (0, 3), c.stderr[-3000:]
    wait_until(lambda: up.open == 0)
