"""A machine to install on: a bare Debian root (debootstrap), and such a root booted with its own systemd in namespaces
(systemd-nspawn), with a network of its own where no port is taken."""
import contextlib
import ctypes
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess

from .clickhouse import die_with_parent
from .wait import wait_until

SUITE = "bookworm"
# What the package depends on, and an init. Installed with the root, so that the cached one has it.
INCLUDE = ("ca-certificates,libbrotli1,libevent-core-2.1-7,libinih1,libjansson4,liblz4-1,libssl3,libzstd1,zlib1g,"
           "init-system-helpers,systemd-sysv")
CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def missing():
    """Why this cannot be done here, or None."""
    if os.geteuid() != 0:
        return "needs root, for chroot and namespaces"
    for tool in ("debootstrap", "systemd-nspawn", "nsenter", "zstd"):
        if not shutil.which(tool):
            return f"{tool} is not installed (tests/deps.sh does)"
    return None


def bare_root(folder):
    """A fresh root in folder. The first one is kept as a tarball in the user's cache."""
    cache = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "chmux")
    os.makedirs(cache, exist_ok=True)
    key = hashlib.sha256(f"{SUITE} {INCLUDE}".encode()).hexdigest()[:16]
    tarball = os.path.join(cache, f"root-{key}.tar.zst")
    with open(tarball + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(tarball):
            made = os.path.join(folder, "debootstrap")
            subprocess.run(["debootstrap", "--variant=minbase", f"--include={INCLUDE}", SUITE, made],
                           check=True, stdout=subprocess.DEVNULL)
            shutil.rmtree(os.path.join(made, "var/cache/apt/archives"))
            subprocess.run(["tar", "-C", made, "--zstd", "-cf", tarball + ".new", "."], check=True)
            os.rename(tarball + ".new", tarball)
            shutil.rmtree(made)
    root = os.path.join(folder, "root")
    os.mkdir(root)
    subprocess.run(["tar", "-C", root, "--zstd", "-xpf", tarball], check=True)
    return root


def chroot(root, *command, check=True):
    """A command in a root where nothing runs."""
    p = subprocess.run(["chroot", root, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60,
                       env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"})
    assert not check or p.returncode == 0, f"{command}: exit {p.returncode}\n{p.stdout}"
    return p.stdout


class Machine:
    """root, booted. CannotBoot: this kernel or container does not let it."""

    class CannotBoot(Exception):
        pass

    def __init__(self, root):
        self.console = os.path.join(root, "..", "console")
        with open(self.console, "w") as out:
            self.proc = subprocess.Popen(
                ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", f"--machine=chmux-test-{os.getpid()}",
                 "--private-network", "--console=read-only", "--boot", "-D", root],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, preexec_fn=die_with_parent,
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"})
        self.leader = None
        try:
            wait_until(self._booted, 60, "systemd to come up")
        except AssertionError as e:
            self.stop()
            with open(self.console) as f:
                raise self.CannotBoot(f"{e}: {f.read()[-1000:]}") from None

    def _booted(self):
        if self.proc.poll() is not None:
            raise AssertionError(f"systemd-nspawn ended ({self.proc.returncode})")
        with open(f"/proc/{self.proc.pid}/task/{self.proc.pid}/children") as f:
            children = f.read().split()  # the first one is a helper that goes away
        self.leader = int(children[-1]) if children else None
        return self.leader and self.run("systemctl", "is-system-running", check=False).strip() == "running"

    def run(self, *command, check=True, timeout=60):
        """A command inside; what it printed."""
        p = subprocess.run(["nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-n", "-p", "-C", *command],
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout, stdin=subprocess.DEVNULL,
                           env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"})
        assert not check or p.returncode == 0, f"{command}: exit {p.returncode}\n{p.stdout}"
        return p.stdout

    def show(self, unit, key):
        return self.run("systemctl", "show", "-P", key, unit).strip()

    @contextlib.contextmanager
    def network(self):
        """In it, this thread and those it starts connect and listen on that machine."""
        with open("/proc/self/ns/net") as here, open(f"/proc/{self.leader}/ns/net") as there:
            self._setns(there)
            try:
                yield
            finally:
                self._setns(here)

    @staticmethod
    def _setns(ns):
        if _libc.setns(ns.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")

    def stop(self):
        if self.proc.poll() is None:
            with contextlib.suppress(ProcessLookupError, TypeError):
                os.kill(self.leader, signal.SIGKILL)  # the init of a pid namespace takes all others with it
            try:
                self.proc.wait(10)
            except subprocess.TimeoutExpired:
                self.proc.kill()
        self.proc.wait(10)

    def __exit__(self, *_):
        self.stop()
