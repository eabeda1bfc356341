"""o: real clients, unchanged, pointed at chmux: curl, clickhouse-connect sync and async, @clickhouse/client,
clickhouse-go over HTTP, PHP's curl. Each runs its own program under clients/ against ClickHouse 26.7 first
straight, so that a failure through chmux is chmux's.

A client that cannot be installed here is skipped, and the reason is printed at the end of the run."""
import os
import shutil
import subprocess
import sys

import pytest

from helpers import parallel
from installs import HERE, INSTALL_LIMIT_S, installed, missing, run
from rig.wait import wait_until

@pytest.fixture(scope="session")
def go_binary():
    if not shutil.which("go"):
        return None, "go is not installed"

    def install(folder):
        run(["go", "build", "-o", os.path.join(folder, "client"), "."], INSTALL_LIMIT_S, cwd=os.path.join(HERE, "go"))

    try:
        return os.path.join(installed("go", ["go/main.go", "go/go.mod", "go/go.sum"], install), "client"), None
    except AssertionError as e:
        return None, str(e)


def both(ch, chmux, command):
    """command(addr) straight, then through chmux; both must print OK."""
    for where in (ch, chmux):
        out = run(command(where.addr))
        assert out.startswith("OK"), (where, out)


def test_clickhouse_connect_sync(ch26, chmux26):
    both(ch26, chmux26, lambda a: [sys.executable, f"{HERE}/python_sync.py", a[0], str(a[1])])


def test_clickhouse_connect_async(ch26, chmux26):
    both(ch26, chmux26, lambda a: [sys.executable, f"{HERE}/python_async.py", a[0], str(a[1])])


def test_clickhouse_client_for_node(ch26, chmux26, node_folder, summary):
    folder, why = node_folder
    if not folder:
        missing(summary, "@clickhouse/client", why)
    shutil.copy(f"{HERE}/node.mjs", folder)
    both(ch26, chmux26, lambda a: ["node", f"{folder}/node.mjs", f"http://{a[0]}:{a[1]}", f"node-aborted-{a[1]}"])
    mine = f"query_id = 'node-aborted-{chmux26.addr[1]}'"
    wait_until(lambda: not ch26.queries(mine), 1, "the aborted query to be killed")


def test_clickhouse_go_over_http(ch26, chmux26, go_binary, summary):
    binary, why = go_binary
    if not binary:
        missing(summary, "clickhouse-go", why)
    both(ch26, chmux26, lambda a: [binary, f"{a[0]}:{a[1]}"])


def test_php_curl(ch26, chmux26, summary):
    if not shutil.which("php") or "curl" not in run(["php", "-m"]):
        missing(summary, "PHP curl", "php with its curl extension is not installed")
    both(ch26, chmux26, lambda a: ["php", f"{HERE}/client.php", f"http://{a[0]}:{a[1]}"])


# ---- curl, which every machine has
def curl(*args, **kw):
    return run(["curl", "-sS", "--max-time", "60", *args], **kw)


def test_curl(server, through):
    u = through.url
    assert curl(f"{u}/?query=SELECT%201") == "1\n"
    assert curl(u, "--data-binary", "SELECT 2") == "2\n"
    assert curl(f"{u}/ping") == "Ok.\n"
    assert curl("-u", "alice:secret", u, "--data-binary", "SELECT 3") == "3\n"
    assert curl("-H", "X-ClickHouse-User: alice", "-H", "X-ClickHouse-Key: secret", u, "-d", "SELECT 4") == "4\n"
    assert curl("-o", "/dev/null", "-w", "%{http_code}", u, "-d", "SELECT nope") in ("404", "500")
    assert curl("--http1.0", u, "-d", "SELECT 5") == "5\n"
    head = curl("-I", f"{u}/ping")
    assert head.startswith("HTTP/1.1 200 OK")


def test_curl_uploads_a_file_with_expect_100(server, through, tmp_path):
    rows = tmp_path / "rows.tsv"
    rows.write_text("".join(f"{i}\trow {i}\n" for i in range(200000)))
    server.sql("TRUNCATE TABLE cmp")
    target = f"{through.url}/?query=INSERT%20INTO%20cmp%20FORMAT%20TSV"
    curl("-H", "Expect: 100-continue", target, "--data-binary", f"@{rows}")
    curl("-H", "Transfer-Encoding: chunked", target, "--data-binary", f"@{rows}")
    assert server.sql("SELECT count(), sum(a) FROM cmp") == f"400000\t{2 * sum(range(200000))}\n"
    server.sql("TRUNCATE TABLE cmp")


def test_curl_sends_external_data(server, through):
    out = curl(f"{through.url}/?query=SELECT%20sum(id)%20FROM%20ext&ext_structure=id%20UInt32", "-F", "ext=@-;filename=e.tsv", input="1\n2\n3\n")
    assert out == "6\n"


def test_curl_sees_a_cut_result(chmux26):
    p = subprocess.run(["curl", "-sS", "--max-time", "60", f"{chmux26.url}/?max_block_size=1", "-d",
                        "SELECT number, sleepEachRow(0.02), throwIf(number = 6) FROM numbers(10)"], capture_output=True, text=True)
    assert p.returncode == 18 and "__exception__" in p.stdout, p.returncode  # CURLE_PARTIAL_FILE


def test_curl_decodes_compressed_results(chmux26):
    for enc in ("gzip", "deflate"):
        out = curl("--compressed", "-H", f"Accept-Encoding: {enc}", chmux26.url, "-d", "SELECT number FROM numbers(100000)")
        assert out.count("\n") == 100000


def test_100_curl_processes_share_the_pool(chmux26):
    before = chmux26.metric("chmux_upstream_connections_peak")
    out = parallel(100, lambda i: curl(chmux26.url, "-d", f"SELECT {i}"))
    assert out == [f"{i}\n" for i in range(100)]
    assert chmux26.metric("chmux_upstream_connections_peak") <= max(16, before)


def test_curl_over_a_unix_socket(ch26, chmuxd, tmp_path):
    path = str(tmp_path / "c.sock")
    chmuxd(ch26.url, listen=(f"unix:{path}",))
    assert curl("--unix-socket", path, "http://localhost/", "-d", "SELECT 'unix'") == "unix\n"


def test_the_debian_clickhouse_client_is_told_it_has_the_wrong_port(chmux26, summary):
    """The native client at the HTTP port: an error that names the cause, not a hang."""
    if not shutil.which("clickhouse-client"):
        missing(summary, "clickhouse-client", "not installed")
    host, port = chmux26.addr
    p = subprocess.run(["clickhouse-client", "--host", host, "--port", str(port), "--query", "SELECT 1"], capture_output=True, text=True, timeout=60)
    assert p.returncode != 0 and "HTTP" in p.stdout + p.stderr, p.stdout + p.stderr
