"""The rows about compression: what the pipes cost, what they save, and whom they disturb."""
import os
import statistics
import threading
from concurrent.futures import ThreadPoolExecutor

import procs
from data import DATA, SERVER_LEVEL, TOOLS, bare, tool_cpu
from measure import ThreadWindow, peak_bytes
from procs import ALL_CORES, BenchError, Chmux, Readers, Upstream, load
from report import Column, Table
from servers import ClickHouse, CountingRelay

ERRORS = Column("errors", "errors", digits=0)
MIB = 1 << 20
GIB = 1 << 30
OFF = "X-Chmux-Compression: off"


def link(coding, **chmux):
    """Settings of a chmuxd whose link speaks the coding; the keywords are of [chmux]."""
    settings = {"upstream.request_compression": coding, "upstream.response_compression": coding,
                "upstream.compression_min_size": 0}
    settings.update(("chmux." + k, v) for k, v in chmux.items())
    return settings


class Pair:
    """A fake upstream that serves files, and a chmuxd with settings in front of it. Both may use
    every core, and so may the load: workers want cores of their own."""

    def __init__(self, settings, bodies, **start):
        self.upstream = Upstream(bodies=bodies, cores=ALL_CORES)
        try:
            self.proxy = Chmux(self.upstream, settings, cores=ALL_CORES, **start)
        except BaseException:
            self.upstream.stop()
            raise
        self.port = self.proxy.port

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.proxy.stop()
        self.upstream.stop()

    def fetch(self, body, **options):
        return load("fetch", self.port, cores=ALL_CORES, target=get_target(body, options.pop(
            "repeat", 1)), **options)

    def send(self, path, check=None, repeat=1, **options):
        """Uploads the file; check: the place of the body that it must be at the upstream."""
        target = "/?query=INSERT%20INTO%20t%20FORMAT%20TSV"
        if check is not None:
            target += "&bench_check=%d" % check
        size = os.path.getsize(path) * repeat
        return load("fetch", self.port, cores=ALL_CORES, target=target, upload=size,
                    upload_file=path, upload_chunk="256k", **options)


def get_target(body, repeat=1):
    return "/?query=SELECT&bench_body=%d&bench_repeat=%d" % (body, repeat)


# ---- wire bytes ----

WIRE_GOALS = {"JSONEachRow": 0.25, "TSV": 0.3, "RowBinary": 0.5}


def wire(run):
    """Counted by a relay before a real server, heads and chunk framing included."""
    rows = run.pick(300000, 20000)
    codings = ("zstd", "lz4", "gzip")
    table = Table("wire", "Bytes between chmux and ClickHouse 26.7, %d rows, clients plain" % rows,
                  [Column("plain", "plain MB", None, 2, 1e-6)] +
                  [Column(c, c + " / plain", "low", 3) for c in codings] +
                  [Column("wrong", "wrong", digits=0)])
    server = ClickHouse(rows)
    relay = CountingRelay(server)
    try:
        for coding in ("off",) + codings:
            run.say("wire " + coding)
            proxy = Chmux(relay, link(coding), cores=ALL_CORES)
            try:
                for kind in WIRE_GOALS:
                    wire_one(table, proxy, relay, server, kind, coding, rows)
            finally:
                proxy.stop()
    finally:
        relay.stop()
        server.stop()
    for kind, goal in WIRE_GOALS.items():
        for what in ("result", "insert"):
            table.reach("%s %s: at most %.2f with zstd" % (kind, what, goal),
                        table.median("%s %s" % (kind, what), "zstd") <= goal)
    table.reach("every result byte and the sum of every insert right",
                all(table.worst(line, "wrong") == 0 for line in table.values))
    table.notes.append("results at ClickHouse's level (%d), inserts at compression_level 1" %
                       SERVER_LEVEL)
    return table


