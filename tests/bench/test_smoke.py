"""The benchmark still runs: every kind of row, briefly, against the chmuxd that is being tested.
Figures are printed, never judged here: this machine may be busy. Wrong bytes are."""
import json
import os
import shutil
import subprocess
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
ROWS = "keepalive,newconn,newconn_shared,idle,down,up,overload"
PIPE_ROWS = "wire,recode_cpu,loop_free,recode_memory,two_workers,small_bodies"
FAR_ROWS = "pipelining,scenarios"
MUST_BE_NONE = ("wrong", "failed", "errors", "lost")


def run_rows(tmp_path, rows):
    out = tmp_path / "bench.json"
    p = subprocess.run(
        [sys.executable, os.path.join(HERE, "run.py"), "--quick", "--rows", rows, "--proxies", "chmux",
         "--no-instructions", "--json", str(out)],
        capture_output=True, text=True, timeout=600, env={**os.environ, "BENCH_BUILD": str(tmp_path / "tools")})
    print(p.stdout)
    assert p.returncode == 0, p.stdout + p.stderr
    found = json.loads(out.read_text())["rows"]
    assert sorted(found) == sorted(rows.split(","))
    for name, row in found.items():
        for line, figures in row["values"].items():
            for key in MUST_BE_NONE:
                assert not any(figures.get(key, [])), (name, line, key, figures[key], p.stderr)


def test_the_benchmark_runs_and_loses_nothing(tmp_path):
    run_rows(tmp_path, ROWS)


def test_the_rows_about_compression_run_and_lose_nothing(tmp_path):
    run_rows(tmp_path, PIPE_ROWS)


@pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists("/dev/net/tun") or not shutil.which("ip"),
                    reason="a link far away needs root, ip and /dev/net/tun")
def test_the_rows_far_away_run_and_lose_nothing(tmp_path):
    run_rows(tmp_path, FAR_ROWS)
