"""A stand-in for systemd: holds listening sockets, passes them to one chmuxd after another, and listens to what it
notifies. Only the protocols (LISTEN_FDS, NOTIFY_SOCKET), after sd_listen_fds(3) and sd_notify(3)."""
import contextlib
import fcntl
import os
import socket
import threading
import time

from .chmuxd import EXIT_CLEAN, Chmuxd
from .wait import DEADLINE, wait_until

FIRST_FD = 3
# Descriptors are moved to where the protocol wants them, and LISTEN_PID is only known in the process itself.
ACTIVATE = 'i=3; for fd in $RIG_FDS; do eval "exec $i<&$fd $fd<&-"; i=$((i+1)); done; unset RIG_FDS; LISTEN_PID=$$ exec "$@"'


class Message:
    """One datagram: its time, its KEY=value lines, the descriptors that came with it."""

    def __init__(self, data, fds):
        self.at = time.monotonic()
        self.text = data.decode()
        assert self.text.endswith("\n"), self.text
        self.vars = dict(line.split("=", 1) for line in self.text.splitlines())
        self.fds = fds

    def __repr__(self):
        return f"{self.text!r}" + (f" with {len(self.fds)} descriptors" if self.fds else "")


def tcp_socket(host="127.0.0.1", port=0, backlog=4096):
    s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((host, port))
    s.listen(backlog)
    return s


def unix_socket(path, backlog=4096):
    s = socket.socket(socket.AF_UNIX)
    s.bind(str(path))
    s.listen(backlog)
    return s


class Manager:
    """sockets: (name, listening socket) pairs, owned. watchdog_us: WATCHDOG_USEC, or None. abstract: the notify socket
    has no file. store: FileDescriptorStoreMax; what a process leaves there, the next ones get until one says FDSTOREREMOVE."""

    def __init__(self, folder, sockets=(), watchdog_us=None, abstract=False, notify=True, store=0):
        self.sockets = [(name, s) for name, s in sockets]
        self.store_max, self.store = store, []
        self.stored = 0  # so far, in all
        self.watchdog_us = watchdog_us
        self.messages = []
        self.current = None
        self.past = []
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        path = f"\0chmux-notify-{os.getpid()}-{id(self)}" if abstract else str(folder / "notify")
        self.notify.bind(path)
        self.notify_address = path
        self.read = threading.Event()
        self.notify_path = path.replace("\0", "@") if notify else None
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def _listen(self):
        while True:
            data, fds, _, _ = socket.recv_fds(self.notify, 65536, 253)
            if not data:
                return
            m = Message(data, list(fds))
            if "RIG" in m.vars:
                self.read.set()
                continue
            if "FDSTORE" in m.vars:
                self._store(m)
            if "FDSTOREREMOVE" in m.vars:
                self._forget(m.vars["FDNAME"])
            self.messages.append(m)

    def _store(self, m):
        for fd in m.fds:
            if any(os.path.sameopenfile(fd, held) for _, held in self.store):
                os.close(fd)
            elif len(self.store) < self.store_max:
                self.store.append((m.vars.get("FDNAME", "stored"), fd))
                self.stored += 1
            else:
                os.close(fd)

    def _read_all(self):
        """Until all that a process which is gone has said is read: systemd does so before it starts the next."""
        self.read.clear()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s, contextlib.suppress(FileNotFoundError):
            s.sendto(b"RIG=1\n", self.notify_address)
            self.read.wait(DEADLINE)

    def _forget(self, name):
        keep = []
        for n, fd in self.store:
            if n == name:
                os.close(fd)
            else:
                keep.append((n, fd))
        self.store = keep

    def drop_store(self):
        """What systemd does when the service is stopped for good, and all it said is read."""
        self._read_all()
        self._close_store()

    def _close_store(self):
        while self.store:
            os.close(self.store.pop()[1])

    def addr(self, i=0):
        a = self.sockets[i][1].getsockname()
        return a if isinstance(a, str) else a[:2]

    # ---- the service
    def start(self, upstream, wait=True, **kw):
        """A chmuxd with all sockets."""
        self._read_all()
        held = list(self.sockets)
        stored = list(self.store)  # the service gets copies, as from systemd
        fds = [fcntl.fcntl(s.fileno(), fcntl.F_DUPFD, 300) for _, s in held]
        fds += [fcntl.fcntl(fd, fcntl.F_DUPFD, 300) for _, fd in stored]
        env = {"LISTEN_FDS": str(len(fds)), "LISTEN_FDNAMES": ":".join(n for n, _ in held + stored), "RIG_FDS": " ".join(map(str, fds)),
               **kw.pop("env", {})}
        if self.notify_path:
            env["NOTIFY_SOCKET"] = self.notify_path
        if self.store_max:
            env["FDSTORE"] = str(self.store_max)
        if self.watchdog_us:
            env["WATCHDOG_USEC"] = str(self.watchdog_us)
        try:
            c = Chmuxd(upstream, kw.pop("listen", ()), kw.pop("admin", None), wait=False, env=env, pass_fds=fds,
                       prefix=("bash", "-c", ACTIVATE, "bash"), **kw)
        finally:
            for fd in fds:
                os.close(fd)
        c.listen_count += sum(name != "admin" for name, _ in held)
        c.wants_admin |= any(name == "admin" for name, _ in held)
        self.current = c
        if wait:
            c.wait_started()
        return c

    def stop(self, deadline=DEADLINE * 4):
        """SIGTERM, and a clean end."""
        c, self.current = self.current, None
        c.signal()
        code = c.wait_exit(deadline)
        c.judge()
        assert code == EXIT_CLEAN, f"exit {code}: {c.stderr[-3000:]}"
        self.past.append(c)
        return c

    def restart(self, *a, **kw):
        self.stop()
        return self.start(*a, **kw)

    # ---- what it said
    def heard(self, key):
        return [m for m in list(self.messages) if key in m.vars]

    def wait_heard(self, key, value=None, count=1, deadline=DEADLINE):
        def enough():
            found = [m for m in self.heard(key) if value is None or m.vars[key] == value]
            return found if len(found) >= count else None

        return wait_until(enough, deadline, f"{count} of {key}={value or '...'}; so far {self.messages}")

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if self.current:
            self.current.__exit__(kind, None, None)
        self.notify.shutdown(socket.SHUT_RDWR)
        self.thread.join(5)
        self.notify.close()
        self._close_store()
        for _, s in self.sockets:
            s.close()
