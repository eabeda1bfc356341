"""x: /metrics as Prometheus reads it, and what conf/ makes of it: alerts, and a dashboard for Grafana."""
import json
import os
import re
import shutil
import subprocess

import pytest

from helpers import parallel, q

TREE = os.path.join(os.path.dirname(__file__), "../..")
ALERTS = os.path.join(TREE, "conf/prometheus/alerts.yml")
NAME = re.compile(r"\b(?:chmux|process)_[a-z_]+\b")


def promtool(*args, text=None):
    program = shutil.which("promtool")
    assert program, "promtool is not installed (tests/deps.sh: prometheus)"
    return subprocess.run([program, *args], input=text, capture_output=True, text=True, timeout=60)


def read(name):
    with open(os.path.join(TREE, name)) as f:
        return f.read()


@pytest.fixture
def metrics(chmuxd, fake):
    c = chmuxd(fake().url)
    assert c.ask("GET", "/ping").status == 200
    return c.admin("/metrics").text


def names_in(text):
    """Every name that a query may use: _bucket, _sum and _count of histograms too."""
    return set(re.findall(r"^(\w+)", text, re.M))


def promql():
    """(where, query) of all alerts and panels."""
    alerts = read("conf/prometheus/alerts.yml")
    for name, expr in re.findall(r"- alert: (\w+)\n\s+expr: (.*?)\n\s+(?:for|labels):", alerts, re.S):
        yield name, expr.removeprefix(">").strip()
    board = json.loads(read("conf/grafana/chmux.json"))
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    yield "annotation", board["annotations"]["list"][0]["expr"]


# ---- /metrics
@pytest.mark.san
def test_promtool_finds_nothing_to_say(metrics):
    """Format, HELP and TYPE, counters in _total, base units: whatever promtool judges."""
    told = promtool("check", "metrics", text=metrics)
    assert told.returncode == 0 and not told.stdout and not told.stderr, told
    broken = promtool("check", "metrics", text=metrics + "# TYPE chmux_odd_milliseconds counter\nchmux_odd_milliseconds 1\n")
    assert broken.returncode != 0, "promtool would not say it"


def test_every_metric_shown_is_documented(metrics):
    documented = read("docs/USAGE.md")
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", metrics, re.M):
        assert f"| `{name}` | {kind} |" in documented, name
        assert re.search(rf"^# HELP {name} \S.{{10,}}$", metrics, re.M), name


def test_traffic_makes_no_new_series(chmuxd, fake):
    """Bounded label sets: users, queries, paths and errors of clients never become labels."""
    c = chmuxd(fake().url)
    before = set(c.metrics())
    parallel(4, lambda i: [c.ask("GET", q(f"SELECT {n}", user=f"u{i}-{n}", database=f"d{n}")) for n in range(10)])
    c.ask("GET", "/some/odd/path?x=1")
    c.ask("PATCH", "/")
    c.ask("GET", "/" + "a" * 2_000_000)
    assert set(c.metrics()) == before and len(before) < 600


def test_process_figures_are_true(chmuxd, fake):
    c = chmuxd(fake().url)
    m = c.metrics()
    with open(f"/proc/{c.pid}/stat") as f:
        ticks = int(f.read().rpartition(")")[2].split()[19])
    with open("/proc/stat") as f:
        boot = int(re.search(r"^btime (\d+)", f.read(), re.M).group(1))
    assert abs(m["process_start_time_seconds"] - (boot + ticks / os.sysconf("SC_CLK_TCK"))) < 10
    assert abs(m["process_resident_memory_bytes"] - c.rss()) < 32 << 20
    assert 0 < m["process_cpu_seconds_total"] < c.cpu_seconds() + 1
    assert m["chmux_build_info"] == 1 and m["chmux_clients_max"] == 10000


# ---- conf/
def test_alerts_and_panels_name_only_metrics_that_exist(metrics):
    have = names_in(metrics)
    asked = list(promql())
    assert len(asked) > 60
    for where, expr in asked:
        for name in NAME.findall(expr):
            assert name in have, f"{where}: {name}"
        for label, value in re.findall(r'\b(state|result|reason|side|direction|form|kind|connection)="([^"]*)"', expr):
            assert f'{label}="{value}"' in metrics, f"{where}: {label}={value}"


def test_queries_are_valid(tmp_path):
    """Those of Grafana too, with its variables filled in."""
    lines = ["groups:", "- name: all", "  rules:"]
    for i, (_, expr) in enumerate(promql()):
        for variable, value in (("$__rate_interval", "1m"), ("$instance", ".*"), ("$upstream", ".*")):
            expr = expr.replace(variable, value)
        lines += [f"  - record: q{i}", f"    expr: {json.dumps(expr)}"]
    path = tmp_path / "rules.yml"
    path.write_text("\n".join(lines) + "\n")
    told = promtool("check", "rules", str(path))
    assert told.returncode == 0, told.stdout + told.stderr


