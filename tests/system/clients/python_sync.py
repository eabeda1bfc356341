"""clickhouse-connect, sync: python_sync.py HOST PORT. Prints OK when all answers were right."""
import sys
from concurrent.futures import ThreadPoolExecutor

import clickhouse_connect

host, port = sys.argv[1], int(sys.argv[2])
TABLE = "client_py_sync"


def connect(**kw):
    return clickhouse_connect.get_client(host=host, port=port, **kw)


c = connect()
assert c.command("SELECT 1") == 1
assert c.query("SELECT number, toString(number) FROM numbers(1000)").result_rows[-1] == (999, "999")
c.command(f"DROP TABLE IF EXISTS {TABLE}")
c.command(f"CREATE TABLE {TABLE} (a Int64, s String, f Float64) ENGINE = Memory")
c.insert(TABLE, [[i, f"row {i}", i / 2] for i in range(50000)], column_names=["a", "s", "f"])
assert c.query(f"SELECT count(), sum(a) FROM {TABLE}").result_rows == [(50000, sum(range(50000)))]

# Streams, compressions, parameters, settings, errors, sessions.
with c.query_row_block_stream("SELECT number FROM numbers(500000)") as stream:
    assert sum(len(b) for b in stream) == 500000
for method in ("lz4", "zstd", "gzip", "br", False):
    k = connect(compress=method)
    assert len(k.query("SELECT number, repeat('x', 50) FROM numbers(20000)").result_rows) == 20000
    k.insert(TABLE, [[i, "y" * 100, 0.5] for i in range(5000)], column_names=["a", "s", "f"])
assert c.query(f"SELECT count() FROM {TABLE}").result_rows == [(75000,)]
assert c.query("SELECT {x:UInt32} + 1", parameters={"x": 41}).result_rows == [(42,)]
assert c.query("SELECT getSetting('max_threads')", settings={"max_threads": 3}).result_rows == [(3,)]
try:
    c.query("SELECT nope")
    raise SystemExit("no error for an unknown column")
except clickhouse_connect.driver.exceptions.DatabaseError as e:
    assert "47" in str(e) or "nope" in str(e), e
try:
    # Fails after rows: the client must notice, not return a short result.
    c.query("SELECT number, throwIf(number = 400000) FROM numbers(500000)")
    raise SystemExit("a result cut by an exception was taken as whole")
except clickhouse_connect.driver.exceptions.Error:
    pass
c.command("CREATE TEMPORARY TABLE tt (a Int8)")
c.command("INSERT INTO tt VALUES (1), (2)")
assert c.command("SELECT count() FROM tt") == 2
alice = connect(username="alice", password="secret")
assert alice.command("SELECT currentUser()") == "alice"
try:
    connect(username="alice", password="wrong")
    raise SystemExit("a wrong password was accepted")
except clickhouse_connect.driver.exceptions.DatabaseError:
    pass


def worker(i):
    k = connect(autogenerate_session_id=False)
    return [k.command(f"SELECT {i} * 1000 + {n}") for n in range(20)]


with ThreadPoolExecutor(16) as pool:
    for i, got in enumerate(pool.map(worker, range(16))):
        assert got == [i * 1000 + n for n in range(20)]
c.command(f"DROP TABLE {TABLE}")
print("OK", clickhouse_connect.__version__ if hasattr(clickhouse_connect, "__version__") else "")
