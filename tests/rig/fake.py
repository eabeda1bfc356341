"""A scripted upstream: each accepted connection runs a Python function step by step, in a thread of
its own, against blocking calls that all have a deadline. Nothing is timed: a script waits for bytes,
for EOF, or for a barrier the test opens."""
import errno
import re
import select
import socket
import ssl
import struct
import threading

from .wait import DEADLINE, wait_until

OK_KEEP = (
    b"HTTP/1.1 200 OK\r\nConnection: Keep-Alive\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 3\r\nKeep-Alive: timeout=30, max=9999\r\n\r\nok\n"
)


def closed_by_peer(socks):
    """How many of these sockets the other side has closed or reset already, or a script has reset."""
    p = select.poll()
    ours = 0
    for s in socks:
        if (fd := s.fileno()) >= 0:
            p.register(fd, select.POLLRDHUP)
        else:
            ours += 1
    return ours + len(p.poll(0))  # POLLHUP and POLLERR are always told


class Head:
    """A request head as the fake read it."""

    def __init__(self, raw):
        self.raw = raw
        lines = raw[:-4].split(b"\r\n")
        self.line = lines[0].decode("latin-1")
        self.method, self.target, self.version = self.line.split(" ")
        self.headers = []
        for h in lines[1:]:
            n, _, v = h.partition(b":")
            self.headers.append((n.decode("latin-1"), v.strip().decode("latin-1")))

    def header(self, name, default=None):
        for n, v in self.headers:
            if n.lower() == name.lower():
                return v
        return default

    @property
    def path(self):
        return self.target.partition("?")[0]

    @property
    def query_id(self):
        m = re.search(r"[?&]query_id=([^&]*)", self.target)
        return m.group(1) if m else self.header("X-ClickHouse-Query-Id")


class Conn:
    """One accepted connection, as a script sees it."""

    def __init__(self, sock, number, fake):
        self.sock = sock
        self.number = number  # 1 for the first accepted
        self.fake = fake
        self.buf = bytearray()
        self.heads = []
        self.received = bytearray()  # every byte that came, unless the fake was told not to keep them
        self.received_count = 0
        self.eof = threading.Event()  # the peer has closed or reset
        self.was_reset = False
        self.closed = False
        self.done = False  # its script has returned

    def _fill(self):
        try:
            data = self.sock.recv(262144)
        except (ConnectionResetError, ssl.SSLEOFError):
            self.was_reset = True
            data = b""
        if not data:
            self.eof.set()
            return False
        self.received_count += len(data)
        if self.fake.keep_bytes:
            self.received += data
        self.buf += data
        return True

    # ---- expect
    def head(self):
        """The next request head; None when the peer closes between requests."""
        while (end := self.buf.find(b"\r\n\r\n")) < 0:
            if not self._fill():
                if self.buf:
                    raise AssertionError(f"peer closed inside a head: {bytes(self.buf[:200])!r}")
                return None
        raw = bytes(self.buf[: end + 4])
        del self.buf[: end + 4]
        h = Head(raw)
        self.heads.append(h)
        with self.fake.lock:
            self.fake.heads.append((self.number, h))
        return h

    def take(self, n):
        """Exactly n bytes; None when the peer closes first."""
        while len(self.buf) < n:
            if not self._fill():
                return None
        out = bytes(self.buf[:n])
        del self.buf[:n]
        return out

    def line(self):
        """The next line without its end; None when the peer closes first."""
        while b"\r\n" not in self.buf:
            if not self._fill():
                return None
        line, _, rest = bytes(self.buf).partition(b"\r\n")
        self.buf = bytearray(rest)
        return line

    def chunk(self):
        """The next chunk of a chunked body, b"" at its last; None when the peer closes first."""
        line = self.line()
        size = None if line is None else int(line.split(b";")[0], 16)
        if not size:
            return None if size is None else b""
        data = self.take(size + 2)
        return None if data is None else data[:-2]

    def body(self, head):
        """The body of a request, de-chunked; None when it was cut."""
        if (head.header("Transfer-Encoding") or "").lower() == "chunked":
            out = bytearray()
            while part := self.chunk():
                out += part
            while part is not None:  # trailers
                part = self.line()
                if part == b"":
                    return bytes(out)
            return None
        return self.take(int(head.header("Content-Length") or 0))

    def request(self):
        """(head, body) of the next request; None when the peer closes before its end."""
        h = self.head()
        body = None if h is None else self.body(h)
        return None if body is None else (h, body)

    def wait_eof(self):
        """Reads and drops everything until the peer closes."""
        while self._fill():
            self.buf.clear()

    # ---- act
    def send(self, data):
        self.sock.sendall(data)
        return self

    def send_pieces(self, data, size=1):
        for i in range(0, len(data), size):
            self.sock.sendall(data[i : i + size])
        return self

    def stall(self, barrier):
        """Neither reads nor writes until the test opens the barrier."""
        if not barrier.wait(self.fake.deadline):
            raise AssertionError("a barrier of the fake upstream was never opened")

    def half_close(self):
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as e:
            if e.errno != errno.ENOTCONN:  # it is: the peer was faster to close
                raise
            self.eof.set()

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self):
        if not self.closed:
            self.closed = True
            self.sock.close()


