"""A relay that keeps every byte of both directions and reads them as HTTP afterwards: what really travelled
on the link between chmux and its server."""
from .fake import Head
from .http1 import Closed, RawClient
from .relay import Relay
from .wait import wait_until


class Recording:
    """One connection: bytes towards the server (up) and towards chmux (down)."""

    def __init__(self):
        self.up = bytearray()
        self.down = bytearray()
        self.open = True


class Bytes:
    """What RawClient reads from when the bytes are all there already."""

    def __init__(self, data):
        self.data = data

    def recv(self, _):
        out, self.data = self.data, b""
        return out


class Exchange:
    """One request and its response. body: as it travelled, de-chunked; None when it was cut."""

    def __init__(self, head, body, partial, response):
        self.head = head
        self.body = body
        self.partial = partial  # of a cut body: what came of it
        self.response = response

    @property
    def encoding(self):
        return self.response.header("Content-Encoding")

    def __repr__(self):
        return f"<{self.head.line[:200]} | body {None if self.body is None else len(self.body)} | {self.response}>"


def read_body(client, head):
    """(whole body or None, what came of it)."""
    parts = []
    try:
        if (head.header("Transfer-Encoding") or "").lower() == "chunked":
            while size := int(client.line().split(b";")[0], 16):
                while size > len(client.buf):
                    if client.buf:
                        size -= len(client.buf)
                        parts.append(client.take(len(client.buf)))
                    client.fill()
                parts.append(client.take(size))
                client.take(2)
            while client.line() != b"\r\n":
                pass
        elif n := int(head.header("Content-Length") or 0):
            parts.append(client.take(n))
    except (Closed, ValueError):
        parts.append(bytes(client.buf))
        client.buf.clear()
        return None, b"".join(parts)
    body = b"".join(parts)
    return body, body


class Tap(Relay):
    def __init__(self, target, **kw):
        self.recordings = []
        super().__init__(target, **kw)

    def opened(self):
        r = Recording()
        with self.lock:
            self.recordings.append(r)
        return r

    def passing(self, recording, towards_server, data):
        (recording.up if towards_server else recording.down).extend(data)

    def ended(self, recording):
        recording.open = False

    def forget(self):
        """Drops what was recorded so far; only while nothing is under way."""
        with self.lock:
            self.recordings = [r for r in self.recordings if r.open]
            for r in self.recordings:
                r.up.clear()
                r.down.clear()

    def exchanges(self):
        """All that began since the last forget(), connection by connection."""
        out = []
        with self.lock:
            recordings = list(self.recordings)
        for r in recordings:
            up, down = RawClient(None, sock=Bytes(bytes(r.up))), RawClient(None, sock=Bytes(bytes(r.down)))
            while True:
                try:
                    head = Head(up.until(b"\r\n\r\n"))
                except Closed:
                    break
                body, partial = read_body(up, head)
                out.append(Exchange(head, body, partial, down.response(head.method)))
        return out

    def find(self, query_id, deadline=5):
        """The exchange of that query_id; waits for it to be there."""

        def look():
            return [e for e in self.exchanges() if e.head.query_id == query_id]

        return wait_until(look, deadline, f"{query_id} on the link; it carried {self.exchanges()}")[-1]
