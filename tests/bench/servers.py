"""The real server of issue 3's rows: ClickHouse 26.7 (embedded), and TLS in front of it."""
import os
import re
import selectors
import socket
import shutil
import subprocess
import tempfile
import threading

import procs
from data import COLUMNS, DATA
from procs import BenchError, Proc

RIG = os.path.join(os.path.dirname(procs.HERE), "rig")


class ClickHouse(Proc):
    """26.7 with the table `events` of rows rows, and `sink`, which takes and forgets. It listens on
    127.0.0.1 of its network namespace, and on address."""
    tls = None

    def __init__(self, rows, address="127.0.0.1", prefix=()):
        fetched = subprocess.run([os.path.join(RIG, "start-clickhouse.sh"), "fetch"], check=True,
                                 stdout=subprocess.PIPE, text=True).stdout
        launcher, library = fetched.split()
        self.dir = tempfile.mkdtemp(prefix="chmux-bench-clickhouse-")
        self.address, self.prefix, self.rows = address, list(prefix), rows
        super().__init__(
            [launcher, "--lib", library, "--config", os.path.join(procs.HERE, "clickhouse.xml"),
             "--dir", self.dir, "--with-parent"], procs.ALL_CORES, prefix,
            env={"BENCH_LISTEN": address})
        m = re.match(r"ready http=(\d+)", self.popen.stdout.readline())
        if not m:
            self.stop()
            raise BenchError("ClickHouse: " + self.stderr_text())
        self.port = int(m.group(1))
        try:
            self._fill()
        except BaseException:
            self.stop()
            raise

    def _fill(self):
        self.sql("CREATE TABLE events (%s) ENGINE = MergeTree ORDER BY id" % COLUMNS)
        self.sql("CREATE TABLE sink (%s) ENGINE = Null" % COLUMNS)
        self.sql("INSERT INTO events FORMAT RowBinary", DATA.plain("RowBinary", self.rows))

    def sql(self, query, body_file=None):
        argv = self.prefix + ["curl", "-sS", "--fail-with-body", "-H", "Expect:",
                              "http://127.0.0.1:%d/" % self.port, "--url-query", "query=" + query,
                              "--data-binary", "@" + body_file if body_file else ""]
        r = subprocess.run(argv, capture_output=True, text=True, timeout=120)
        if r.returncode != 0:
            raise BenchError("%s: %s%s" % (query, r.stdout, r.stderr))
        return r.stdout

    def url(self, address=None):
        return "http://%s:%d" % (address or self.address, self.port)

    def stop(self, *sig):
        code = super().stop(*sig)
        shutil.rmtree(self.dir, ignore_errors=True)
        return code


class TlsFront(Proc):
    """haproxy: TLS 1.3 on address in front of a plain server on 127.0.0.1 of the same namespace."""
    tls = "1.3"

    CONF = """
global
  nbthread 1
  maxconn 4000
  ssl-default-bind-options ssl-min-ver TLSv1.3
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen front
  bind {address}:{port} ssl crt {pem} backlog 1024
  server up 127.0.0.1:{to}
"""

    def __init__(self, server, address, prefix=()):
        self.address, self.port = address, procs.free_port()
        self.dir = tempfile.mkdtemp(prefix="chmux-bench-")
        pem = os.path.join(self.dir, "pem")
        with open(pem, "w") as out:
            for path in (procs.CERTS.cert, procs.CERTS.key):
                with open(path) as f:
                    out.write(f.read())
        conf = os.path.join(self.dir, "haproxy.cfg")
        with open(conf, "w") as f:
            f.write(self.CONF.format(address=address, port=self.port, pem=pem, to=server.port))
        super().__init__(["haproxy", "-db", "-q", "-f", conf], procs.ALL_CORES, prefix,
                         stdout=subprocess.DEVNULL)
        self.wait_listening(self.port)

    def url(self, address=None):
        return "https://%s:%d" % (address or self.address, self.port)

    def stop(self, *sig):
        code = super().stop(*sig)
        shutil.rmtree(self.dir, ignore_errors=True)
        return code


class CountingRelay:
    """In front of a server on loopback: up and down are the bytes that went by, heads included."""
    tls = None

    def __init__(self, server):
        self.up = self.down = 0
        self.address = "127.0.0.1"
        self.target = (server.address, server.port)
        self.listener = socket.create_server((self.address, 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        self.open = []
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, address=None):
        return "http://%s:%d" % (address or self.address, self.port)

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
                server = socket.create_connection(self.target)
            except OSError:
                return
            self.open += [client, server]
            threading.Thread(target=self._pump, args=(client, server), daemon=True).start()

    def _pump(self, client, server):
        with selectors.DefaultSelector() as sel, client, server:
            sel.register(client, selectors.EVENT_READ)
            sel.register(server, selectors.EVENT_READ)
            while True:
                for key, _ in sel.select():
                    try:
                        data = key.fileobj.recv(262144)
                        if key.fileobj is client:
                            self.up += len(data)
                        else:
                            self.down += len(data)
                        (server if key.fileobj is client else client).sendall(data)
                    except OSError:
                        return
                    if not data:
                        return

    def take(self):
        """(up, down) since the last call."""
        counts = (self.up, self.down)
        self.up = self.down = 0
        return counts

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for s in self.open:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has ended by itself
