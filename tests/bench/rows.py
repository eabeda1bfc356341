"""The rows of the benchmark. Each takes a Run and gives a Table."""
import statistics
import sys

from measure import (CpuWindow, instructions_per_request, peak_bytes, peak_reset, rss_bytes,
                     syscall_tool, syscalls_per_request)
from procs import CAP, PROXIES, PROXY_CORE, BenchError, FarNamespace, IdleClients, Upstream, load
from report import Column, Table

GIB = 1 << 30
MIB = 1 << 20
ERRORS = Column("errors", "errors", digits=0)
PEAK_OPEN = Column("peak_open", "upstream connections, peak", digits=0)


class Run:
    """What the command line chose."""

    def __init__(self, quick, rounds, proxies, instructions=True):
        self.quick, self.rounds, self.proxies = quick, rounds, proxies
        self.instructions = instructions

    def pick(self, full, quick):
        return quick if self.quick else full

    def only(self, name):
        return Run(self.quick, 1, [name], self.instructions)

    def say(self, text):
        print("  .. " + text, file=sys.stderr, flush=True)


class Fleet:
    """The proxies of a row, started once and measured in turn, each with its own upstream."""

    def __init__(self, run, settings=None, start=None, **upstream):
        self.run, self.upstreams, self.proxies = run, {}, {}
        try:
            for name in run.proxies:
                self.upstreams[name] = Upstream(**upstream)
                chosen = (settings or {}).get(name)
                self.proxies[name] = PROXIES[name](self.upstreams[name], chosen, **(start or {}))
        except BaseException:
            self.stop()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stop()

    def stop(self):
        for proc in list(self.proxies.values()) + list(self.upstreams.values()):
            proc.stop()

    def rounds(self, count=None):
        """A B C, A B C, ...: what changes on the machine meanwhile hits all alike."""
        for i in range(count or self.run.rounds):
            for name, proxy in self.proxies.items():
                self.run.say("round %d %s" % (i + 1, name))
                yield name, proxy


# ---- small requests ----

SMALL_COLUMNS = [
    Column("rps", "requests/s", "high", 0), Column("p50_us", "p50 ms", "low", 2, 1e-3),
    Column("p99_us", "p99 ms", "low", 2, 1e-3), Column("cpu_us", "CPU us/request", "low", 1),
    Column("kinstr", "user instr/request (k)", "low", 1),
    Column("syscalls", "syscalls/request", "low", 2), PEAK_OPEN, ERRORS]
SMALL_KEYS = ("rps", "p99_us", "cpu_us", "kinstr", "syscalls")
# The best of those tried. nginx: buffering on saves a writev, keepalive 16 costs 0.2 to 0.4
# connects per request, multi_accept changes nothing. haproxy: bufsize 8192, maxpollevents 400 and
# http-server-close are no better or worse.
SMALL_SETTINGS = {"nginx": {"keepalive": 64, "buffering": "on"}, "haproxy": {}}
NO_CAP_NOTE = ("nginx has no queue: with max_conns=16 it answers 502 to the 17th request, so here "
               "it runs without a cap (keepalive 64); see the column of upstream connections")


def small_requests(run, table, new_conn=None):
    options = {"clients": 64}
    if new_conn:
        options["new_conn"] = new_conn
    timed = dict(options, seconds=run.pick(4, 0.7), warmup_ms=run.pick(500, 200))
    with Fleet(run, SMALL_SETTINGS) as fleet:
        for name, proxy in fleet.rounds():
            fleet.upstreams[name].stats()
            with CpuWindow(proxy) as cpu:
                r = load("closed", proxy.port, must=False, **timed)
            table.add(name, rps=r["rps"], p50_us=r["p50_us"], p99_us=r["p99_us"],
                      cpu_us=cpu.ns / 1000 / max(r["total_requests"], 1), errors=r["errors"],
                      peak_open=fleet.upstreams[name].stats()["peak_open"])
        count = run.pick(50000, 5000)
        for name, proxy in fleet.proxies.items():
            calls = syscalls_per_request(
                proxy, count, lambda p=proxy: load("closed", p.port, requests=count, **options))
            table.add(name, syscalls=calls["all"])
            table.notes.append("%s per request: %s" % (name, ", ".join(
                "%s %.2f" % (k, v) for k, v in sorted(calls.items(), key=lambda kv: -kv[1])
                if v >= 0.01 and k != "all")))
    table.notes.append("system calls by " + syscall_tool())
    if run.instructions:
        small_instructions(run, table, options)
    if "nginx" in run.proxies:
        table.notes.append(NO_CAP_NOTE)
    if "chmux" in run.proxies:
        table.reach("chmux: no errors", table.worst("chmux", "errors") == 0)
        table.reach("chmux: never over the cap", table.worst("chmux", "peak_open") <= CAP)
    table.reach_no_worse(SMALL_KEYS)
    return table


