#!/usr/bin/env python3
"""chmux beside nginx and haproxy, and its compression: docs/PERFORMANCE.md by one command.

  tests/bench/run.py                    all rows, 5 rounds (about 40 minutes)
  tests/bench/run.py --rows pipes --proxies chmux
                                        the rows about compression (about 15 minutes)
  tests/bench/run.py --quick            a few seconds per row: does everything still run?
  tests/bench/run.py --rows keepalive,idle --json build/bench.json --md docs/PERFORMANCE.md
                                        some rows again; the others stay as they were

The daemon is $CHMUXD, else build/release/chmuxd. Loopback and a network namespace of its own only;
whatever was started is ended by its pid. Exit status 0 when all rows ran and, for chmux, nothing
failed; figures that do not reach what the issue asks are told, and fail the run only with
--strict.
"""
import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time

import procs
import rows as rows_peers
import rows_far
import rows_pipes
from data import DATA
from rows import Run

ROWS = {**rows_peers.ROWS, **rows_pipes.ROWS, **rows_far.ROWS}
SETS = {"peers": rows_peers.ROWS, "pipes": {**rows_pipes.ROWS, **rows_far.ROWS}}


def arguments():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quick", action="store_true", help="one short round per row")
    p.add_argument("--rounds", type=int, help="rounds per row (5; quick: 1)")
    p.add_argument("--rows", help="comma separated, of: %s; or of the sets: %s" % (
        ", ".join(ROWS), ", ".join(SETS)))
    p.add_argument("--proxies", default="chmux,nginx,haproxy")
    p.add_argument("--no-instructions", action="store_true", help="leave callgrind out (slow)")
    p.add_argument("--md", metavar="FILE", help="write Markdown tables, into the marked part of "
                   "FILE if it has one; - for stdout")
    p.add_argument("--json", metavar="FILE", help="write every single figure; rows that FILE holds "
                   "already and are not run now stay")
    p.add_argument("--strict", action="store_true", help="fail when a figure is not reached")
    a = p.parse_args()
    a.rows = [row for name in (a.rows or ",".join(SETS)).split(",")
              for row in SETS.get(name, [name])]
    a.proxies = a.proxies.split(",")
    for row in a.rows:
        if row not in ROWS:
            p.error("unknown row " + row)
    for name in a.proxies:
        if name not in procs.PROXIES:
            p.error("unknown proxy " + name)
    if "chmux" in a.proxies and not os.access(procs.CHMUXD, os.X_OK):
        p.error("no %s: build it, set CHMUXD, or give --proxies nginx,haproxy" % procs.CHMUXD)
    return a


def output_of(*argv):
    return subprocess.run(argv, capture_output=True, text=True, cwd=procs.HERE).stdout.strip()


def machine(proxies):
    with open("/proc/cpuinfo") as f:
        model = [l.split(":")[1].strip() for l in f if l.startswith("model name")]
    commit = output_of("git", "rev-parse", "--short", "HEAD") or "unknown"
    if output_of("git", "status", "--porcelain", "--untracked-files=no"):
        commit += " with changes"
    facts = [
        ("when", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())),
        ("command", " ".join(["tests/bench/run.py"] + sys.argv[1:])),
        ("commit", commit),
        ("machine", "%d x %s, %d GiB" % (
            os.cpu_count(), model[0] if model else platform.machine(),
            os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**30)),
        ("kernel", platform.release()),
        ("pinning", "proxy on core %s, load generator and upstream on core %s; rows about "
         "compression: none" % (min(procs.PROXY_CORE), min(procs.PEER_CORE))),
        ("libraries", "zstd %s, lz4 %s" % tuple(
            output_of("pkg-config", "--modversion", lib) or "?" for lib in ("libzstd", "liblz4"))),
        ("load before", "%.2f (1 minute average; over 0.5 something else runs)" %
         os.getloadavg()[0]),
        ("TCP", output_of("sysctl", "-n", "net.ipv4.tcp_congestion_control") +
         " on loopback, cubic in the far rows"),
    ]
    return facts + [(name, procs.PROXIES[name].version()) for name in proxies]


BEGIN, END = "<!-- begin: tests/bench/run.py --md -->", "<!-- end: tests/bench/run.py --md -->"


def markdown(facts, rows):
    """The tables in the order of ROWS; one of an earlier run says so."""
    lines = ["| | |", "|---|---|"] + ["| %s | %s |" % f for f in facts] + [""]
    for name in ROWS:
        if name not in rows:
            continue
        row = rows[name]
        lines.append(row["markdown"])
        if row["when"] != dict(facts)["when"]:
            lines.append("- measured %s, commit %s, by `%s`\n" % (
                row["when"], row["commit"], row["command"]))
    return "\n".join(lines)


def write_markdown(path, text):
    """Into the marked part of a file that has one, else as the whole file."""
    if path == "-":
        print(text)
        return
    old = ""
    if os.path.exists(path):
        with open(path) as f:
            old = f.read()
    if BEGIN in old and END in old:
        text = old[:old.index(BEGIN)] + BEGIN + "\n" + text + old[old.index(END):]
    with open(path, "w") as f:
        f.write(text)


def merge_json(path, facts, tables):
    """This run's rows over those the file holds already."""
    rows = {}
    if path and os.path.exists(path):
        with open(path) as f:
            rows = json.load(f)["rows"]
    facts = dict(facts)
    for t in tables:
        rows[t.name] = dict(t.raw(), markdown=t.markdown(), when=facts["when"],
                            commit=facts["commit"], command=facts["command"])
    if path:
        with open(path, "w") as f:
            json.dump({"machine": facts, "rows": rows}, f, indent=1)
            f.write("\n")
    return rows


def run_rows(a):
    run = Run(a.quick, a.rounds or (1 if a.quick else 5), a.proxies, not a.no_instructions)
    tables, failed = [], []
    for row in a.rows:
        print("row " + row, file=sys.stderr, flush=True)
        try:
            table = ROWS[row](run)
        except (procs.BenchError, subprocess.SubprocessError, OSError) as e:
            failed.append("%s: %s" % (row, e))
            print("FAILED " + failed[-1], file=sys.stderr, flush=True)
            continue
        tables.append(table)
        print(table.text(), flush=True)
    return tables, failed


def main():
    a = arguments()
    # A kill must still stop the children: SystemExit runs the cleanups.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    procs.build()
    facts = machine(a.proxies)
    print("\n".join("%-12s %s" % f for f in facts), flush=True)
    try:
        tables, failed = run_rows(a)
    finally:
        procs.CERTS.remove()
        DATA.remove()
    rows = merge_json(a.json, facts, tables)
    if a.md:
        write_markdown(a.md, markdown(facts, rows))
    missed = [(t.name, text) for t in tables for text, ok in t.reached if not ok]
    print("\n%d rows, %d failed, %d figures not reached" % (len(a.rows), len(failed), len(missed)))
    for name, text in missed:
        print("  %s: %s" % (name, text))
    return 1 if failed or (a.strict and missed) else 0


if __name__ == "__main__":
    sys.exit(main())