def wire_one(table, proxy, relay, server, kind, coding, rows):
    path = DATA.plain(kind, rows)
    size = os.path.getsize(path)
    sums = "SELECT count(), sum(cityHash64(*)) FROM "
    load("fetch", proxy.port)  # what chmux asks the server once for all
    relay.take()
    wrong = 0
    try:
        load("fetch", proxy.port, expect=size, verify_file=path, target="/?query=" +
             "SELECT%20*%20FROM%20events%20ORDER%20BY%20id%20FORMAT%20" + kind)
    except BenchError as e:
        wrong = 1
        table.notes.append("%s %s result: %s" % (kind, coding, str(e).strip()))
    wire_add(table, kind + " result", coding, relay.take()[1], wrong)
    server.sql("CREATE TABLE copy AS events ENGINE = Memory")
    load("fetch", proxy.port, upload=size, upload_file=path, upload_chunk="256k",
         target="/?query=INSERT%20INTO%20copy%20FORMAT%20" + kind)
    count = relay.take()[0]
    wrong = server.sql(sums + "copy") != server.sql(sums + "events")
    server.sql("DROP TABLE copy")
    wire_add(table, kind + " insert", coding, count, int(wrong))


def wire_add(table, line, coding, count, wrong):
    if coding == "off":
        table.add(line, plain=count, wrong=wrong)
    else:
        table.add(line, wrong=wrong, **{coding: count / table.median(line, "plain")})


# ---- CPU against the bare library ----

CPU_COLUMNS = [
    Column("total", "chmux CPU s/GB", "low", 3), Column("workers", "of it workers", None, 3),
    Column("moving", "moving alone", None, 3), Column("bare", "library alone", None, 3),
    Column("beside", "library beside a transfer", None, 3),
    Column("ratio", "(chmux - moving) / library", "low", 2),
    Column("inside", "workers / library", "low", 2),
    Column("tool", "tool between two sockets", None, 3),
    Column("of_tool", "chmux / tool", "low", 2)]


def recode_cpu(run):
    """Per GB of plain bytes. Moving is half of the plain bytes passed through plus half of the
    compressed ones: one of either form goes in, the other comes out."""
    rows, repeat = run.pick((1000000, 3), (50000, 1))
    table = Table("recode_cpu", "CPU per GB (plain) re-encoded, JSONEachRow, against the bare "
                  "library with the same parameters and steps", CPU_COLUMNS)
    plain = DATA.plain("JSONEachRow", rows)
    for coding in ("zstd", "lz4"):
        coded = DATA.coded(plain, coding, 1)
        with Pair(link(coding), [plain, coded]) as pair:
            for _ in range(min(run.rounds, 3)):
                for direction in ("decode", "encode"):
                    run.say("%s %s" % (coding, direction))
                    recode_cpu_one(table, pair, direction, coding, plain, coded, repeat)
    for line in table.values:
        table.reach("%s: at most 1.15 x the library" % line, table.median(line, "ratio") <= 1.15)
        table.reach("%s: all of chmux at most 1.15 x the tool" % line,
                    table.median(line, "of_tool") <= 1.15)
    table.notes.append("level 1; checksums on; %d rows, %d times in one stream" % (rows, repeat))
    table.notes.append("the tools: %s" % "; ".join(" ".join(t) for t in TOOLS.values()))
    return table


def recode_cpu_one(table, pair, direction, coding, plain, coded, repeat):
    plain_bytes, coded_bytes = os.path.getsize(plain), os.path.getsize(coded)
    accept = "Accept-Encoding: " + coding
    if direction == "decode":
        pair.fetch(1, verify_file=plain, expect=plain_bytes)
        def recode():
            pair.fetch(1, repeat=repeat, expect=plain_bytes * repeat)
        def pass_plain():
            pair.fetch(0, repeat=repeat, expect=plain_bytes * repeat, header=OFF)
        def pass_coded():
            pair.fetch(1, repeat=repeat, expect=coded_bytes * repeat, header=[accept, OFF])
        def library():
            return bare("decode", coding, coded, repeat=repeat)
    else:
        checked_send(pair, plain, 0)
        def recode():
            pair.send(plain, repeat=repeat)
        def pass_plain():
            pair.send(plain, repeat=repeat, header=OFF)
        def pass_coded():
            pair.send(coded, repeat=repeat, header=OFF)
        def library():
            return bare("encode", coding, plain, repeat=repeat)
    alone, disturbed = library(), while_running(pass_plain, library)
    tool = tool_cpu(direction, coding, plain if direction == "encode" else coded, repeat)
    costs = []
    for one in (recode, pass_plain, pass_coded):
        with ThreadWindow(pair.proxy) as cpu:
            one()
        costs.append(cpu)
    gb = plain_bytes * repeat / 1e9
    moving = (costs[1].ns + costs[2].ns) / 2
    table.add("%s %s" % (coding, direction), total=costs[0].ns / 1e9 / gb,
              workers=costs[0].worker_ns / 1e9 / gb, moving=moving / 1e9 / gb,
              bare=alone["cpu_ns"] / 1e9 / gb, beside=disturbed["cpu_ns"] / 1e9 / gb,
              ratio=(costs[0].ns - moving) / alone["cpu_ns"],
              inside=costs[0].worker_ns / alone["cpu_ns"], tool=tool / gb,
              of_tool=costs[0].ns / 1e9 / tool)