def small_instructions(run, table, options):
    few, many = run.pick((2000, 12000), (300, 900))
    for name in run.proxies:
        run.say("instructions " + name)
        upstream = Upstream()
        try:
            n = instructions_per_request(
                lambda prefix, cls=PROXIES[name]: cls(
                    upstream, SMALL_SETTINGS.get(name), prefix, alone=True, start_seconds=120),
                few, many, **options)
        finally:
            upstream.stop()
        table.add(name, kinstr=n / 1000)
    table.notes.append("instructions: user space only, callgrind, (run of %d - run of %d) / %d" %
                       (many, few, many - few))


def keepalive(run):
    return small_requests(run, Table(
        "keepalive", "Small keep-alive requests, 64 clients, cap %d" % CAP, SMALL_COLUMNS))


def newconn(run):
    return small_requests(run, Table(
        "newconn", "A new client connection per request (client closes), 64 at a time, cap %d" %
        CAP, SMALL_COLUMNS), new_conn="client")


def newconn_close(run):
    return small_requests(run, Table(
        "newconn_close", "A new client connection per request (Connection: close), 64 at a time, "
        "cap %d" % CAP, SMALL_COLUMNS), new_conn="server")


SHARED_COLUMNS = [c for c in SMALL_COLUMNS if c.key in ("rps", "p50_us", "p99_us", "cpu_us", "errors")]


def newconn_shared(run):
    """The rows above set by the other core: it is full before the proxy's is. With one core for all
    a request's whole cost decides, what the proxy costs client and upstream included."""
    return shared_core(run, "newconn_shared", "client closes", "client")


def newconn_close_shared(run):
    return shared_core(run, "newconn_close_shared", "Connection: close", "server")


def shared_core(run, name, how, new_conn):
    table = Table(name, "A new client connection per request (%s), one core for proxy, clients and "
                  "upstream" % how, SHARED_COLUMNS)
    with Fleet(run, SMALL_SETTINGS, start={"cores": PROXY_CORE}, cores=PROXY_CORE) as fleet:
        for proxy_name, proxy in fleet.rounds(run.pick(run.rounds + 4, 1)):
            with CpuWindow(proxy) as cpu:
                r = load("closed", proxy.port, must=False, cores=PROXY_CORE, clients=64,
                         seconds=run.pick(4, 0.7), warmup_ms=run.pick(500, 200), new_conn=new_conn)
            table.add(proxy_name, rps=r["rps"], p50_us=r["p50_us"], p99_us=r["p99_us"],
                      cpu_us=cpu.ns / 1000 / max(r["total_requests"], 1), errors=r["errors"])
    if "chmux" in run.proxies:
        table.reach("chmux: no errors", table.worst("chmux", "errors") == 0)
    table.reach_no_worse(SMALL_KEYS)
    return table


# ---- idle clients ----

def idle(run):
    clients = run.pick(10000, 2000)
    table = Table("idle", "%d idle keep-alive clients that each made one request, cap %d" %
                  (clients, CAP), [
                      Column("per_client", "RSS bytes/idle client", "low", 0),
                      Column("bare", "RSS at a bare start MiB", None, 2, 1 / MIB),
                      Column("full", "RSS with them MiB", None, 2, 1 / MIB),
                      Column("after", "RSS after one more request each MiB", None, 2, 1 / MIB),
                      ERRORS])
    for _ in range(run.pick(min(run.rounds, 5), 1)):
        for name in run.proxies:
            run.say("idle " + name)
            with Fleet(run.only(name), SMALL_SETTINGS) as fleet:
                proxy = fleet.proxies[name]
                bare = rss_bytes(proxy)
                herd = IdleClients(proxy.port, clients)
                try:
                    full = rss_bytes(proxy)
                    again = herd.again()
                    after = rss_bytes(proxy)
                finally:
                    herd.stop()
                table.add(name, per_client=(full - bare) / clients, bare=bare, full=full,
                          after=after, errors=again["errors"])
    if "chmux" in run.proxies:
        table.reach("RSS per idle client at most 1 KiB",
                    table.median("chmux", "per_client") <= 1024)
        table.reach("no errors, also for the request after", table.worst("chmux", "errors") == 0)
    table.reach_no_worse(("per_client",))
    return table


# ---- big bodies ----

