"""What the bench runs: its own C programs, chmuxd, nginx and haproxy, each pinned, ended by pid."""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BUILD = os.environ.get("BENCH_BUILD", os.path.join(ROOT, "build", "bench"))
CHMUXD = os.environ.get("CHMUXD", os.path.join(ROOT, "build", "release", "chmuxd"))
CAP = 16

CORES = sorted(os.sched_getaffinity(0))
PROXY_CORE = {CORES[0]}
PEER_CORE = {CORES[-1]}  # load generator and upstream
ALL_CORES = set(CORES)   # where one core for the proxy would leave its workers nothing


class BenchError(Exception):
    pass


def build():
    subprocess.run(["make", "-s", "-C", HERE, "OUT=" + BUILD], check=True)


def wait_until(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise BenchError("timeout: " + what)
        time.sleep(0.02)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def listens(pid, port):
    """Whether someone listens on the port in the network namespace of the process."""
    want = ":%04X" % port
    with open("/proc/%d/net/tcp" % pid) as f:
        return any(l.split()[1].endswith(want) and l.split()[3] == "0A" for l in list(f)[1:])


class Proc:
    """A child process of the bench. prefix wraps the command (ip netns exec, valgrind)."""

    def __init__(self, argv, cores, prefix=(), stdout=subprocess.PIPE, log=None, env=None,
                 stdin=subprocess.DEVNULL):
        self.log = log or tempfile.TemporaryFile("w+")
        self.popen = subprocess.Popen(
            list(prefix) + argv, stdin=stdin, stdout=stdout, stderr=self.log,
            text=True, env=dict(os.environ, **(env or {})),
            preexec_fn=lambda: os.sched_setaffinity(0, cores))
        self.pid = self.popen.pid

    def stderr_text(self):
        self.log.seek(0)
        return self.log.read()

    def pids(self):
        """The process and all that came from it."""
        found, todo = [], [self.pid]
        while todo:
            pid = todo.pop()
            try:
                for task in os.listdir("/proc/%d/task" % pid):
                    with open("/proc/%d/task/%s/children" % (pid, task)) as f:
                        todo += [int(x) for x in f.read().split()]
                found.append(pid)
            except FileNotFoundError:
                continue  # it ended meanwhile
        return found

    def wait_listening(self, port, seconds=10):
        def up():
            if self.popen.poll() is not None:
                raise BenchError("%s ended with %d:\n%s" % (
                    self.popen.args, self.popen.returncode, self.stderr_text()))
            return listens(self.pid, port)
        wait_until(up, seconds, "port %d: %s" % (port, self.popen.args))

    def stop(self, sig=signal.SIGTERM):
        if self.popen.poll() is None:
            self.popen.send_signal(sig)
        try:
            self.popen.wait(20)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        if self.popen.stdout:
            self.popen.stdout.close()
        return self.popen.returncode


class Upstream(Proc):
    """fakeup. congestion: the control its connections use; the machine's default otherwise. bodies:
    files that requests may ask for by their place in the list."""

    def __init__(self, address="127.0.0.1", tls=None, prefix=(), delay_ms=0, congestion=None,
                 bodies=(), cores=PEER_CORE):
        argv = [os.path.join(BUILD, "fakeup"), "--listen", address + ":0"]
        for path in bodies:
            argv += ["--body", path]
        if delay_ms:
            argv += ["--delay-ms", str(delay_ms)]
        if congestion:
            argv += ["--congestion", congestion]
        if tls:
            argv += ["--cert", CERTS.cert, "--key", CERTS.key, "--tls", tls]
        super().__init__(argv, cores, prefix)
        self.address, self.tls = address, tls
        line = self.popen.stdout.readline()
        if not line:
            raise BenchError("fakeup: " + self.stderr_text())
        ports = json.loads(line)
        self.port, self.stats_port = ports["port"], ports["stats_port"]

    def url(self, address=None):
        return "%s://%s:%d" % ("https" if self.tls else "http", address or self.address, self.port)

    def stats(self):
        with socket.create_connection((self.address, self.stats_port), 5) as s:
            return json.loads(s.makefile().read())


def load(mode, port, address="127.0.0.1", prefix=(), must=True, timeout=300, cores=PEER_CORE,
         **options):
    """Runs the load generator to its end and gives its figures; errors too when not must."""
    argv = load_argv(mode, port, address, options)
    r = subprocess.run(list(prefix) + argv, stdin=subprocess.DEVNULL, capture_output=True,
                       text=True, timeout=timeout,
                       preexec_fn=lambda: os.sched_setaffinity(0, cores))
    if not r.stdout.endswith("\n") or (must and r.returncode != 0):
        raise BenchError("%s: %s%s" % (" ".join(argv), r.stdout, r.stderr))
    return json.loads(r.stdout.splitlines()[-1])


def load_argv(mode, port, address, options):
    argv = [os.path.join(BUILD, "load"), mode, "--to", "%s:%d" % (address, port)]
    for name, value in options.items():
        for one in value if isinstance(value, (list, tuple)) else [value]:
            argv += ["--" + name.replace("_", "-"), str(one)]
    return argv


class Readers(Proc):
    """load readers in the background."""

    def __init__(self, port, cores=PEER_CORE, **options):
        super().__init__(load_argv("readers", port, "127.0.0.1", options), cores)

    def wait_flowing(self):
        """Until every reader has got some bytes."""
        line = self.popen.stdout.readline()
        if '"flowing"' not in line or '"readers"' in line:
            raise BenchError("readers: %s%s" % (line, self.stderr_text()))

    def end(self):
        """Ends them now: their figures, and what went wrong."""
        self.popen.send_signal(signal.SIGTERM)
        out = self.popen.stdout.read()
        if not out.endswith("\n"):
            raise BenchError("readers: " + self.stderr_text())
        return json.loads(out.splitlines()[-1])


class IdleClients(Proc):
    """10,000 clients that made one request each and stay until again()."""

    def __init__(self, port, clients):
        argv = load_argv("idle", port, "127.0.0.1", {"clients": clients})
        self.log = tempfile.TemporaryFile("w+")
        self.popen = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, PEER_CORE))
        self.pid = self.popen.pid
        self.first = json.loads(self.popen.stdout.readline() or "{}")
        if not self.first:
            raise BenchError("load idle: " + self.stderr_text())

    def again(self):
        self.popen.stdin.write("again\n")
        self.popen.stdin.flush()
        return json.loads(self.popen.stdout.readline())

    def stop(self, sig=signal.SIGTERM):
        self.popen.stdin.close()
        return super().stop(sig)


