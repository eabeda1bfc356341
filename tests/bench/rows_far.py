"""The rows about compression over a link that is far away or narrow: pipelining, and real clients."""
import glob
import json
import os
import statistics
import subprocess
import sys
from urllib.parse import quote

import procs
from data import DATA, SERVER_LEVEL, bare
from procs import ALL_CORES, BenchError, Chmux, FarNamespace, Proc, Upstream, load
from report import Column, Table
from rows_pipes import OFF, get_target, link
from servers import ClickHouse, TlsFront

# name, round trip in ms, Mbit/s of each direction (0: no limit)
LINKS = (("64 ms", 64, 0), ("1 Gbit/s", 1, 1000), ("100 Mbit/s", 1, 100))


def pipelining(run):
    """With pipes, the slower of link and codec should be all there is to wait for."""
    rows = run.pick(1000000, 30000)
    table = Table("pipelining", "%d rows of JSONEachRow, clients plain, link zstd: pipes against "
                  "link and codec one after the other" % rows, [
                      Column("pipes", "with pipes s", "low", 3),
                      Column("network", "link alone s", None, 3),
                      Column("codec", "codec alone s", None, 3),
                      Column("of_max", "pipes / slower of both", "low", 2),
                      Column("of_sum", "pipes / sum of both", "low", 2)])
    for name, rtt_ms, mbit in LINKS[:run.pick(3, 1)]:
        far = FarNamespace(rtt_ms, mbit)
        try:
            pipelining_link(run, table, far, name, rows, replay=True)
            if not run.quick:
                pipelining_link(run, table, far, name, rows, replay=False)
        finally:
            far.stop()
    for line in table.values:
        table.reach("%s: at most 1.1 x the slower of both" % line,
                    table.median(line, "of_max") <= 1.1)
    table.notes.append("link alone: the same compressed bytes through the same chmux and connection, "
                       "nothing coded (with 26.7 its own time is in it); codec alone: the library "
                       "from memory to nowhere")
    table.notes.append("replay: the fake upstream sends what was compressed before, and takes all; "
                       "%d cores for everything" % len(ALL_CORES))
    return table


def pipelining_link(run, table, far, name, rows, replay):
    plain = DATA.plain("JSONEachRow", rows)
    result, insert = DATA.coded(plain, "zstd", SERVER_LEVEL), DATA.coded(plain, "zstd", 1)
    if replay:
        upstream = Upstream(far.here, prefix=far.prefix, congestion="cubic", cores=ALL_CORES,
                            bodies=[result])
        targets = (get_target(0), "/?query=INSERT%20INTO%20t%20FORMAT%20JSONEachRow")
    else:
        upstream = ClickHouse(rows, far.here, far.prefix)
        targets = ("/?query=" + quote("SELECT * FROM events FORMAT JSONEachRow"),
                   "/?query=" + quote("INSERT INTO sink FORMAT JSONEachRow"))
    try:
        chmux = Chmux(upstream, link("zstd"), far.prefix, far.there, cores=ALL_CORES)
        try:
            for i in range(run.pick(min(run.rounds, 3 if replay else 2), 1)):
                run.say("%s %s round %d" % (name, "replay" if replay else "26.7", i + 1))
                who = "" if replay else ", 26.7"
                pipelining_add(table, "SELECT, %s%s" % (name, who),
                               *pipelining_select(far, chmux, targets[0], plain, result, replay))
                pipelining_add(table, "INSERT, %s%s" % (name, who),
                               *pipelining_insert(far, chmux, targets[1], plain, insert))
        finally:
            chmux.stop()
    finally:
        upstream.stop()


def pipelining_add(table, line, pipes, network, codec):
    table.add(line, pipes=pipes, network=network, codec=codec, of_max=pipes / max(network, codec),
              of_sum=pipes / (network + codec))


def timed(far, chmux, **options):
    """Of two in a row the second: while nothing is sent the kernel shrinks the window (RFC 2861),
    and what comes first after a pause would be measured against what comes second."""
    return load("fetch", chmux.port, prefix=far.prefix, cores=ALL_CORES, requests=2,
                **options)["times_us"][-1] / 1e6


def pipelining_select(far, chmux, target, plain, coded, replay):
    pipes = timed(far, chmux, target=target, expect=os.path.getsize(plain))
    more = {"expect": os.path.getsize(coded)} if replay else {}
    network = timed(far, chmux, target=target, header="Accept-Encoding: zstd", **more)
    return pipes, network, bare("decode", "zstd", coded)["wall_ns"] / 1e9


def pipelining_insert(far, chmux, target, plain, coded):
    pipes = timed(far, chmux, target=target, upload=os.path.getsize(plain), upload_file=plain,
                  upload_chunk="256k")
    network = timed(far, chmux, target=target, upload=os.path.getsize(coded), upload_file=coded,
                    upload_chunk="256k", header=[OFF, "Content-Encoding: zstd"])
    return pipes, network, bare("encode", "zstd", plain)["wall_ns"] / 1e9


# ---- real clients ----

SCENARIO_RTT_MS = 64.4
SCENARIOS = ("select 100 rows", "filtered", "join", "aggregation", "10k rows", "insert 10 rows",
             "insert 100 rows", "mixed")
