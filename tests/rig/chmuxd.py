"""chmuxd under test: started on free ports, watched through its admin address, stopped by SIGTERM and
judged: exit code, sanitizer reports."""
import functools
import os
import re
import signal
import subprocess
import threading

from . import http1
from .clickhouse import die_with_parent
from .wait import DEADLINE, wait_until

EXIT_CLEAN, EXIT_START, EXIT_USAGE, EXIT_CUT = 0, 1, 2, 3
SANITIZER = re.compile(r"(ERROR: (Address|Leak)Sanitizer|WARNING: ThreadSanitizer|runtime error:|DEADLYSIGNAL)")
START_LINE = re.compile(r"^chmuxd: (listening|admin) on (\S+)(?: \((\S+)\))?$")


def binary():
    path = os.environ.get("CHMUXD")
    assert path, "set CHMUXD to the chmuxd binary under test"
    assert os.access(path, os.X_OK), f"CHMUXD={path} is not an executable file"
    return os.path.abspath(path)


@functools.lru_cache
def sanitizer():
    """'address', 'thread' or '' by what the binary was built with."""
    with open(binary(), "rb") as f:
        data = f.read()
    if b"__asan_init" in data:
        return "address"
    return "thread" if b"__tsan_init" in data else ""


def parse_addr(text):
    """'127.0.0.1:1', '[::1]:1' or 'unix:/path' as http1.connect() takes it."""
    if text.startswith("unix:"):
        return text[5:]
    host, _, port = text.rpartition(":")
    return (host.strip("[]"), int(port))


def run(*args, env=None, timeout=30):
    """chmuxd run to its end (--help, --check, starts that must fail): the CompletedProcess."""
    return subprocess.run([binary(), *args], capture_output=True, text=True, timeout=timeout,
                          env={**os.environ, **(env or {})}, preexec_fn=die_with_parent)


def codec_niceness(proc):
    """The niceness of each codec thread, by the process's folder in /proc."""
    found = []
    for task in os.listdir(proc + "/task"):
        with open(f"{proc}/task/{task}/stat") as f:
            name, _, rest = f.read().partition("(")[2].rpartition(")")
        if name == "chmux-codec":
            found.append(int(rest.split()[16]))
    return found