def test_each_alert_has_its_place_in_the_runbook():
    told = promtool("check", "rules", ALERTS)
    assert told.returncode == 0 and "rules found" in told.stdout, told
    runbook = read("docs/OPERATIONS.md")
    text = read("conf/prometheus/alerts.yml")
    alerts = re.split(r"(?=- alert: )", text)[1:]
    assert len(alerts) > 15
    for alert in alerts:
        name = re.match(r"- alert: (Chmux\w+)\n", alert).group(1)
        assert f"runbook_url: docs/OPERATIONS.md#{name.lower()}\n" in alert, name
        assert re.search(rf"^### {name}\n\n\S", runbook, re.M), name
        for field in ("severity: ", "summary: ", "description: "):
            assert field in alert, (name, field)
    assert set(re.findall(r"^### (Chmux\w+)$", runbook, re.M)) == set(re.findall(r"- alert: (\w+)", text))


CASES = """
rule_files: [{alerts}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {{series: 'chmux_upstream_addresses{{instance="a",state="up"}}', values: '1+0x5 0+0x20'}}
      - {{series: 'chmux_upstream_addresses{{instance="a",state="ejected"}}', values: '0+0x5 1+0x20'}}
      - {{series: 'chmux_upstream_addresses{{instance="b",state="up"}}', values: '1+0x30'}}
      - {{series: 'chmux_upstream_addresses{{instance="b",state="ejected"}}', values: '0+0x30'}}
      - {{series: 'chmux_upstream_connections{{instance="a",state="active"}}', values: '16+0x30'}}
      - {{series: 'chmux_upstream_connections{{instance="b",state="active"}}', values: '15+0x30'}}
      - {{series: 'chmux_upstream_pool_size{{instance="a"}}', values: '16+0x30'}}
      - {{series: 'chmux_upstream_pool_size{{instance="b"}}', values: '16+0x30'}}
      - {{series: 'chmux_queue_waiting{{instance="a"}}', values: '3+0x30'}}
      - {{series: 'chmux_queue_waiting{{instance="b"}}', values: '3+0x30'}}
      - {{series: 'chmux_refused_total{{instance="a",reason="queue_full"}}', values: '0+60x30'}}
      - {{series: 'chmux_refused_total{{instance="a",reason="bad_request"}}', values: '0+60x30'}}
      - {{series: 'chmux_exchanges_finished_total{{instance="a",result="cut_upstream"}}', values: '0+2x30'}}
      - {{series: 'chmux_exchanges_finished_total{{instance="a",result="complete"}}', values: '0+100x30'}}
      - {{series: 'chmux_exchanges_finished_total{{instance="b",result="cut_upstream"}}', values: '0+1x30'}}
      - {{series: 'chmux_exchanges_finished_total{{instance="b",result="complete"}}', values: '0+1000x30'}}
      - {{series: 'chmux_memory_used_bytes{{instance="a"}}', values: '95+0x30'}}
      - {{series: 'chmux_memory_limit_bytes{{instance="a"}}', values: '100+0x30'}}
    promql_expr_test:
{tests}
"""


@pytest.mark.parametrize("alert, minute, instances", [
    ("ChmuxNoServer", 5, ""), ("ChmuxNoServer", 10, "a"), ("ChmuxServerEjected", 20, "a"), ("ChmuxPoolSaturated", 20, "a"),
    ("ChmuxRefusing", 15, "a"), ("ChmuxResponsesCut", 15, "a"), ("ChmuxMemoryShort", 15, "a"),
])
def test_alerts_fire_when_they_should(tmp_path, alert, minute, instances):
    extra = {"ChmuxRefusing": ',reason="queue_full"'}.get(alert, "")
    severity = re.search(rf"- alert: {alert}\n.*?severity: (\w+)", read("conf/prometheus/alerts.yml"), re.S).group(1)
    samples = "".join(f"""
          - labels: 'ALERTS{{alertname="{alert}",alertstate="firing",instance="{i}",severity="{severity}"{extra}}}'
            value: 1""" for i in instances) or " []"
    tests = f"""      - expr: ALERTS{{alertname="{alert}",alertstate="firing"}}
        eval_time: {minute}m
        exp_samples:{samples}"""
    path = tmp_path / "test.yml"
    path.write_text(CASES.format(alerts=os.path.abspath(ALERTS), tests=tests))
    told = promtool("test", "rules", str(path))
    assert told.returncode == 0, told.stdout + told.stderr


def test_the_grafana_dashboard_is_whole():
    board = json.loads(read("conf/grafana/chmux.json"))
    panels = board["panels"]
    assert len({p["id"] for p in panels}) == len(panels)
    taken = set()
    for p in panels:
        g = p["gridPos"]
        cells = {(x, y) for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])}
        assert g["x"] + g["w"] <= 24 and not cells & taken, p["title"]
        taken |= cells
        if p["type"] == "row":
            continue
        assert p["description"] and p["fieldConfig"]["defaults"]["unit"] and p["targets"], p["title"]
        assert all(t["datasource"]["uid"] == "${datasource}" for t in p["targets"])
        assert all("$instance" in t["expr"] for t in p["targets"]), p["title"]
    assert {v["name"] for v in board["templating"]["list"]} == {"datasource", "instance", "upstream"}
