"""What the tests of re-encoding (t) share: bodies in every coding, a chmuxd with a coded link and a tap
between it and the server, and what a client must see."""
import gzip
import itertools
import lzma
import zlib
from urllib.parse import parse_qsl, urlencode

import brotli
import cramjam
import lz4.frame
import zstandard

from compare import DECODERS
from helpers import OK
from rig import chblocks, http1
from rig.chmuxd import Chmuxd
from rig.tap import Tap

LINKS = ("zstd", "lz4", "gzip")
OURS = ("zstd", "br", "lz4", "gzip", "deflate")  # in the order 26.x prefers them
MAGIC = {"zstd": b"\x28\xb5\x2f\xfd", "lz4": b"\x04\x22\x4d\x18", "gzip": b"\x1f\x8b"}
FORMATS = ("TSV", "JSONEachRow", "RowBinary", "Native")
ENCODERS = {
    "gzip": lambda d: gzip.compress(d, 1, mtime=0),
    "deflate": lambda d: zlib.compress(d, 1),
    "zstd": lambda d: zstandard.ZstdCompressor(level=1, write_checksum=True).compress(d),
    "lz4": lambda d: lz4.frame.compress(d, content_checksum=True),
    "br": lambda d: brotli.compress(d, quality=1),
    "xz": lambda d: lzma.compress(d, preset=0),
    "snappy": lambda d: bytes(cramjam.snappy.compress(d)),
}
BLOCKS = {f"blocks-{name}": method for name, method in chblocks.METHODS.items()}
_ids = itertools.count(1)


def encode(side, plain):
    """plain as a client that speaks `side` sends it."""
    if side in BLOCKS:
        return chblocks.encode(plain, BLOCKS[side])
    return ENCODERS[side](plain) if side != "plain" else plain


def decode_all(coding, data):
    """The plain bytes of one whole body in a coding (None: plain), however many frames it has; fails on a
    body that is not whole."""
    if not coding:
        return data
    if coding == "zstd":
        return b"".join(zstd_frames(data))
    if coding == "lz4":
        out = []
        while data:
            d = lz4.frame.LZ4FrameDecompressor()
            out.append(d.decompress(data))
            assert d.eof, "an LZ4 frame is cut"
            data = d.unused_data or b""
        return b"".join(out)
    return DECODERS[coding](data)


def zstd_frames(data):
    while data:
        d = zstandard.ZstdDecompressor().decompressobj()
        yield d.decompress(data)
        assert d.eof, "a zstd frame is cut"
        data = d.unused_data


def decode_what_came(coding, data):
    """The plain bytes that a streaming client gets out of a body that may be cut."""
    if not coding:
        return data
    if coding in ("gzip", "deflate"):
        return zlib.decompressobj(31 if coding == "gzip" else 15).decompress(data)
    if coding == "zstd":
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    if coding == "lz4":
        return lz4.frame.LZ4FrameDecompressor().decompress(data)
    return brotli.Decompressor().process(data)


class Incremental:
    """A client's or server's streaming decoder."""

    def __init__(self, coding):
        self.d = {"zstd": lambda: zstandard.ZstdDecompressor().decompressobj(),
                  "gzip": lambda: zlib.decompressobj(31), "lz4": lz4.frame.LZ4FrameDecompressor}[coding]()

    def feed(self, data):
        return self.d.decompress(data)


def accepted(accept):
    """The codings of ours that this Accept-Encoding names, as the server reads it."""
    out = set()
    for part in (accept or "").split(","):
        name, _, param = (p.strip().lower() for p in part.partition(";"))
        if param.replace(" ", "") in ("q=0", "q=0.0"):
            continue
        out |= set(OURS) if name == "*" else {name} & set(OURS)
    return out


def expected_encoding(accept, link, local_encoding):
    """The Content-Encoding a client gets that sent this Accept-Encoding (None: no such field)."""
    ours = accepted(accept)
    if link in ours:
        return link
    if local_encoding == "client":
        return next((c for c in OURS if c in ours), None)
    return None


def new_id():
    return f"recode-{next(_ids)}"