def serve_ok(conn):
    """The default script: answers every request with `ok`, reading bodies whole."""
    while conn.request() is not None:
        conn.send(OK_KEEP)


class FakeUpstream:
    """Listens on loopback. script: a function of Conn, or a list of them, one per connection in order
    (the last one repeats). A script that returns closes its connection."""

    def __init__(self, script=serve_ok, tls=None, keep_bytes=True, deadline=DEADLINE, family=socket.AF_INET,
                 backlog=512, rcvbuf=None, host=None, port=0):
        self.script = script
        self.tls = tls
        self.keep_bytes = keep_bytes
        self.deadline = deadline
        self.lock = threading.Lock()
        self.conns = []
        self.heads = []  # (connection number, Head) in order of arrival
        self.errors = []
        self.open = 0
        self.peak = 0
        self.tls_resumed = 0
        self.tls_full = 0
        self.threads = []
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if rcvbuf:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.sock.bind((host or ("::1" if family == socket.AF_INET6 else "127.0.0.1"), port))
        self.sock.listen(backlog)
        self.addr = self.sock.getsockname()[:2]
        self.port = self.addr[1]
        self.stopping = False
        self.acceptor = threading.Thread(target=self._accept, daemon=True)
        self.acceptor.start()

    @property
    def url(self):
        host = f"[{self.addr[0]}]" if ":" in self.addr[0] else self.addr[0]
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    @property
    def accepted(self):
        return len(self.conns)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.stop()
        if kind is None:
            assert not self.errors, f"the fake upstream's script failed: {self.errors}"

    def _accept(self):
        while not self.stopping:
            try:
                s, _ = self.sock.accept()
            except OSError:
                return
            with self.lock:
                conn = Conn(s, len(self.conns) + 1, self)
                self.conns.append(conn)
                self.open += 1
                # One that chmux has closed may still wait for its script to notice: not counted here.
                self.peak = max(self.peak, self.open - closed_by_peer(c.sock for c in self.conns if not c.done))
            t = threading.Thread(target=self._serve, args=(conn,), daemon=True)
            t.start()
            self.threads.append(t)

    def _serve(self, conn):
        try:
            conn.sock.settimeout(self.deadline)
            if self.tls is None:
                conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            else:
                conn.sock = self.tls.wrap_socket(conn.sock, server_side=True)
                with self.lock:
                    if conn.sock.session_reused:
                        self.tls_resumed += 1
                    else:
                        self.tls_full += 1
            script = self.script
            if isinstance(script, (list, tuple)):
                script = script[min(conn.number, len(script)) - 1]
            script(conn)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            conn.eof.set()  # the peer went away while we wrote: scripts that care look at eof
        except TimeoutError as e:
            if not self.stopping:
                self.errors.append(f"connection {conn.number}: deadline: {e}")
        except OSError as e:
            if not self.stopping:
                self.errors.append(f"connection {conn.number}: {e}")
        except AssertionError as e:
            self.errors.append(f"connection {conn.number}: {e}")
        finally:
            # Counted as gone before the peer can see it, so the count never lags behind chmux.
            with self.lock:
                self.open -= 1
                conn.done = True
            conn.close()

    def wait_accepted(self, n, deadline=DEADLINE):
        wait_until(lambda: len(self.conns) >= n, deadline, f"{n} connections at the fake upstream")
        return self.conns[n - 1]

    def wait_heads(self, n, deadline=DEADLINE):
        wait_until(lambda: len(self.heads) >= n, deadline, f"{n} requests at the fake upstream")
        return self.heads[n - 1][1]

    def wait_open(self, n, deadline=DEADLINE):
        wait_until(lambda: self.open == n, deadline, f"{n} open connections at the fake upstream")

    def stop(self):
        if self.stopping:
            return
        self.stopping = True
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.sock.close()
        self.acceptor.join(2)
        for c in list(self.conns):
            try:
                c.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for t in self.threads:
            t.join(2)


class Silent:
    """A port that accepts in the kernel and never answers; with full=True not even that: its accept
    queue is full, so a connect hangs."""

    def __init__(self, full=False):
        self.sock = socket.socket()
        self.sock.bind(("127.0.0.1", 0))
        self.sock.listen(0 if full else 128)
        self.addr = self.sock.getsockname()
        self.url = f"http://127.0.0.1:{self.addr[1]}"
        self.fill = []
        if full:
            for _ in range(4):
                s = socket.socket()
                s.setblocking(False)
                s.connect_ex(self.addr)
                self.fill.append(s)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for s in self.fill:
            s.close()
        self.sock.close()


def free_port():
    """A port nobody listens on just now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
