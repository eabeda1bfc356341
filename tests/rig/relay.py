"""A plain TCP relay in front of a server, on TCP or a unix socket. It counts connections, and on command it stops passing
bytes, cuts after a number of bytes (inside a TLS record, say), or resets."""
import selectors
import socket
import struct
import threading

from .fake import closed_by_peer
from .http1 import connect


class Relay:
    def __init__(self, target, cut_down_after=None, reset=False):
        """cut_down_after: bytes towards the client after which each connection is ended."""
        self.target = target
        self.cut_down_after = cut_down_after
        self.reset = reset
        self.accepted = 0
        self.open = 0
        self.peak = 0
        self.down = 0  # bytes towards the client, all connections
        self.lock = threading.Lock()
        self.paused = threading.Event()
        self.stopping = False
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.addr = self.sock.getsockname()
        self.port = self.addr[1]
        self.live = set()
        self.clients = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def _accept(self):
        while True:
            try:
                c, _ = self.sock.accept()
            except OSError:
                return
            with self.lock:
                self.accepted += 1
                self.open += 1
                self.clients.add(c)
                self.peak = max(self.peak, self.open - closed_by_peer(self.clients))
            threading.Thread(target=self._pump, args=(c,), daemon=True).start()

    # ---- for a subclass that listens in
    def opened(self):
        """A connection was accepted; what is returned is handed to the two below."""

    def passing(self, connection, towards_server, data):
        """These bytes are about to be passed on."""

    def ended(self, connection):
        """It is closed."""

    def _pump(self, client):
        server = None
        connection = self.opened()
        try:
            server = connect(self.target, timeout=None)
            with self.lock:
                self.live |= {client, server}
            sel = selectors.DefaultSelector()
            sel.register(client, selectors.EVENT_READ, server)
            sel.register(server, selectors.EVENT_READ, client)
            down = 0
            while True:
                for key, _ in sel.select():
                    data = key.fileobj.recv(65536)
                    if not data:
                        return
                    if key.fileobj is server:
                        if self.cut_down_after is not None:
                            data = data[: max(0, self.cut_down_after - down)]
                        down += len(data)
                        with self.lock:
                            self.down += len(data)
                    self.passing(connection, key.fileobj is client, data)
                    key.data.sendall(data)
                    if self.cut_down_after is not None and down >= self.cut_down_after:
                        return
        except OSError:
            return
        finally:
            self.ended(connection)
            with self.lock:
                self.open -= 1
                self.clients.discard(client)
                self.live -= {client, server}
            if self.reset:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            if server:
                server.close()

    def cut_all(self):
        """Ends every open connection now."""
        with self.lock:
            live = list(self.live)
        for s in live:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def stop(self):
        self.stopping = True
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.sock.close()
        self.cut_all()
