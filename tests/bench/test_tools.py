"""The bench's own tools must see what goes wrong, or "nothing lost" would mean nothing."""
import json
import socket
import subprocess
import sys
import threading
import os

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import procs  # noqa: E402

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module", autouse=True)
def tools(tmp_path_factory):
    procs.BUILD = str(tmp_path_factory.mktemp("bench"))
    procs.build()


@pytest.fixture
def upstream():
    u = procs.Upstream()
    yield u
    u.stop()


class Answers:
    """A server that gives each connection the same bytes once a head has come, then closes."""

    def __init__(self, answer):
        self.answer = answer
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            with s:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += s.recv(65536) or b"\r\n\r\n"
                s.sendall(self.answer)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(5)


def fetch_fails(answer, **options):
    with Answers(answer) as a:
        argv = procs.load_argv("fetch", a.port, "127.0.0.1", options)
        return subprocess.run(argv, capture_output=True, timeout=20).returncode != 0


@pytest.mark.parametrize("answer", [
    HEAD + b"2\r\n1\n\r\n",                    # no final chunk
    HEAD + b"8\r\n1\n\r\n",                    # cut inside a chunk
    HEAD + b"2\r\n1\n\r\n0\r\n",               # final chunk without its blank line
    HEAD + b"2\r\n1\nx\r\n0\r\n\r\n",          # no CRLF after the payload
    HEAD + b"\r\n\r\n",                        # a chunk size without digits
    HEAD + b"2\r\n1\n\r\n0\r\n\r\nx",          # more than the message
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n1\n",
    b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\n1\n",
    b"HTTP/1.1 200",
    b"",
])
def test_a_broken_answer_is_an_error(answer):
    assert fetch_fails(answer)
    with Answers(answer) as a:
        r = procs.load("closed", a.port, must=False, clients=2, requests=4)
    assert r["requests"] == 0 and r["errors"] == 4


@pytest.mark.parametrize("answer", [
    HEAD + b"2\r\n1\n\r\n0\r\n\r\n",
    HEAD + b"1;ext=1\r\n1\r\n01\r\n\n\r\n0\r\nX-Trailer: 1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n1\n",
    b"HTTP/1.1 200 OK\r\n\r\n1\n",
])
def test_a_whole_answer_is_none(answer):
    assert not fetch_fails(answer, expect=2)
    with Answers(answer) as a:
        r = procs.load("closed", a.port, clients=2, requests=4, new_conn="server")
    assert r["requests"] == 4 and r["errors"] == 0


def test_a_wrong_byte_or_count_is_an_error(upstream):
    def target(n):
        return "/?bench_bytes=%d&bench_chunk=4096" % n
    ok = procs.load("fetch", upstream.port, target=target(300000), expect=300000, verify=1)
    assert ok["received_bytes"] == 300000
    with pytest.raises(procs.BenchError, match="300000 body bytes instead of 300001"):
        procs.load("fetch", upstream.port, target=target(300000), expect=300001)
    body = b"x" * 5
    assert fetch_fails(HEAD + b"5\r\n" + body + b"\r\n0\r\n\r\n", verify=1)


def test_an_upload_is_counted_and_checked(upstream):
    procs.load("fetch", upstream.port, upload=1000003, upload_chunk=4096,
               target="/?bench_verify=1")
    assert upstream.stats()["body_bytes"] == 1000003
    assert upstream.stats()["bad_bytes"] == 0
    with socket.create_connection(("127.0.0.1", upstream.port)) as s:
        s.sendall(b"POST /?bench_verify=1 HTTP/1.1\r\nContent-Length: 4\r\n\r\nnope")
        assert s.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
    assert upstream.stats()["bad_bytes"] == 4


def test_an_answer_to_the_wrong_count_is_an_error():
    with Answers(HEAD + b"2\r\n9\n\r\n0\r\n\r\n") as a:
        with pytest.raises(procs.BenchError, match="of 10 bytes the server counted 9"):
            procs.load("fetch", a.port, upload=10)


def test_connections_and_handshakes_are_counted():
    upstream = procs.Upstream(tls="1.3")
    try:
        for _ in range(3):
            procs.load("fetch", upstream.port, tls="1.3", requests=2)
        s = upstream.stats()
    finally:
        upstream.stop()
        procs.CERTS.remove()
    assert (s["accepted"], s["requests"], s["peak_open"]) == (3, 6, 1)
    assert s["full_handshakes"] == 3 and s["resumed_handshakes"] == 0


def test_a_delay_is_kept_and_shared_fairly():
    upstream = procs.Upstream(delay_ms=20)
    try:
        r = procs.load("closed", upstream.port, clients=8, requests=80)
    finally:
        upstream.stop()
    assert r["p50_us"] >= 20000
    assert r["jain"] == 1.0


def test_jain_tells_unequal_shares():
    # One of two clients is never answered after its first request: it gets 1 of all.
    served = threading.Semaphore(0)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        first, _ = listener.accept()
        second, _ = listener.accept()
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        second.recv(4096)
        second.sendall(answer)
        for _ in range(8):
            first.recv(4096)
            first.sendall(answer)
        served.release()
        second.close()
        first.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    r = procs.load("closed", listener.getsockname()[1], must=False, clients=2, requests=10)
    served.acquire()
    thread.join(5)
    listener.close()
    assert r["requests"] == 9 and r["errors"] >= 1
    assert abs(r["jain"] - 81 / (2 * 65)) < 1e-4


def test_idle_clients_stay_and_come_back(upstream):
    herd = procs.IdleClients(upstream.port, 300)
    try:
        assert herd.first["requests"] == 300
        assert upstream.stats()["open"] == 300
        assert herd.again()["errors"] == 0
    finally:
        herd.stop()
    assert upstream.stats()["requests"] == 600


def test_markdown_goes_between_the_marks(tmp_path):
    import run
    page = tmp_path / "page.md"
    page.write_text("before\n" + run.BEGIN + "\nold\n" + run.END + "\nafter\n")
    run.write_markdown(str(page), "new\n")
    assert page.read_text() == "before\n" + run.BEGIN + "\nnew\n" + run.END + "\nafter\n"


def test_ratio_is_against_the_better_peer():
    from report import Column, Table
    columns = [Column("rps", "r/s", "high"), Column("us", "us", "low")]
    t = Table("t", "t", columns)
    t.add("chmux", rps=90, us=3)
    t.add("nginx", rps=100, us=4)
    t.add("haproxy", rps=50, us=2)
    assert [t.ratio(c) for c in columns] == [0.9, 1.5]
    t.reach_no_worse(("rps", "us"))
    assert [ok for _, ok in t.reached] == [False, False]
    assert json.dumps(t.raw())