class Certs:
    """A CA and a server certificate made on the spot."""

    def __init__(self):
        self.dir = None

    def _make(self):
        self.dir = tempfile.mkdtemp(prefix="chmux-bench-tls-")
        ext = os.path.join(self.dir, "ext")
        with open(ext, "w") as f:
            f.write("subjectAltName=DNS:localhost,IP:127.0.0.1,IP:10.77.0.1,IP:10.77.0.2\n")
        def openssl(*argv):
            subprocess.run(("openssl",) + argv, check=True, capture_output=True, cwd=self.dir)
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2",
                "-subj", "/CN=chmux bench CA")
        openssl("req", *key, "-keyout", "key.pem", "-out", "csr", "-subj", "/CN=localhost")
        openssl("x509", "-req", "-in", "csr", "-CA", "ca.pem", "-CAkey", "ca.key",
                "-CAcreateserial", "-out", "cert.pem", "-days", "2", "-extfile", ext)

    def _path(self, name):
        if not self.dir:
            self._make()
        return os.path.join(self.dir, name)

    ca = property(lambda self: self._path("ca.pem"))
    cert = property(lambda self: self._path("cert.pem"))
    key = property(lambda self: self._path("key.pem"))

    def remove(self):
        if self.dir:
            shutil.rmtree(self.dir)
            self.dir = None


CERTS = Certs()


class Proxy(Proc):
    """A proxy in front of an upstream. settings: what it may vary, a dict; alone: one process, in
    the foreground, for instruction counts."""
    name = ""

    def __init__(self, upstream, settings=None, prefix=(), upstream_address=None, alone=False,
                 start_seconds=10, cores=PROXY_CORE):
        self.port = free_port()
        self.upstream = upstream
        self.upstream_at = "%s:%d" % (upstream_address or upstream.address, upstream.port)
        self.upstream_url = upstream.url(upstream_address)
        self.dir = tempfile.mkdtemp(prefix="chmux-bench-")
        argv = self.command(settings or {}, alone)
        super().__init__(argv, cores, prefix, stdout=subprocess.DEVNULL)
        try:
            self.wait_listening(self.port, start_seconds)
        except BenchError:
            self.stop()
            raise

    def write(self, name, text):
        path = os.path.join(self.dir, name)
        with open(path, "w") as f:
            f.write(text)
        return path

    def stop(self, sig=signal.SIGTERM):
        code = super().stop(sig)
        shutil.rmtree(self.dir, ignore_errors=True)
        return code


class Chmux(Proxy):
    name = "chmux"

    def command(self, settings, alone):
        argv = [CHMUXD, "--listen", "127.0.0.1:%d" % self.port, "--upstream", self.upstream_url,
                "--pool-size", str(settings.get("pool_size", CAP))]
        if self.upstream.tls:
            argv += ["--set", "upstream.tls_ca_file=" + CERTS.ca]
        for key, value in settings.items():
            if key == "pool_size":
                continue
            argv += ["--set", "%s=%s" % (key, value)]
        return argv

    @staticmethod
    def version():
        return subprocess.run([CHMUXD, "--version"], capture_output=True, text=True).stdout.strip()


