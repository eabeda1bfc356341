"""What the bench reads about a running proxy: CPU time, memory, system calls, instructions."""
import os
import re
import signal
import subprocess
import tempfile
import time

from procs import BenchError, Proc, load, wait_until

# Those that proxies use; whatever else is called shows as "other".
SYSCALLS = """accept accept4 bind clock_gettime close connect dup epoll_create1 epoll_ctl
epoll_pwait epoll_pwait2 epoll_wait eventfd2 fcntl futex getpeername getpid getsockname getsockopt
ioctl madvise mmap munmap pipe2 pread64 pwrite64 read readv recvfrom recvmsg sendfile64 sendmsg
sendto setsockopt shutdown socket splice timerfd_settime write writev""".split()


def cpu_ns(proc):
    """CPU time of all threads of a process tree so far, from the scheduler's own clock."""
    total = 0
    for pid in proc.pids():
        for task in os.listdir("/proc/%d/task" % pid):
            with open("/proc/%d/task/%s/schedstat" % (pid, task)) as f:
                total += int(f.read().split()[0])
    return total


def _field(path, name):
    with open(path) as f:
        for line in f:
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
    raise BenchError("no %s in %s" % (name, path))


def rss_bytes(proc):
    """Resident bytes, exact (VmRSS may lag behind by some pages per CPU)."""
    return sum(_field("/proc/%d/smaps_rollup" % pid, "Rss") for pid in proc.pids())


def peak_reset(proc):
    for pid in proc.pids():
        with open("/proc/%d/clear_refs" % pid, "w") as f:
            f.write("5\n")


def peak_bytes(proc):
    """The most resident at once since peak_reset(), of the process of the tree that had most."""
    return max(_field("/proc/%d/status" % pid, "VmHWM") for pid in proc.pids())


class CpuWindow:
    def __init__(self, proc):
        self.proc = proc

    def __enter__(self):
        self.from_ns = cpu_ns(self.proc)
        return self

    def __exit__(self, *exc):
        if exc[0] is None:
            self.ns = cpu_ns(self.proc) - self.from_ns


def cpu_by_thread_ns(proc):
    """CPU time so far of the event loop (the main thread) and of all other threads together."""
    loop = rest = 0
    for task in os.listdir("/proc/%d/task" % proc.pid):
        with open("/proc/%d/task/%s/schedstat" % (proc.pid, task)) as f:
            ns = int(f.read().split()[0])
        if int(task) == proc.pid:
            loop += ns
        else:
            rest += ns
    return loop, rest


class ThreadWindow:
    """loop_ns and worker_ns of a chmuxd between enter and exit, and ns, their sum."""

    def __init__(self, proc):
        self.proc = proc

    def __enter__(self):
        self.start = cpu_by_thread_ns(self.proc)
        return self

    def __exit__(self, *exc):
        if exc[0] is None:
            now = cpu_by_thread_ns(self.proc)
            self.loop_ns, self.worker_ns = (a - b for a, b in zip(now, self.start))
            self.ns = self.loop_ns + self.worker_ns


def syscalls_per_request(proxy, requests, run_load):
    """Calls per request by name, and their sum as "all". perf counts in the kernel and slows the
    proxy little; where it cannot, strace stops the proxy at each call (more work per wake-up)."""
    count = _perf_counts if _perf_works() else _strace_counts
    calls = count(proxy, run_load)
    return {name: n / requests for name, n in calls.items() if n}


def _perf_works():
    global _perf
    if _perf is None:
        try:
            r = subprocess.run(["perf", "stat", "-e", "raw_syscalls:sys_enter", "true"],
                               capture_output=True)
            _perf = r.returncode == 0
        except FileNotFoundError:
            _perf = False
    return _perf


_perf = None


def syscall_tool():
    return "perf stat (tracepoints)" if _perf_works() else "strace -c"


def _perf_events():
    events = ["raw_syscalls:sys_enter"]
    for root in ("/sys/kernel/tracing", "/sys/kernel/debug/tracing"):
        if os.path.isdir(root + "/events/syscalls"):
            known = os.listdir(root + "/events/syscalls")
            events += ["syscalls:sys_enter_" + s for s in SYSCALLS if "sys_enter_" + s in known]
            break
    return ",".join(events)


def _perf_counts(proxy, run_load):
    with tempfile.NamedTemporaryFile("r") as out:
        pids = ",".join(str(p) for p in proxy.pids())
        # perf tells that it counts by a line on the ack fifo of its control fd.
        ctl_r, ctl_w = os.pipe()
        ack_r, ack_w = os.pipe()
        perf = subprocess.Popen(
            ["perf", "stat", "-x,", "-D", "-1", "--control", "fd:%d,%d" % (ctl_r, ack_w), "-e",
             _perf_events(), "-p", pids, "-o", out.name], pass_fds=(ctl_r, ack_w),
            stderr=subprocess.DEVNULL)
        try:
            os.write(ctl_w, b"enable\n")
            os.read(ack_r, 16)
            run_load()
            os.write(ctl_w, b"disable\n")
            os.read(ack_r, 16)
        finally:
            perf.send_signal(signal.SIGINT)
            perf.wait(20)
            for fd in (ctl_r, ctl_w, ack_r, ack_w):
                os.close(fd)
        calls = {}
        for line in out.read().splitlines():
            m = re.match(r"(\d+),,(?:raw_)?syscalls:sys_enter_?([a-z0-9_]*),", line)
            if m:
                calls[m.group(2) or "all"] = int(m.group(1))
    if "all" not in calls:
        raise BenchError("perf counted nothing")
    calls["other"] = calls["all"] - sum(n for name, n in calls.items() if name != "all")
    return calls


def _strace_counts(proxy, run_load):
    with tempfile.NamedTemporaryFile("r") as out:
        argv = ["strace", "-c", "-f", "-o", out.name]
        for pid in proxy.pids():
            argv += ["-p", str(pid)]
        strace = Proc(argv, {min(os.sched_getaffinity(0))})
        try:
            wait_until(lambda: _traced(proxy), 10, "strace to attach")
            run_load()
        finally:
            strace.stop(signal.SIGINT)
        calls = {}
        for line in out.read().splitlines():
            f = line.split()
            if len(f) >= 5 and re.match(r"[\d.]+$", f[0]) and f[3].isdigit():
                calls["all" if f[-1] == "total" else f[-1]] = int(f[3])
    return calls


def _traced(proxy):
    for pid in proxy.pids():
        for task in os.listdir("/proc/%d/task" % pid):
            with open("/proc/%d/task/%s/status" % (pid, task)) as f:
                if "TracerPid:\t0\n" in f.read():
                    return False
    return True


def instructions_per_request(start, few, many, **options):
    """User-space instructions of one more request, by callgrind: two runs of different length, so
    start and stop cancel out. start(prefix) gives a running proxy."""
    counted = []
    for requests in (few, many):
        proxy = start(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"])
        try:
            load("closed", proxy.port, requests=requests, timeout=600, **options)
        finally:
            proxy.stop()
        m = re.findall(r"Collected : (\d+)", proxy.stderr_text())
        if not m:
            raise BenchError("callgrind said nothing:\n" + proxy.stderr_text())
        counted.append(sum(int(x) for x in m))
    return (counted[1] - counted[0]) / (many - few)
