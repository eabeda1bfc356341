"""The real servers: 26.7 (embedded, by chserver) and 18.16 (Debian's clickhouse-server), each on free
ports with its own folder; neither touches the system's service or data."""
import ctypes
import os
import re
import signal
import subprocess

from . import http1
from .wait import wait_until

HERE = os.path.dirname(os.path.abspath(__file__))
_libc = ctypes.CDLL(None)


def die_with_parent():
    """preexec_fn: the child gets SIGTERM when the test run dies (prctl PR_SET_PDEATHSIG)."""
    _libc.prctl(1, signal.SIGTERM)


class Server:
    """addr and url of the HTTP port; sql() asks it directly."""

    version = ""

    def sql(self, query, **kw):
        return http1.sql(self.addr, query, **kw)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.addr[1]}"

    def ping(self):
        try:
            return http1.ask(self.addr, target="/ping", timeout=5).body == b"Ok.\n"
        except OSError:
            return False

    def ensure_alive(self):
        """After a test: the embedded server may have aborted; it comes back on the same port."""
        wait_until(self.ping, 60, f"ClickHouse {self.version} to answer /ping")

    def queries(self, where="1"):
        """Running queries, the asking one aside: query_ids."""
        out = self.sql(f"SELECT query_id FROM system.processes WHERE query NOT LIKE '%system.processes%' AND ({where})")
        return out.split()

    def stop(self):
        if self.proc.poll() is None:
            self.proc.terminate()
        try:
            self.proc.wait(10)
        except subprocess.TimeoutExpired:
            self.proc.kill()
            self.proc.wait()


class ClickHouse26(Server):
    version = "26.7"

    def __init__(self, folder):
        os.makedirs(folder, exist_ok=True)
        out = subprocess.run([os.path.join(HERE, "start-clickhouse.sh"), "fetch"], stdout=subprocess.PIPE, text=True, check=True)
        launcher, library = out.stdout.split()
        self.log = open(os.path.join(folder, "log"), "w")
        self.proc = subprocess.Popen(
            [launcher, "--lib", library, "--config", os.path.join(HERE, "clickhouse-26/config.xml"),
             "--dir", os.path.join(folder, "data"), "--with-parent"],
            stdout=subprocess.PIPE, stderr=self.log, text=True)
        line = self.proc.stdout.readline()
        m = re.match(r"ready http=(\d+) tcp=(\d+)", line)
        assert m, f"ClickHouse 26.7 did not start: {line!r}; see {self.log.name}"
        self.addr = ("127.0.0.1", int(m.group(1)))
        self.tcp_port = int(m.group(2))

    def restarts(self):
        with open(self.log.name) as f:
            return f.read().count("the server died")


class ClickHouse18(Server):
    version = "18.16"
    binary = "/usr/sbin/clickhouse-server"

    def __init__(self, folder):
        from .fake import free_port

        folder = os.path.join(folder, "")
        env = dict(os.environ)
        for name in ("data", "tmp", "files", "schemas"):
            os.makedirs(folder + name, exist_ok=True)
            env["CHSERVER_" + name.upper()] = folder + name + "/"
        env["CHSERVER_USERS"] = os.path.join(HERE, "clickhouse-18/users.xml")
        self.log = open(folder + "log", "w")
        for _ in range(5):  # somebody else may take a port between the look and the start
            port = free_port()
            env["CHSERVER_HTTP"], env["CHSERVER_TCP"] = str(port), str(free_port())
            self.addr = ("127.0.0.1", port)
            self.proc = subprocess.Popen(
                [self.binary, "--config-file=" + os.path.join(HERE, "clickhouse-18/config.xml")],
                stdout=self.log, stderr=self.log, env=env, cwd=folder, preexec_fn=die_with_parent)
            wait_until(lambda: self.ping() or self.proc.poll() is not None, 60, "ClickHouse 18.16 to start")
            if self.proc.poll() is None:
                return
        raise AssertionError(f"ClickHouse 18.16 did not start; see {self.log.name}")
