"""g: P6 Fair: FIFO inside a flow (user and peer), round-robin between flows. The order is read off one
upstream connection, which serves one request at a time and only when the test says so."""
import threading

import pytest

from helpers import OK, Background
from rig.http1 import RawClient, request
from rig.wait import wait_until

pytestmark = [pytest.mark.san, pytest.mark.loop]


class Turnstile:
    """A script that answers one request per step()."""

    def __init__(self):
        self.steps = threading.Semaphore(0)
        self.order = []

    def __call__(self, conn):
        while (got := conn.request()) is not None:
            self.order.append(got[0].target.partition("?")[0])
            if not self.steps.acquire(timeout=20):
                raise AssertionError("the turnstile was never opened")
            conn.send(OK)

    def open(self, n=1000):
        self.steps.release(n)


def queued(c, user, names, by="header"):
    """Sends a request per name, each in the queue before the next is sent; the clients."""
    out = []
    for name in names:
        before = c.metric("chmux_queue_waiting")
        k = RawClient(c.addr)
        target, headers = f"/{name}", []
        if by == "header":
            headers = [("X-ClickHouse-User", user)]
        elif by == "url":
            target += f"?user={user}"
        elif by == "basic":
            import base64

            headers = [("Authorization", "Basic " + base64.b64encode(f"{user}:pw".encode()).decode())]
        k.send(request("GET", target, headers))
        wait_until(lambda: c.metric("chmux_queue_waiting") == before + 1, what=f"{name} to be queued")
        out.append(k)
    return out


@pytest.fixture
def jam(chmuxd, fake):
    """pool_size 1 and one request in progress: everything after it queues."""
    t = Turnstile()
    up = fake(t, deadline=30)
    c = chmuxd(up.url, upstream__pool_size=1)
    first = Background(lambda: c.ask("GET", "/first"))
    up.wait_heads(1)
    yield c, t
    t.open()
    first.result()


def finish(t, clients):
    t.open()
    for k in clients:
        assert k.response().status == 200
        k.close()


def test_one_flow_is_served_in_order(jam):
    c, t = jam
    names = [f"a{i}" for i in range(12)]
    clients = queued(c, "alice", names)
    finish(t, clients)
    assert t.order == ["/first"] + ["/" + n for n in names]


@pytest.mark.parametrize("by", ["header", "url", "basic"])
def test_a_late_flow_does_not_wait_behind_a_greedy_one(jam, by):
    c, t = jam
    clients = queued(c, "greedy", [f"g{i}" for i in range(10)], by)
    clients += queued(c, "modest", ["m0", "m1"], by)
    finish(t, clients)
    assert t.order.index("/m0") <= 2, t.order
    assert t.order.index("/m1") <= 4, t.order
    assert [n for n in t.order if n.startswith("/g")] == [f"/g{i}" for i in range(10)]


def test_three_flows_take_turns(jam):
    c, t = jam
    clients = []
    for user in "xyz":
        clients += queued(c, user, [f"{user}{i}" for i in range(5)])
    finish(t, clients)
    order = [n[1] for n in t.order[1:]]
    for i in range(0, 15, 3):
        assert sorted(order[i : i + 3]) == ["x", "y", "z"], t.order


def test_a_waiter_that_leaves_is_never_sent(jam):
    c, t = jam
    clients = queued(c, "alice", [f"a{i}" for i in range(5)])
    clients[2].close()
    c.wait_metric("chmux_queue_waiting", 4)
    finish(t, clients[:2] + clients[3:])
    assert t.order == ["/first", "/a0", "/a1", "/a3", "/a4"]


def test_equal_clients_get_equal_shares(chmuxd, fake):
    """40 clients on 4 connections, each sending its next request as soon as it has an answer."""
    from helpers import parallel

    up = fake()
    c = chmuxd(up.url, upstream__pool_size=4)
    stop = threading.Event()
    counts = [0] * 40

    def client(i):
        with RawClient(c.addr) as k:
            while not stop.is_set():
                k.send(request("GET", "/ping"))
                assert k.response().status == 200
                counts[i] += 1
                if sum(counts) >= 4000:
                    stop.set()

    parallel(40, client)
    jain = sum(counts) ** 2 / (len(counts) * sum(n * n for n in counts))
    assert jain >= 0.9, (jain, counts)


def test_a_long_upload_does_not_hold_up_others(chmuxd, fake):
    up = fake(keep_bytes=False)
    c = chmuxd(up.url, upstream__pool_size=2)
    with c.client() as slow:
        slow.send(request("POST", "/?query=INSERT", [("Content-Length", "10")]) + b"12345")
        up.wait_heads(1)
        for _ in range(50):
            assert c.ask("GET", "/ping").status == 200
        slow.send(b"67890")
        assert slow.response("POST").status == 200
