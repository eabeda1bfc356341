"""clickhouse-connect, async: python_async.py HOST PORT."""
import asyncio
import sys

import clickhouse_connect
from clickhouse_connect.driver.exceptions import DatabaseError

host, port = sys.argv[1], int(sys.argv[2])
TABLE = "client_py_async"


async def main():
    c = await clickhouse_connect.get_async_client(host=host, port=port)
    assert (await c.query("SELECT number FROM numbers(10)")).result_rows[-1] == (9,)
    await c.command(f"DROP TABLE IF EXISTS {TABLE}")
    await c.command(f"CREATE TABLE {TABLE} (a Int64, s String) ENGINE = Memory")
    await c.insert(TABLE, [[i, f"row {i}"] for i in range(20000)], column_names=["a", "s"])
    assert (await c.query(f"SELECT count(), sum(a) FROM {TABLE}")).result_rows == [(20000, sum(range(20000)))]

    # Many at once over one client: more than the pool holds.
    answers = await asyncio.gather(*(c.query(f"SELECT {i}, sleep(0.01)") for i in range(100)))
    assert [a.result_rows[0][0] for a in answers] == list(range(100))

    async with await c.query_rows_stream("SELECT number FROM numbers(200000)") as stream:
        n = 0
        async for _ in stream:
            n += 1
    assert n == 200000
    try:
        await c.query("SELECT nope")
        raise SystemExit("no error for an unknown column")
    except DatabaseError:
        pass
    await c.command(f"DROP TABLE {TABLE}")
    await c.close()
    print("OK")


asyncio.run(main())
