"""A raw HTTP/1.1 client: sends exactly the bytes it is given, reads responses strictly, and says how
each body ended. Used both straight at ClickHouse and through chmux."""
import socket
import struct
import time

TIMEOUT = 30.0


class Closed(Exception):
    """The peer ended the connection (EOF or reset) where bytes were needed."""


class Response:
    def __init__(self):
        self.interim = []  # status lines of 1xx responses
        self.status_line = None
        self.status = 0
        self.headers = []  # (name, value) as they came
        self.body = b""
        self.ended = None  # complete | short | reset | timeout | bad: ...
        self.framing = None  # none | length | chunked | close | upgrade
        self.chunks = []  # (seconds since the read began, size) of each chunk
        self.trailers = b""

    def header(self, name, default=None):
        """The first value of a header; case does not matter."""
        for n, v in self.headers:
            if n.lower() == name.lower():
                return v
        return default

    def all(self, name):
        return [v for n, v in self.headers if n.lower() == name.lower()]

    @property
    def text(self):
        return self.body.decode("utf-8", "replace")

    @property
    def complete(self):
        return self.ended == "complete"

    def __repr__(self):
        return f"<{self.status_line} {self.framing} {self.ended} {self.body[:300]!r}>"


def connect(addr, timeout=TIMEOUT, source=None):
    """addr: (host, port), or a unix path ('@name' for an abstract one)."""
    if isinstance(addr, str):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        s.settimeout(timeout)
        s.connect("\0" + addr[1:] if addr.startswith("@") else addr)
        return s
    s = socket.create_connection(addr, timeout=timeout, source_address=source)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


