"""clickhouse-connect at work: one cell of the row `scenarios` for each line on stdin, its figures as
a line on stdout. Runs in the namespace of the row, under a Python that has the client.

A line: {"scenario": ..., "kind": "sync"|"async", "life": "short"|"long", "seconds": ...,
"connect": the arguments of get_client}. short: a new client for every request. Threads or tasks
each do one thing after another until the time is over and they have done at least MIN_EACH.
"""
import asyncio
import datetime
import json
import sys
import threading
import time

import clickhouse_connect

MIN_EACH = 2
NOW = datetime.datetime(2026, 9, 21, 14, 0, 0)
COLUMNS = ["id", "time", "user", "session", "kind", "country", "page", "took_ms", "amount"]
SELECTS = {
    "select 100 rows": ("SELECT * FROM events LIMIT 100", 100),
    "filtered": ("SELECT id, time, page, amount FROM events WHERE user = 1010 ORDER BY id LIMIT 50", 50),
    "join": ("SELECT u.name, count(), sum(e.amount) FROM events AS e JOIN users AS u ON e.user = u.id "
             "WHERE e.id < 7000010000 GROUP BY u.name ORDER BY 2 DESC LIMIT 20", 20),
    "aggregation": ("SELECT country, kind, count(), sum(amount), avg(took_ms) FROM events "
                    "GROUP BY country, kind ORDER BY 1, 2 LIMIT 20", 20),
    "10k rows": ("SELECT * FROM events LIMIT 10000", 10000),
}
# name -> (how many at once, what each does in turn)
SCENARIOS = {
    "select 100 rows": (1, ["select 100 rows"]),
    "filtered": (16, ["filtered"]),
    "join": (16, ["join"]),
    "aggregation": (32, ["aggregation"]),
    "10k rows": (4, ["10k rows"]),
    "insert 10 rows": (32, ["insert 10"]),
    "insert 100 rows": (32, ["insert 100"]),
    "mixed": (32, ["select 100 rows", "filtered", "insert 10", "select 100 rows", "aggregation"]),
}


def rows_to_insert(n):
    return [[i, NOW, 1000 + i, i * 7, "view", "DE", "/books/item-%05d" % i, 12, 0.5]
            for i in range(n)]


def check(step, got):
    if got != SELECTS[step][1]:
        raise SystemExit("%s: %d rows" % (step, got))


def do(client, step):
    if step.startswith("insert"):
        client.insert("sink", rows_to_insert(int(step.split()[1])), column_names=COLUMNS)
    else:
        check(step, len(client.query(SELECTS[step][0]).result_rows))


async def do_async(client, step):
    if step.startswith("insert"):
        await client.insert("sink", rows_to_insert(int(step.split()[1])), column_names=COLUMNS)
    else:
        check(step, len((await client.query(SELECTS[step][0])).result_rows))


class Cell:
    def __init__(self, order):
        self.order = order
        self.at_once, self.steps = SCENARIOS[order["scenario"]]
        self.times, self.errors = [], []
        self.open_seconds = 0

    def start(self):
        self.from_ = time.monotonic()
        self.until = self.from_ + self.order["seconds"]

    def more(self, done):
        return done < MIN_EACH or time.monotonic() < self.until

    def figures(self):
        return {"ops": len(self.times), "seconds": time.monotonic() - self.from_,
                "times_ms": [round(t * 1000, 2) for t in self.times],
                "errors": [str(e)[:300] for e in self.errors[:3]], "failed": len(self.errors)}


def sync_worker(cell, number, ready):
    connect = cell.order["connect"]
    client = None
    try:
        if cell.order["life"] == "long":
            client = clickhouse_connect.get_client(**connect)
            do(client, cell.steps[number % len(cell.steps)])
        ready.wait()
        done = 0
        while cell.more(done):
            step = cell.steps[(number + done) % len(cell.steps)]
            t = time.monotonic()
            c = client or clickhouse_connect.get_client(**connect)
            do(c, step)
            if not client:
                c.close()
            cell.times.append(time.monotonic() - t)
            done += 1
    except Exception as e:  # whatever it is, the cell has to say so
        cell.errors.append(e)
        ready.abort()
    finally:
        if client:
            client.close()


def run_sync(cell):
    ready = threading.Barrier(cell.at_once, action=cell.start)
    threads = [threading.Thread(target=sync_worker, args=(cell, i, ready))
               for i in range(cell.at_once)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()


async def run_async(cell):
    connect = dict(cell.order["connect"], connector_limit=64, connector_limit_per_host=64)
    client = None
    if cell.order["life"] == "long":
        client = await clickhouse_connect.get_async_client(**connect)
        await asyncio.gather(*(do_async(client, cell.steps[i % len(cell.steps)])
                               for i in range(cell.at_once)))

    async def worker(number):
        done = 0
        while cell.more(done):
            step = cell.steps[(number + done) % len(cell.steps)]
            t = time.monotonic()
            c = client or await clickhouse_connect.get_async_client(**connect)
            await do_async(c, step)
            if not client:
                await c.close()
            cell.times.append(time.monotonic() - t)
            done += 1

    cell.start()
    try:
        await asyncio.gather(*(worker(i) for i in range(cell.at_once)))
    except Exception as e:
        cell.errors.append(e)
    if client:
        await client.close()


for line in sys.stdin:
    cell = Cell(json.loads(line))
    cell.start()  # for cells that fail before all are ready
    if cell.order["kind"] == "sync":
        run_sync(cell)
    else:
        asyncio.run(run_async(cell))
    print(json.dumps(cell.figures()), flush=True)