def while_running(again, what):
    """The figures of what() while again() runs over and over beside it."""
    over = threading.Event()
    def keep_on():
        while not over.is_set():
            again()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(keep_on)
        try:
            figures = what()
        finally:
            over.set()
        running.result()
    return figures


def checked_send(pair, path, place):
    """An upload that the fake upstream decodes and compares; not for measuring."""
    before = pair.upstream.stats()
    pair.send(path, check=place)
    after = pair.upstream.stats()
    if after["bad_bytes"] != before["bad_bytes"] or after["coded_uploads"] == before["coded_uploads"]:
        raise BenchError("the upload did not arrive coded and whole: %s" % after)
    if after["checked_bytes"] - before["checked_bytes"] != os.path.getsize(path):
        raise BenchError("bytes of the upload are missing: %s" % after)


# ---- the loop stays free ----

def loop_free(run):
    """One client asks SELECT 1 over and over while 8 others read big results."""
    rows = run.pick(300000, 50000)
    plain = DATA.plain("JSONEachRow", rows)
    bodies = [DATA.coded(plain, "zstd", SERVER_LEVEL)]
    table = Table("loop_free", "SELECT 1 beside 8 large results that are re-encoded", [
        Column("p50_us", "p50 ms", "low", 2, 1e-3), Column("p99_us", "p99 ms", "low", 2, 1e-3),
        Column("max_us", "max ms", None, 1, 1e-3),
        Column("loop_share", "loop busy %", None, 0, 100),
        Column("plain_rate", "results, plain MB/s", None, 0, 1e-6), Column("wrong", "wrong", digits=0)])
    cases = [("idle", "auto", None, None)]
    for workers in ("auto", "0"):
        for what, accept, rate in (("to plain, 32 MiB/s each", "identity", "32m"),
                                   ("to plain, as fast as it goes", "identity", "0"),
                                   ("to gzip, as fast as it goes", "gzip", "0")):
            cases.append(("%s, workers = %s" % (what, workers), workers, accept, rate))
    for _ in range(run.pick(min(run.rounds, 3), 1)):
        for line, workers, accept, rate in cases:
            run.say(line)
            settings = dict(link("zstd", workers=workers), **{"upstream.local_encoding": "client"})
            with Pair(settings, bodies) as pair:
                loop_free_one(run, table, line, pair, plain, accept, rate)
    idle = table.median("idle", "p99_us")
    for line in table.values:
        if line.endswith("workers = auto"):
            table.notes.append("%s: p99 %.1f x idle; with workers = 0 %.1f x" % (
                line, table.median(line, "p99_us") / idle,
                table.median(line.replace("auto", "0"), "p99_us") / idle))
    table.reach("nothing wrong in what the readers got",
                all(table.worst(line, "wrong") == 0 for line in table.values))
    table.notes.append("%d cores for the proxy, the upstream, the readers and who asks; plain MB/s "
                       "only where plain bytes are counted" % len(ALL_CORES))
    return table


def loop_free_one(run, table, line, pair, plain, accept, rate):
    seconds = run.pick(3, 0.5)
    pair.fetch(0)  # what chmux asks the server once for all
    readers = None
    if accept:
        options = {"verify_file": plain} if accept == "identity" else {}
        readers = Readers(pair.port, ALL_CORES, clients=8, rate=rate, seconds=300,
                          target=get_target(0, 1000), header="Accept-Encoding: " + accept, **options)
    try:
        if readers:
            readers.wait_flowing()
        with ThreadWindow(pair.proxy) as cpu:
            r = load("closed", pair.port, cores=ALL_CORES, must=False, clients=1, seconds=seconds,
                     warmup_ms=200)
        took = seconds + 0.2
        figures = readers.end() if readers else {"bytes": 0, "wrong_bytes": 0, "failed": 0}
    finally:
        if readers:
            readers.stop()
    table.add(line, p50_us=r["p50_us"], p99_us=r["p99_us"], max_us=r["max_us"],
              loop_share=cpu.loop_ns / 1e9 / took,
              wrong=figures["wrong_bytes"] + figures["failed"] + r["errors"])
    if accept == "identity":
        table.add(line, plain_rate=figures["bytes_per_s"])