class RawClient:
    """One connection. Reads are buffered; every read has the socket's timeout."""

    def __init__(self, addr, timeout=TIMEOUT, sock=None):
        self.sock = sock or connect(addr, timeout)
        self.buf = bytearray()
        self.was_reset = False
        self.received = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # ---- writing
    def send(self, data):
        self.sock.sendall(data)
        return self

    def send_pieces(self, data, size=1):
        for i in range(0, len(data), size):
            self.sock.sendall(data[i : i + size])
        return self

    def half_close(self):
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self):
        """Close with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self):
        self.sock.close()

    # ---- reading
    def fill(self, size=65536):
        """Reads once into the buffer; Closed at the end of the stream."""
        try:
            data = self.sock.recv(size)
        except ConnectionResetError:
            self.was_reset = True
            data = b""
        if not data:
            raise Closed("reset" if self.was_reset else "eof")
        self.received += len(data)
        self.buf += data

    def take(self, n):
        while len(self.buf) < n:
            self.fill()
        out = bytes(self.buf[:n])
        del self.buf[:n]
        return out

    def line(self):
        at = 0
        while True:
            i = self.buf.find(b"\n", at)
            if i >= 0:
                return self.take(i + 1)
            at = len(self.buf)
            self.fill()

    def until(self, marker):
        while marker not in self.buf:
            self.fill()
        return self.take(self.buf.index(marker) + len(marker))

    def at_eof(self):
        """True when the peer ends the connection without another byte."""
        if self.buf:
            return False
        try:
            self.fill()
        except Closed:
            return True
        return False

    def head(self, r=None):
        """Status line and headers, 1xx ones noted and skipped (101 ends it)."""
        r = r or Response()
        while True:
            line = self.line()
            if not line.endswith(b"\r\n") or not line.startswith(b"HTTP/"):
                raise AssertionError(f"not a status line: {line!r}")
            r.status_line = line[:-2].decode("latin-1")
            r.status = int(r.status_line.split(" ")[1])
            headers = []
            while (h := self.line()) != b"\r\n":
                assert h.endswith(b"\r\n"), f"bare LF in a header: {h!r}"
                name, colon, value = h[:-2].partition(b":")
                assert colon, f"no colon: {h!r}"
                headers.append((name.decode("latin-1"), value.strip(b" \t").decode("latin-1")))
            if 100 <= r.status < 200 and r.status != 101:
                r.interim.append(r.status_line)
                continue
            r.headers = headers
            return r

    def response(self, method="GET"):
        """A whole response. Never raises for a body that ends badly: look at .ended."""
        r = Response()
        begin = time.monotonic()
        try:
            self.head(r)
        except Closed as e:
            r.ended = "short" if str(e) == "eof" else "reset"
            return r
        except TimeoutError:
            r.ended = "timeout"
            return r
        try:
            self._body(r, method, begin)
        except Closed as e:
            r.ended = "short" if str(e) == "eof" else "reset"
        except TimeoutError:
            r.ended = "timeout"
        except AssertionError as e:
            r.ended = f"bad: {e}"
        return r

    def _body(self, r, method, begin):
        te = (r.header("Transfer-Encoding") or "").lower()
        length = r.header("Content-Length")
        if r.status == 101:
            r.framing, r.ended = "upgrade", "complete"
        elif method == "HEAD" or r.status in (204, 304):
            r.framing, r.ended = "none", "complete"
        elif te == "chunked":
            r.framing = "chunked"
            self._chunked(r, begin)
        elif length is not None:
            r.framing = "length"
            self._collect(r, int(length))
            r.ended = "complete"
        else:
            r.framing = "close"
            try:
                while True:
                    self.fill()
            except Closed as e:
                r.body = bytes(self.buf)
                self.buf.clear()
                r.ended = "complete" if str(e) == "eof" else "reset"

    def _collect(self, r, n):
        """n more body bytes; what came before a cut is kept in r.body."""
        try:
            r.body += self.take(n)
        except Closed:
            r.body += bytes(self.buf)
            self.buf.clear()
            raise

    def _chunked(self, r, begin):
        parts = []
        try:
            while True:
                line = self.line()
                assert line.endswith(b"\r\n"), "bare LF after a chunk size"
                size = int(line[:-2].split(b";")[0], 16)
                if size == 0:
                    while (t := self.line()) != b"\r\n":
                        r.trailers += t
                    r.ended = "complete"
                    return
                try:
                    parts.append(self.take(size))
                except Closed:
                    parts.append(bytes(self.buf))
                    self.buf.clear()
                    raise
                r.chunks.append((time.monotonic() - begin, size))
                assert self.take(2) == b"\r\n", "no CRLF after a chunk"
        finally:
            r.body = b"".join(parts)


def request(method, target, headers=(), body=None, version="HTTP/1.1", host="127.0.0.1", chunked=False):
    """The bytes of a request. headers: (name, value) pairs in order. host None leaves Host out; a body
    gets a Content-Length unless chunked or the headers name one."""
    lines = [f"{method} {target} {version}"]
    if host is not None:
        lines.append(f"Host: {host}")
    lines += [f"{n}: {v}" for n, v in headers]
    names = {n.lower() for n, _ in headers}
    if body is not None and not names & {"content-length", "transfer-encoding"}:
        lines.append("Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}")
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    if body is None:
        return head
    return head + (chunk_body(body, 65536) if chunked else body)


def chunk_body(body, size):
    """body in chunks of size bytes, with the 0 chunk."""
    out = bytearray()
    for i in range(0, len(body), size):
        part = body[i : i + size]
        out += b"%x\r\n" % len(part) + part + b"\r\n"
    return bytes(out) + b"0\r\n\r\n"


def ask(addr, method="GET", target="/", headers=(), body=None, timeout=TIMEOUT, **kw):
    """One request on a connection of its own; the Response."""
    with RawClient(addr, timeout) as c:
        try:
            c.send(request(method, target, headers, body, **kw))
        except (BrokenPipeError, ConnectionResetError):
            pass  # answered early: the response is still to be read
        return c.response(method)


def sql(addr, query, timeout=TIMEOUT, user=None, password=None, **params):
    """Runs SQL by POST and returns the body text; AssertionError on any error."""
    from urllib.parse import urlencode

    headers = [("X-ClickHouse-User", user), ("X-ClickHouse-Key", password)] if user else []
    target = "/?" + urlencode(params) if params else "/"
    r = ask(addr, "POST", target, headers, query.encode(), timeout)
    assert r.status == 200 and r.complete, f"{query!r}: {r}"
    return r.text