class Link:
    """server <- tap <- chmuxd with options."""

    def __init__(self, server, **options):
        self.server = server
        self.tap = Tap(server.addr)
        self.chmux = Chmuxd(f"http://127.0.0.1:{self.tap.port}", **options)
        self.addr = self.chmux.addr

    def __enter__(self):
        return self

    def __exit__(self, *args):
        try:
            self.chmux.__exit__(*args)
        finally:
            self.tap.stop()

    def ask(self, method, params, headers=(), body=None, client=None, path="/", **kw):
        """One request with a query_id of its own: (response, what was on the link)."""
        params = {**params, "query_id": new_id()}
        raw = http1.request(method, f"{path}?{urlencode(params)}", headers, body, **kw)
        with client or self.chmux.client() as k:
            k.send(raw)
            r = k.response(method)
        return r, self.tap.find(params["query_id"])

    def keep(self, client, method, params, headers=(), body=None, **kw):
        """The same on a client's connection, which stays open."""
        params = {**params, "query_id": new_id()}
        client.send(http1.request(method, "/?" + urlencode(params), headers, body, **kw))
        return client.response(method), self.tap.find(params["query_id"])

    def select(self, sql, accept=None, headers=(), **kw):
        headers = [*headers, ("Accept-Encoding", accept)] if accept is not None else list(headers)
        params = kw.pop("params", {})
        return self.ask("POST", params, headers, sql.encode(), **kw)

    def direct(self, sql, **params):
        """The plain answer of the server itself."""
        r = http1.ask(self.server.addr, "POST", "/?" + urlencode(params), (), sql.encode())
        assert r.complete, r
        return r


def target_params(head):
    return parse_qsl(head.target.partition("?")[2], keep_blank_values=True)


def not_visible(r, straight=None):
    """Nothing of what chmux asked for on the client's behalf is in the response. straight: the server's own, whose
    Vary (pages have one, results none) is kept."""
    text = r.status_line + "".join(f"\n{n}: {v}" for n, v in r.headers)
    assert "enable_http_compression" not in text, text
    assert r.all("Vary") == (straight.all("Vary") if straight else []), r.headers
    assert not [n for n, _ in r.headers if n.lower().startswith("x-chmux-") and n.lower() != "x-chmux-error"], r.headers


def framed_once(r):
    """Exactly one framing, and one Content-Encoding at most."""
    assert len(r.all("Content-Length")) + len(r.all("Transfer-Encoding")) <= 1, r.headers
    assert len(r.all("Content-Encoding")) <= 1, r.headers


def compressed(e, coding, plain):
    """The response of exchange e really was that coding, of these plain bytes, and smaller."""
    assert e.encoding == coding, (coding, e)
    assert e.response.body.startswith(MAGIC[coding]), e.response.body[:20]
    assert decode_all(coding, e.response.body) == plain
    if len(plain) > 4096:
        assert len(e.response.body) < len(plain), (len(e.response.body), len(plain))


# ---- a fake upstream that knows codings
def is_probe(h):
    """A question of chmux's own, not one of a test's requests."""
    return not (h.query_id or "").startswith("recode-")


def answer_probe(conn, h, codings=OURS):
    """As a server that knows these codings answers `SELECT 1`, in the first that was accepted."""
    conn.body(h)
    coding = next((c for c in OURS if c in accepted(h.header("Accept-Encoding")) and c in codings), None)
    body = encode(coding or "plain", b"1\n")
    conn.send(b"HTTP/1.1 200 OK\r\nConnection: Keep-Alive\r\n%sContent-Length: %d\r\n\r\n%s" % (
        b"Content-Encoding: %s\r\n" % coding.encode() if coding else b"", len(body), body))


def mine(conn):
    """The next request head that a test sent; chmux's own questions before it are answered."""
    while (h := conn.head()) is not None and is_probe(h):
        answer_probe(conn, h)
    return h


def serve_ok(conn):
    """A script: reads bodies whole and answers `ok`."""
    while (h := mine(conn)) is not None:
        if conn.body(h) is None:
            return
        conn.send(OK)