class Nginx(Proxy):
    """nginx has no queue for a full upstream: with max_conns it answers 502 at once. Where 502 is
    not the point it runs without max_conns, and the connections it opened are shown."""
    name = "nginx"

    CONF = """
daemon off; master_process {master}; worker_processes 1; worker_rlimit_nofile 20000;
pid {dir}/pid; error_log stderr error;
events {{ worker_connections {connections}; use epoll; multi_accept {multi_accept}; }}
http {{
  access_log off; server_tokens off; tcp_nodelay on; reset_timedout_connection off;
  keepalive_requests 1000000000; keepalive_timeout 1h; client_max_body_size 0;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/f;
  uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  upstream up {{
    server {upstream}{max_conns};
    keepalive {keepalive}; keepalive_requests 1000000000; keepalive_timeout 1h;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass {scheme}://up; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_request_buffering off; proxy_max_temp_file_size 0;
      proxy_read_timeout 1h; proxy_send_timeout 1h; proxy_buffering {buffering};
      proxy_buffer_size {buffer_size}; proxy_buffers {buffers};
      proxy_busy_buffers_size {busy}; client_body_buffer_size {body_buffer};
      {tls}
    }}
  }}
}}
"""

    def command(self, settings, alone):
        s = dict(keepalive=CAP, max_conns="", buffering="off", buffer_size="4k", buffers="8 4k",
                 busy="8k", body_buffer="16k", multi_accept="off", connections=19000)
        s.update(settings)
        tls = ("proxy_ssl_trusted_certificate %s; proxy_ssl_verify on; proxy_ssl_name localhost;"
               "proxy_ssl_session_reuse on; proxy_ssl_protocols TLSv1.2 TLSv1.3;" % CERTS.ca) if self.upstream.tls else ""
        conf = self.CONF.format(
            master="off" if alone else "on", dir=self.dir, port=self.port, tls=tls,
            upstream=self.upstream_at, scheme="https" if self.upstream.tls else "http", **s)
        return ["nginx", "-c", self.write("nginx.conf", conf), "-p", self.dir]

    @staticmethod
    def version():
        return subprocess.run(["nginx", "-v"], capture_output=True, text=True).stderr.strip()


class Haproxy(Proxy):
    name = "haproxy"

    CONF = """
global
  nbthread 1
  maxconn {maxconn}
  no strict-limits
  tune.bufsize {bufsize}
  {tune}
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout queue 30s
  timeout http-keep-alive 1h
  http-reuse always
  {option}
listen bench
  bind 127.0.0.1:{port} backlog 4096
  server up {upstream} maxconn {cap} maxqueue 0 pool-max-conn {cap} pool-purge-delay 1h {tls}
"""

    def command(self, settings, alone):
        s = dict(maxconn=10100, bufsize=16384, option="", tune="")
        s.update(settings)
        tls = "ssl verify required ca-file %s" % CERTS.ca if self.upstream.tls else ""
        conf = self.CONF.format(cap=CAP, port=self.port, upstream=self.upstream_at, tls=tls, **s)
        return ["haproxy", "-db", "-q", "-f", self.write("haproxy.cfg", conf)]

    @staticmethod
    def version():
        out = subprocess.run(["haproxy", "-v"], capture_output=True, text=True).stdout
        return re.sub(r" - .*", "", out.splitlines()[0])


PROXIES = {p.name: p for p in (Chmux, Nginx, Haproxy)}


class FarNamespace:
    """A network namespace in which 10.77.0.2 is 10.77.0.1, one round trip away. mbit: the bandwidth
    of each direction; 0: no limit."""
    here, there = "10.77.0.1", "10.77.0.2"

    def __init__(self, rtt_ms, mbit=0):
        self.name = "chmuxbench%d" % os.getpid()
        self.prefix = ["ip", "netns", "exec", self.name]
        self.tun = None
        self._ip("netns", "add", self.name)
        try:
            self._start(rtt_ms, mbit)
        except BaseException:
            self.stop()
            raise

    @staticmethod
    def _ip(*argv):
        subprocess.run(("ip",) + argv, check=True, capture_output=True)

    def _sysctl(self, key, value):
        subprocess.run(self.prefix + ["sysctl", "-qw", "%s=%s" % (key, value)], check=True,
                       capture_output=True)

    def _start(self, rtt_ms, mbit):
        self._ip("-n", self.name, "link", "set", "lo", "up")
        self.tun = Proc([os.path.join(BUILD, "faraway"), "--name", "bench0", "--rtt-us",
                         str(int(rtt_ms * 1000)), "--mbit", str(mbit)], PEER_CORE, self.prefix)
        if not self.tun.popen.stdout.readline():
            raise BenchError("faraway: " + self.tun.stderr_text())
        self._ip("-n", self.name, "link", "set", "bench0", "txqueuelen", "10000", "mtu", "1500",
                 "up")
        self._ip("-n", self.name, "addr", "add", self.here + "/24", "dev", "bench0")
        for interface in ("all", "bench0"):  # packets come from an address of our own network
            self._sysctl("net.ipv4.conf.%s.rp_filter" % interface, 0)
        # For those who choose none themselves: the namespace may not choose for all.
        self._ip("-n", self.name, "route", "change", "10.77.0.0/24", "dev", "bench0", "src",
                 self.here, "congctl", "cubic")
        # Every run starts like the first.
        self._sysctl("net.ipv4.tcp_no_metrics_save", 1)

    def stop(self):
        if self.tun:
            self.tun.stop()
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True)