class Chmuxd:
    """upstream: URL or list of URLs. options: section.key settings with '.' or '__' ("upstream__pool_size").
    listen: addresses, by default one free loopback port. admin: None for no admin listener. prefix: a command that
    runs chmuxd in the end; pass_fds: descriptors it keeps."""

    def __init__(self, upstream=None, listen=("127.0.0.1:0",), admin="127.0.0.1:0", args=(), env=None, wait=True,
                 config=None, preexec=None, prefix=(), pass_fds=(), **options):
        cmd = [*prefix, binary()]
        if config:
            cmd += ["--config", str(config)]
        for a in listen:
            cmd += ["--listen", a]
        if admin:
            cmd += ["--admin", admin]
        if upstream:
            cmd += ["--upstream", upstream if isinstance(upstream, str) else ",".join(upstream)]
        for k, v in options.items():
            cmd += ["--set", f"{k.replace('__', '.', 1)}={v}"]
        cmd += list(args)
        self.cmd = cmd

        def before():
            die_with_parent()
            if preexec:
                preexec()

        self.proc = subprocess.Popen(cmd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
                                     env={**os.environ, **(env or {})}, preexec_fn=before, pass_fds=pass_fds)
        self.pid = self.proc.pid
        self.stdout_lines, self.stderr_lines = [], []
        self.threads = [self._reader(self.proc.stdout, self.stdout_lines), self._reader(self.proc.stderr, self.stderr_lines)]
        self.listen_count = len(listen)
        self.wants_admin = bool(admin)
        self.exit_code = None
        self.judged = False
        if wait:
            self.wait_started()

    @staticmethod
    def _reader(stream, lines):
        def read():
            for line in stream:
                lines.append(line.rstrip("\n"))

        t = threading.Thread(target=read, daemon=True)
        t.start()
        return t

    # ---- start lines
    def _bound(self):
        found = [m for m in map(START_LINE.match, list(self.stdout_lines)) if m]
        return ([(m.group(2), m.group(3)) for m in found if m.group(1) == "listening"],
                [m.group(2) for m in found if m.group(1) == "admin"])

    def wait_started(self, deadline=DEADLINE * 2):
        def started():
            listening, admin = self._bound()
            if self.proc.poll() is not None:
                for t in self.threads:
                    t.join(2)
                raise AssertionError(f"chmuxd ended at start ({self.proc.returncode}): {self.stderr}\n{self.cmd}")
            return len(listening) >= self.listen_count and len(admin) >= self.wants_admin

        wait_until(started, deadline, f"the start lines of {' '.join(self.cmd)}; so far {self.stdout_lines}")
        self.addrs = [parse_addr(a) for a, _ in self._bound()[0]]
        self.addr = self.addrs[0] if self.addrs else None
        self.admin_addr = parse_addr(self._bound()[1][0]) if self.wants_admin else None

    @property
    def stderr(self):
        return "\n".join(self.stderr_lines)

    @property
    def url(self):
        return f"http://{self.addr[0]}:{self.addr[1]}"

    @property
    def admin_addrs(self):
        return [parse_addr(a) for a in self._bound()[1]]

    # ---- asking it
    def client(self, **kw):
        return http1.RawClient(self.addr, **kw)

    def ask(self, method="GET", target="/", headers=(), body=None, **kw):
        return http1.ask(self.addr, method, target, headers, body, **kw)

    def sql(self, query, **kw):
        return http1.sql(self.addr, query, **kw)

    def admin(self, path, method="GET"):
        return http1.ask(self.admin_addr, method, path)

    def metrics(self):
        """{'name{labels}': float}; a family with labels also as 'name' holding the sum, and one with the
        label upstream also without that label."""
        r = self.admin("/metrics")
        assert r.status == 200 and r.complete, r
        out = {}
        for line in r.text.splitlines():
            if line and not line.startswith("#"):
                key, _, value = line.rpartition(" ")
                out[key] = float(value)
                name, brace, _ = key.partition("{")
                sums = {name, re.sub(r',?upstream="[^"]*",?', "", key).replace("{}", "")} if brace else set()
                for total in sums - {key}:
                    out[total] = out.get(total, 0) + float(value)
        return out

    def metric(self, key):
        return self.metrics().get(key, 0)

    def wait_metric(self, key, value, deadline=DEADLINE):
        """Until the metric equals value, or value(metric) is true."""
        test = value if callable(value) else lambda v: v == value
        wait_until(lambda: test(self.metric(key)), deadline, f"{key} to become {value}")

    # ---- watching it
    def rss(self):
        """Resident bytes now."""
        with open(f"/proc/{self.pid}/statm") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def peak_rss(self):
        """Resident bytes at most so far."""
        with open(f"/proc/{self.pid}/status") as f:
            return int(re.search(r"VmHWM:\s+(\d+) kB", f.read()).group(1)) * 1024

    def cpu_seconds(self):
        with open(f"/proc/{self.pid}/stat") as f:
            fields = f.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def fds(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    # ---- ending it
    def signal(self, sig=signal.SIGTERM):
        self.proc.send_signal(sig)

    def wait_exit(self, deadline=DEADLINE * 4):
        self.exit_code = self.proc.wait(deadline)
        for t in self.threads:
            t.join(5)
        return self.exit_code

    def stop(self):
        """SIGQUIT (tests that care about the drain do it themselves), then the verdict."""
        if self.proc.poll() is None:
            self.proc.send_signal(signal.SIGQUIT)
            try:
                self.proc.wait(20)
            except subprocess.TimeoutExpired:
                self.proc.kill()
                self.proc.wait()
                raise AssertionError(f"chmuxd did not end on SIGQUIT; stderr: {self.stderr[-2000:]}")
        for t in self.threads:
            t.join(5)
        self.exit_code = self.proc.returncode
        self.judge()

    def judge(self):
        """No sanitizer report, no crash; once."""
        if self.judged:
            return
        self.judged = True
        hit = SANITIZER.search(self.stderr)
        assert not hit, f"sanitizer report:\n{self.stderr[-6000:]}"
        assert self.exit_code in (EXIT_CLEAN, EXIT_START, EXIT_USAGE, EXIT_CUT), \
            f"chmuxd ended with {self.exit_code}:\n{self.stderr[-4000:]}"

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            self.stop()
        except AssertionError:
            if kind is None:
                raise