AT_ONCE = {"select 100 rows": 1, "filtered": 16, "join": 16, "10k rows": 4}
KINDS = [(kind, life) for kind in ("sync", "async") for life in ("short", "long")]
WAYS = ("direct", "chmux", "zstd")


def client_python():
    """A Python that has clickhouse-connect: this one, or that of the system tests."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    for python in [sys.executable] + sorted(glob.glob(cache + "/chmux/venv-*/bin/python")):
        if subprocess.run([python, "-c", "import clickhouse_connect, aiohttp"],
                          capture_output=True).returncode == 0:
            return python
    raise BenchError("no Python with clickhouse-connect and aiohttp: run tests/run.sh system once")


class PyClients(Proc):
    def __init__(self, prefix):
        super().__init__([client_python(), os.path.join(procs.HERE, "pyclients.py")], ALL_CORES,
                         prefix, stdin=subprocess.PIPE)

    def cell(self, **order):
        self.popen.stdin.write(json.dumps(order) + "\n")
        self.popen.stdin.flush()
        line = self.popen.stdout.readline()
        if not line:
            raise BenchError("pyclients: " + self.stderr_text())
        return json.loads(line)

    def stop(self, *sig):
        self.popen.stdin.close()
        return super().stop(*sig)


def scenarios(run):
    """Python clients, a new one for each request or one for all, straight over TLS and by chmux."""
    columns = [Column(w, w + " op/s", None, 1) for w in WAYS]
    columns += [Column("p95_" + w, w + " P95 ms", None, 0) for w in WAYS]
    columns += [Column("x_" + w, w + " / direct", "high", 2) for w in WAYS[1:]]
    columns += [Column("failed", "failed", digits=0)]
    table = Table("scenarios", "clickhouse-connect at %.1f ms over TLS 1.3, 26.7: direct, by chmux, "
                  "by chmux with link zstd" % SCENARIO_RTT_MS, columns)
    far = FarNamespace(SCENARIO_RTT_MS)
    started = []
    try:
        server = ClickHouse(run.pick(100000, 20000), far.here, far.prefix)
        started.append(server)
        server.sql("CREATE TABLE users ENGINE = MergeTree ORDER BY id AS SELECT toUInt32(1000 + number) "
                   "AS id, concat('user ', toString(number)) AS name FROM numbers(50000)")
        front = TlsFront(server, far.here, far.prefix)
        started.append(front)
        ports = {}
        for way, settings in (("chmux", {}), ("zstd", link("zstd"))):
            settings = dict(settings, pool_size=32)
            started.append(Chmux(front, settings, far.prefix, far.there, cores=ALL_CORES))
            ports[way] = started[-1].port
        clients = PyClients(far.prefix)
        started.append(clients)
        connect = {way: {"host": "127.0.0.1", "port": port} for way, port in ports.items()}
        connect["direct"] = {"host": far.there, "port": front.port, "interface": "https",
                             "ca_cert": procs.CERTS.ca}
        for i in range(run.pick(min(run.rounds, 2), 1)):
            scenario_round(run, table, clients, connect, i)
    finally:
        for proc in reversed(started):
            proc.stop()
        far.stop()
    scenario_means(table)
    return table


def scenario_round(run, table, clients, connect, number):
    kinds, names = run.pick((KINDS, SCENARIOS), (KINDS[:1] + KINDS[-1:], SCENARIOS[:1]))
    for kind, life in kinds:
        for name in names:
            line = "%s, c=%d, %s %s" % (name, AT_ONCE.get(name, 32), kind, life)
            run.say("round %d %s" % (number + 1, line))
            rates = {}
            for way in WAYS:
                r = clients.cell(scenario=name, kind=kind, life=life, connect=connect[way],
                                 seconds=run.pick(1.0, 0.3))
                rates[way] = r["ops"] / r["seconds"]
                times = sorted(r["times_ms"]) or [0]
                table.add(line, failed=r["failed"], **{
                    way: rates[way], "p95_" + way: times[min(len(times) * 95 // 100, len(times) - 1)]})
                for text in r["errors"]:
                    table.notes.append("%s %s: %s" % (line, way, " ".join(text.split())))
            if rates["direct"] > 0:
                table.add(line, **{"x_" + w: rates[w] / rates["direct"] for w in WAYS[1:]})


def scenario_means(table):
    for kind, life in KINDS:
        ending = "%s %s" % (kind, life)
        lines = [l for l in table.values if l.endswith(", " + ending)]  # async ends in sync, too
        for way in WAYS[1:]:
            ratios = [table.median(l, "x_" + way) for l in lines]
            ratios = [r for r in ratios if r]
            if ratios:
                table.notes.append("%s clients, %s: %.2f x the throughput of direct (geometric mean "
                                   "of %d scenarios)" % (ending, way, statistics.geometric_mean(ratios),
                                                         len(ratios)))
    table.reach("no request failed", all(table.worst(l, "failed") == 0 for l in table.values))
    table.notes.append("short: a new client for every request; long: the same clients all the time "
                       "(sync: one per thread). Same arguments both ways, but for host and TLS; pool_size 32")


ROWS = {f.__name__: f for f in (pipelining, scenarios)}