# ---- memory ----

def recode_memory(run):
    """Readers so slow that everything fills up; each of their results would be 1 GiB."""
    rows, readers, seconds = run.pick((300000, 200, 8), (20000, 40, 2))
    plain = DATA.plain("JSONEachRow", rows)
    bodies = [DATA.coded(plain, "zstd", SERVER_LEVEL)]
    repeat = -(-GIB // os.path.getsize(plain))
    table = Table("recode_memory", "%d slow readers of re-encoded results of 1 GiB each" % readers, [
        Column("peak", "peak RSS MiB", "low", 1, 1 / MIB),
        Column("over", "over the limit MiB", "low", 1, 1 / MIB),
        Column("read", "read MiB", None, 0, 1 / MIB),
        Column("served", "readers served", None, 0), Column("wrong", "wrong", digits=0)])
    for limit, rate in ((1024, "256k"), (256, "256k"), (64, "256k")):
        line = "memory_limit %d MiB, %siB/s each" % (limit, rate)
        for _ in range(run.pick(min(run.rounds, 2), 1)):
            run.say(line)
            settings = dict(link("zstd", memory_limit="%dm" % limit, buffer_size="64k"),
                            pool_size=readers)
            with Pair(settings, bodies) as pair:
                pair.fetch(0, expect=os.path.getsize(plain))
                r = load("readers", pair.port, cores=ALL_CORES, must=False, clients=readers,
                         rate=rate, seconds=seconds, target=get_target(0, repeat),
                         verify_file=plain)
                peak = peak_bytes(pair.proxy)
            table.add(line, peak=peak, over=peak - limit * MIB, read=r["bytes"],
                      served=r["flowing"], wrong=r["wrong_bytes"] + r["failed"])
        table.reach("%s: at most 32 MiB over it" % line, table.worst(line, "over") <= 32 * MIB)
        table.reach("%s: nothing wrong in what was read" % line, table.worst(line, "wrong") == 0)
    table.notes.append("pool_size %d, so with buffer_size 64k: chmuxd wants two of them for each "
                       "connection in half of memory_limit" % readers)
    table.notes.append("in %d s they read only a small part of each result; every byte read is "
                       "compared" % seconds)
    table.notes.append("served: got anything at all in that time. The others wait: what ClickHouse "
                       "compresses (level %d) takes a window of 2 MiB each to decode" % SERVER_LEVEL)
    return table


# ---- 2 workers against 1 ----

def two_workers(run):
    rows = run.pick(300000, 50000)
    plain = DATA.plain("JSONEachRow", rows)
    bodies = [plain, DATA.coded(plain, "zstd", SERVER_LEVEL)]
    table = Table("two_workers", "Throughput of 8 streams with 1 and 2 workers", [
        Column("rate", "plain MB/s", "high", 0, 1e-6),
        Column("workers", "workers' CPU s/s", None, 2), Column("loop", "loop CPU s/s", None, 2)])
    streams = {"results zstd to gzip": two_workers_down, "inserts to zstd": two_workers_up}
    ratios = {}
    for _ in range(run.pick(min(run.rounds, 3), 1)):
        for what, one in streams.items():
            rates = []
            for workers in (1, 2):
                line = "%s, %d worker%s" % (what, workers, "s" if workers > 1 else "")
                run.say(line)
                settings = dict(link("zstd", workers=workers),
                                **{"upstream.local_encoding": "client"})
                with Pair(settings, bodies) as pair:
                    pair.fetch(1)
                    rate, cpu, seconds = one(run, pair, plain)
                table.add(line, rate=rate, workers=cpu.worker_ns / 1e9 / seconds,
                          loop=cpu.loop_ns / 1e9 / seconds)
                rates.append(rate)
            ratios.setdefault(what, []).append(rates[1] / rates[0])
    for what, r in ratios.items():
        table.notes.append("%s: 2 workers / 1 worker %.2f (%.2f-%.2f)" % (
            what, statistics.median(r), min(r), max(r)))
        table.reach("%s: at least 1.7 x" % what, statistics.median(r) >= 1.7)
    table.notes.append("%d cores for the loop, the workers, the upstream and the clients: 2 workers "
                       "have no core each" % len(ALL_CORES) if len(ALL_CORES) < 4 else
                       "%d cores" % len(ALL_CORES))
    return table


def two_workers_down(run, pair, plain):
    """Counted as gzip at the clients; by the ratio of one whole result that is plain bytes."""
    seconds = run.pick(3, 0.5)
    accept = "Accept-Encoding: gzip"
    ratio = os.path.getsize(plain) / pair.fetch(1, header=accept)["received_bytes"]
    with ThreadWindow(pair.proxy) as cpu:
        r = load("readers", pair.port, cores=ALL_CORES, clients=8, seconds=seconds, warmup_ms=500,
                 target=get_target(1, 1000), header=accept)
    return r["bytes_per_s"] * ratio, cpu, seconds + 0.5


def two_workers_up(run, pair, plain):
    """Inserts of some megabytes, one after another on each of 8 connections."""
    seconds = run.pick(3, 0.5)
    path = DATA.plain("JSONEachRow", 20000)
    with ThreadWindow(pair.proxy) as cpu:
        r = load("closed", pair.port, cores=ALL_CORES, clients=8, seconds=seconds, warmup_ms=500,
                 upload_file=path, target="/?query=INSERT%20INTO%20t%20FORMAT%20JSONEachRow")
    return r["rps"] * os.path.getsize(path), cpu, seconds + 0.5


# ---- small bodies ----

SMALL_SIZES = (256, 1024, 4096, 16384, 65536, 262144)


def small_bodies(run):
    """Where handing a body to a worker begins to pay: nothing inline against all that may be."""
    plain = [DATA.cut("JSONEachRow", 20000, size) for size in SMALL_SIZES]
    coded = [DATA.coded(path, "zstd", SERVER_LEVEL) for path in plain]
    table = Table("small_bodies", "Small bodies, link zstd: coded on the loop and by a worker", [
        Column("cpu_0", "CPU us, worker", "low", 1), Column("cpu_1m", "CPU us, loop", "low", 1),
        Column("p50_0", "p50 us, worker", "low", 0), Column("p50_1m", "p50 us, loop", "low", 0),
        Column("busy_0", "loop us, worker", "low", 1), Column("busy_1m", "loop us, loop", "low", 1),
        ERRORS])
    seconds = run.pick(0.5, 0.2)
    for _ in range(run.pick(min(run.rounds, 3), 1)):
        for limit in ("0", "1m"):
            with Pair(link("zstd", inline_limit=limit), plain + coded) as pair:
                for i, size in enumerate(SMALL_SIZES):
                    run.say("%d bytes, inline_limit = %s" % (size, limit))
                    small_body(table, pair, "result of %d B (%d B coded)" % (
                        size, os.path.getsize(coded[i])), limit, seconds,
                        target=get_target(len(plain) + i))
                    small_body(table, pair, "insert of %d B" % size, limit, seconds,
                               target="/?query=INSERT%20INTO%20t%20FORMAT%20TSV",
                               upload_file=plain[i])
    table.notes.append("one client; inline_limit 0 against 1m, which counts bytes as they come in, "
                       "at most 64 KiB out; CPU is of the whole daemon per request")
    table.reach("no errors", all(table.worst(line, "errors") == 0 for line in table.values))
    return table


def small_body(table, pair, line, limit, seconds, **options):
    with ThreadWindow(pair.proxy) as cpu:
        r = load("closed", pair.port, cores=ALL_CORES, must=False, clients=1, seconds=seconds,
                 warmup_ms=100, **options)
    n = max(r["total_requests"], 1)
    table.add(line, errors=r["errors"], **{
        "cpu_" + limit: cpu.ns / 1000 / n, "p50_" + limit: r["p50_us"],
        "busy_" + limit: cpu.loop_ns / 1000 / n})


ROWS = {f.__name__: f for f in (wire, recode_cpu, loop_free, recode_memory, two_workers,
                                small_bodies)}
