"""The benchmark still runs: every kind of row, briefly, against the chmuxd that is being tested.
Figures are printed, never judged here: this machine may be busy."""
import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROWS = "keepalive,newconn,idle,down,up,overload"


def test_the_benchmark_runs_and_loses_nothing(tmp_path):
    out = tmp_path / "bench.json"
    p = subprocess.run(
        [sys.executable, os.path.join(HERE, "run.py"), "--quick", "--rows", ROWS, "--proxies", "chmux",
         "--no-instructions", "--json", str(out)],
        capture_output=True, text=True, timeout=300, env={**os.environ, "BENCH_BUILD": str(tmp_path / "tools")})
    print(p.stdout)
    assert p.returncode == 0, p.stdout + p.stderr
    rows = json.loads(out.read_text())
    text = json.dumps(rows)
    assert all(name in text for name in ROWS.split(",")), text[:400]