BULK_VARIANTS = {
    "chmux": [{}] + [{"chmux.buffer_size": s} for s in ("1m", "2m")],
    "nginx": [dict(buffering=b, buffer_size=s, buffers="8 " + s, busy=busy, body_buffer=s)
              for b in ("off", "on")
              for s, busy in (("16k", "32k"), ("64k", "128k"), ("256k", "512k"), ("1m", "2m"))],
    "haproxy": [dict(bufsize=s, option=o)
                for s in (16384, 65536, 262144, 1048576)
                for o in ("", "option splice-auto")],
}
QUICK_BULK = {"chmux": {}, "nginx": BULK_VARIANTS["nginx"][2],
              "haproxy": BULK_VARIANTS["haproxy"][3]}


def describe(settings):
    if "bufsize" in settings:
        return "tune.bufsize %d%s" % (settings["bufsize"],
                                      ", splice-auto" if settings["option"] else "")
    if "buffering" in settings:
        return "proxy_buffering %s, buffers %s" % (settings["buffering"], settings["buffer_size"])
    return ", ".join("%s %s" % one for one in settings.items()) or "defaults"


def best_settings(run, one, notes):
    """Each proxy's settings that cost the least CPU: one(proxy, bytes) moves them once."""
    if run.quick:
        return {name: QUICK_BULK[name] for name in run.proxies}
    amount = 512 * MIB
    chosen = {}
    for name in run.proxies:
        costs = []
        for settings in BULK_VARIANTS[name]:
            with Fleet(run.only(name), {name: settings}) as fleet:
                proxy = fleet.proxies[name]
                one(proxy, amount // 4)
                with CpuWindow(proxy) as cpu:
                    one(proxy, amount)
                costs.append((cpu.ns / 1e9 * GIB / amount, settings))
                run.say("%s %s: %.3f CPU s/GiB" % (name, describe(settings), costs[-1][0]))
        chosen[name] = min(costs, key=lambda c: c[0])[1]
        notes.append("%s: %s; CPU s/GiB once with each: %s" % (
            name, describe(chosen[name]), "; ".join("%s %.2f" % (describe(s), c) for c, s in costs)))
    return chosen


def download(proxy, amount, **more):
    return load("fetch", proxy.port, expect=amount,
                target="/?bench_bytes=%d&bench_chunk=400000" % amount, **more)


def upload(proxy, amount, stall_ms=0, verify=0, **more):
    return load("fetch", proxy.port, upload=amount, upload_chunk="256k",
                target="/?query=INSERT&bench_stall_ms=%d&bench_verify=%d" % (stall_ms, verify),
                **more)


BULK_COLUMNS = [
    Column("cpu_per_gib", "CPU s/GiB", "low", 3), Column("mib_per_s", "MiB/s", None, 0),
    Column("peak", "peak RSS MiB", "low", 1, 1 / MIB)]


def bulk(run, name, title, one, amount):
    table = Table(name, title, BULK_COLUMNS)
    chosen = best_settings(run, one, table.notes)
    with Fleet(run, chosen) as fleet:
        for who, proxy in fleet.rounds():
            peak_reset(proxy)
            with CpuWindow(proxy) as cpu:
                r = one(proxy, amount)
            table.add(who, cpu_per_gib=cpu.ns / 1e9 * GIB / amount, peak=peak_bytes(proxy),
                      mib_per_s=amount / MIB / (r["times_us"][0] / 1e6))
    if "chmux" in run.proxies:
        table.reach("peak RSS at most 16 MiB", table.worst("chmux", "peak") <= 16 * MIB)
    table.reach_no_worse(("cpu_per_gib",))
    return table


def down(run):
    amount = run.pick(GIB, 128 * MIB)
    return bulk(run, "down", "%d MiB response, fast peers (chunks of 400 kB)" % (amount // MIB),
                download, amount)


def up(run):
    amount = run.pick(512 * MIB, 64 * MIB)
    return bulk(run, "up", "%d MiB chunked upload, fast peers (chunks of 256 KiB)" %
                (amount // MIB), upload, amount)


SLOW_COLUMNS = [Column("peak", "peak RSS MiB", "low", 1, 1 / MIB),
                Column("cpu_per_gib", "CPU s/GiB", "low", 3), Column("lost", "lost", digits=0)]


def slow(run, name, title, one, amount):
    """one() checks count, end and every byte of what arrived and fails otherwise."""
    table = Table(name, title, SLOW_COLUMNS)
    settings = {"nginx": dict(buffering="off"), "haproxy": {}}
    with Fleet(run, settings) as fleet:
        for who, proxy in fleet.rounds(run.pick(2, 1)):
            peak_reset(proxy)
            lost = 0
            with CpuWindow(proxy) as cpu:
                try:
                    one(proxy)
                except BenchError as e:
                    lost = 1
                    table.notes.append("%s: %s" % (who, str(e).strip()))
            lost += fleet.upstreams[who].stats()["bad_bytes"] > 0
            table.add(who, peak=peak_bytes(proxy), lost=lost,
                      cpu_per_gib=cpu.ns / 1e9 * GIB / amount)
    table.notes.append("every byte checked at the receiver; default buffers")
    if "chmux" in run.proxies:
        table.reach("peak RSS at most 32 MiB", table.worst("chmux", "peak") <= 32 * MIB)
        table.reach("nothing lost", table.worst("chmux", "lost") == 0)
    return table


def slow_reader(run):
    amount, rate = run.pick((GIB, 64), (48 * MIB, 64))
    return slow(run, "slow_reader", "%d MiB response to a reader of %d MiB/s" %
                (amount // MIB, rate),
                lambda p: download(p, amount, rate="%dm" % rate, verify=1), amount)


def slow_server(run):
    amount, stall_ms = run.pick((512 * MIB, 5000), (64 * MIB, 500))
    return slow(run, "slow_server", "%d MiB chunked upload, the server reads nothing for %.1f s" %
                (amount // MIB, stall_ms / 1000),
                lambda p: upload(p, amount, stall_ms, verify=1), amount)


# ---- overload ----

def overload(run):
    clients, delay_ms = 200, 20
    ideal = CAP * 1000 / delay_ms
    table = Table("overload", "Overload: %d clients, cap %d, upstream takes %d ms" %
                  (clients, CAP, delay_ms), [
                      Column("share", "%% of the ideal %d/s" % ideal, "high", 1),
                      Column("p50_us", "p50 ms", "low", 1, 1e-3),
                      Column("p99_us", "p99 ms", "low", 1, 1e-3),
                      Column("spread", "p99 / p50", "low", 2),
                      Column("jain", "Jain index", "high", 4), PEAK_OPEN, ERRORS])
    settings = {"nginx": {"max_conns": " max_conns=%d" % CAP, "keepalive": CAP}}
    with Fleet(run, settings, delay_ms=delay_ms) as fleet:
        for name, proxy in fleet.rounds():
            fleet.upstreams[name].stats()
            r = load("closed", proxy.port, must=False, clients=clients,
                     seconds=run.pick(8, 2), warmup_ms=run.pick(1500, 600))
            table.add(name, share=100 * r["rps"] / ideal, p50_us=r["p50_us"], p99_us=r["p99_us"],
                      spread=r["p99_us"] / max(r["p50_us"], 1), jain=r["jain"],
                      peak_open=fleet.upstreams[name].stats()["peak_open"], errors=r["errors"])
    if "nginx" in run.proxies:
        table.notes.append("nginx with max_conns=%d: no queue, the rest gets 502 at once" % CAP)
    if "chmux" in run.proxies:
        table.reach("at least 98 % of the ideal", table.median("chmux", "share") >= 98)
        table.reach("no errors", table.worst("chmux", "errors") == 0)
        table.reach("p99 at most 1.2 x median", table.median("chmux", "spread") <= 1.2)
        table.reach("Jain index at least 0.99", table.median("chmux", "jain") >= 0.99)
        table.reach("never over the cap", table.worst("chmux", "peak_open") <= CAP)
    return table


# ---- TLS ----

def tls(run):
    table = Table("tls", "TLS upstream, 100 short-lived clients, cap %d, from a cold start" % CAP, [
        Column("full", "full handshakes", "low", 0), Column("resumed", "resumed", None, 0),
        Column("p99_us", "p99 ms", "low", 1, 1e-3), PEAK_OPEN, ERRORS])
    for version in ("1.2", "1.3"):
        for _ in range(run.pick(min(run.rounds, 5), 1)):
            for name in run.proxies:
                run.say("TLS %s %s" % (version, name))
                with Fleet(run.only(name), SMALL_SETTINGS, tls=version) as fleet:
                    r = load("closed", fleet.proxies[name].port, must=False, clients=100,
                             requests=100, new_conn="client")
                    s = fleet.upstreams[name].stats()
                table.add(name if version == "1.3" else name + ", TLS 1.2",
                          full=s["full_handshakes"], resumed=s["resumed_handshakes"],
                          p99_us=r["p99_us"], peak_open=s["peak_open"], errors=r["errors"])
    table.notes.append("TLS 1.3 unless named; directly it would be 100 handshakes")
    for who in table.values:
        if who.startswith("chmux"):
            table.reach("%s: full handshakes at most the cap" % who,
                        table.worst(who, "full") <= CAP)
            table.reach("%s: no errors" % who, table.worst(who, "errors") == 0)
    return table


# ---- far away ----

RTT_MS = 64
FAR_BYTES = 759000
BURST_WARM, BURST = 5, 8  # fetches one after another; a slow start takes the first few


def far_fetch(far, address, port, target, expect, tls_version=None, requests=1):
    more = {"tls": tls_version} if tls_version else {}
    r = load("fetch", port, address, far.prefix, target=target, expect=expect, requests=requests,
             **more)
    return [t / 1000 for t in r["times_us"]]


def far_warm(far, proxy):
    """All connections of the pool opened and used."""
    load("closed", proxy.port, prefix=far.prefix, clients=CAP, requests=3 * CAP,
         target="/?query=SELECT%201&bench_delay_ms=50")


def far_fleet(run, far, tls_version=None):
    return Fleet(run, start={"prefix": far.prefix, "upstream_address": far.there},
                 address=far.here, tls=tls_version, prefix=far.prefix, congestion="cubic")


def far_select(run, far, table, tls_version):
    scheme = "TLS " + tls_version if tls_version else "plain"
    with far_fleet(run, far, tls_version) as fleet:
        for proxy in fleet.proxies.values():
            far_warm(far, proxy)
        for name, proxy in fleet.rounds(run.pick(15, 3)):
            ms = far_fetch(far, "127.0.0.1", proxy.port, "/?query=SELECT%201", 2)[0]
            table.add(name, **{scheme: ms})
        port = fleet.upstreams[run.proxies[0]].port
        for _ in range(run.pick(15, 3)):
            ms = far_fetch(far, far.there, port, "/?query=SELECT%201", 2, tls_version)[0]
            table.add("direct", **{scheme: ms})


def far_small(run):
    schemes = ("plain", "TLS 1.3", "TLS 1.2")
    table = Table("far_small", "%d ms away, pool warm: SELECT 1 from a fresh process, ms" % RTT_MS,
                  [Column(s, "upstream " + s, "low", 1) for s in schemes])
    far = FarNamespace(RTT_MS)
    try:
        for scheme in schemes:
            far_select(run, far, table, scheme[4:] if scheme != "plain" else None)
    finally:
        far.stop()
    if "chmux" in run.proxies:
        for scheme in schemes:
            table.reach("%s: at most 1 RTT + 5 ms" % scheme,
                        table.median("chmux", scheme) <= RTT_MS + 5)
    return table


def far_big(run):
    table = Table("far_big", "%d ms away, pool warm: a %d KB result from fresh processes" %
                  (RTT_MS, FAR_BYTES // 1000), [
                      Column("ms", "ms", "low", 1), Column("ratio", "x hot direct", "low", 2)])
    target = "/?query=SELECT&bench_bytes=%d&bench_chunk=400000" % FAR_BYTES
    tries = run.pick(20, 4)
    far = FarNamespace(RTT_MS)
    try:
        with far_fleet(run, far) as fleet:
            port = fleet.upstreams[run.proxies[0]].port
            hot = far_fetch(far, far.there, port, target, FAR_BYTES, None, tries + 10)[10:]
            for ms in hot:
                table.add("hot direct", ms=ms, ratio=ms / statistics.median(hot))
            for proxy in fleet.proxies.values():
                far_warm(far, proxy)
            # In bursts: while others have their turn a connection cools down (RFC 2861).
            for name, proxy in fleet.rounds(run.pick(4, 1)):
                times = [far_fetch(far, "127.0.0.1", proxy.port, target, FAR_BYTES)[0]
                         for _ in range(BURST_WARM + BURST)]
                for ms in times[BURST_WARM:]:
                    table.add(name, ms=ms, ratio=ms / statistics.median(hot))
            for _ in range(tries):
                ms = far_fetch(far, far.there, port, target, FAR_BYTES)[0]
                table.add("fresh direct", ms=ms, ratio=ms / statistics.median(hot))
    finally:
        far.stop()
    if "chmux" in run.proxies:
        table.reach("at most 1.3 x a hot direct connection", table.median("chmux", "ratio") <= 1.3)
    return table


ROWS = {f.__name__: f for f in (keepalive, newconn, newconn_close, newconn_shared,
                                newconn_close_shared, idle, down, up, slow_reader,
                                slow_server, overload, tls, far_small, far_big)}
