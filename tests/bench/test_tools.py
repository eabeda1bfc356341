"""The bench's own tools must see what goes wrong, or "nothing lost" would mean nothing."""
import json
import socket
import subprocess
import sys
import threading
import os

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import data  # noqa: E402
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


CODINGS = ("zstd", "lz4", "gzip")


@pytest.fixture
def rows():
    yield lambda n: data.DATA.plain("JSONEachRow", n)
    data.DATA.remove()


def test_rows_are_the_same_in_every_run_and_format(rows):
    path = rows(1000)
    with open(path) as f:
        parsed = [json.loads(line) for line in f]
    assert [r["id"] for r in parsed] == list(range(7000000001, 7000001001))
    with open(data.DATA.plain("TSV", 1000)) as f:
        assert [line.split("\t")[6] for line in f] == [r["page"] for r in parsed]
    with open(path, "rb") as f:
        first = f.read()
    os.remove(path)
    with open(rows(1000), "rb") as f:
        assert f.read() == first
    with open(data.DATA.plain("RowBinary", 1000), "rb") as f:
        assert f.read().count(b"/item-") == 1000


@pytest.mark.parametrize("coding", CODINGS)
def test_bare_goes_there_and_back_and_sees_a_cut(rows, coding, tmp_path):
    path = rows(5000)
    coded = data.DATA.coded(path, coding, 1)
    size = os.path.getsize(path)
    assert data.bare("decode", coding, coded, repeat=3, expect=path)["bytes_out"] == 3 * size
    assert data.bare("encode", coding, path, repeat=2)["bytes_in"] == 2 * size
    with open(coded, "rb") as f:
        whole = f.read()
    cut = tmp_path / "cut"
    cut.write_bytes(whole[:-3])
    with pytest.raises(procs.BenchError, match="ends inside a frame"):
        data.bare("decode", coding, str(cut))
    with pytest.raises(procs.BenchError, match="not what was expected"):
        data.bare("decode", coding, coded, expect=coded)


@pytest.mark.parametrize("coding", CODINGS)
def test_the_fake_upstream_serves_and_checks_coded_bodies(rows, coding):
    path = rows(5000)
    coded = data.DATA.coded(path, coding, 1)
    other = rows(5001)
    size, header = os.path.getsize(coded), ["Content-Encoding: " + coding]
    u = procs.Upstream(bodies=[path, coded, other])
    try:
        r = procs.load("fetch", u.port, target="/?bench_body=1&bench_repeat=2", expect=2 * size,
                       verify_file=coded, header="Accept-Encoding: " + coding)
        assert r["received_bytes"] == 2 * size and u.stats()["unasked"] == 0
        procs.load("fetch", u.port, target="/?bench_body=1", expect=size)
        assert u.stats()["unasked"] == 1
        procs.load("fetch", u.port, target="/?bench_check=0", upload=size, upload_file=coded,
                   header=header)
        s = u.stats()
        assert (s["bad_bytes"], s["checked_bytes"]) == (0, os.path.getsize(path))
        for place, n, head in ((2, size, header), (0, size - 1, header), (0, size, [])):
            before = u.stats()["bad_bytes"]
            procs.load("fetch", u.port, target="/?bench_check=%d" % place, upload=n,
                       upload_file=coded, header=head)
            assert u.stats()["bad_bytes"] > before, (place, n, head)
    finally:
        u.stop()


def test_small_answers_come_coded_to_who_accepts_that(upstream):
    plain = procs.load("fetch", upstream.port, expect=2)
    assert plain["received_bytes"] == 2
    for coding, magic in (("zstd", 0x28), ("lz4", 0x04), ("gzip", 0x1f)):
        with socket.create_connection(("127.0.0.1", upstream.port)) as s:
            s.sendall(b"GET / HTTP/1.1\r\naccept-encoding: x, %s;q=0.5\r\n\r\n" % coding.encode())
            head, _, body = s.recv(4096).partition(b"\r\n\r\n")
        assert b"\r\nContent-Encoding: %s\r\n" % coding.encode() in head
        assert body.partition(b"\r\n")[2][0] == magic


def test_readers_compare_every_byte(rows):
    path = rows(3000)
    size = os.path.getsize(path)
    u = procs.Upstream(bodies=[path, rows(3001)])
    try:
        options = dict(clients=5, seconds=0.3, verify_file=path)
        right = procs.load("readers", u.port, target="/?bench_body=0&bench_repeat=2", **options)
        assert right["flowing"] == 5 and right["wholes"] > 0 and right["bytes"] > 10 * size
        wrong = procs.load("readers", u.port, must=False, target="/?bench_body=1", **options)
        assert wrong["wrong_bytes"] > 0
        slow = procs.load("readers", u.port, rate="64k", target="/?bench_body=0&bench_repeat=99",
                          **options)
        assert slow["most"] <= 64 * 1024 * 0.4
    finally:
        u.stop()
    with Answers(HEAD + b"2\r\n1\n\r\n") as a:
        cut = procs.load("readers", a.port, must=False, clients=2, seconds=0.2)
        assert cut["failed"] == 2
    with Answers(b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\n1\n") as a:
        assert procs.load("readers", a.port, must=False, clients=1, seconds=0.2)["failed"] == 1


def test_readers_end_when_told_and_say_what_they_got(rows):
    path = rows(3000)
    u = procs.Upstream(bodies=[path])
    try:
        readers = procs.Readers(u.port, clients=3, seconds=600, rate="1m", verify_file=path,
                                target="/?bench_body=0&bench_repeat=999")
        try:
            readers.wait_flowing()
            r = readers.end()
        finally:
            readers.stop()
    finally:
        u.stop()
    assert r["flowing"] == 3 and r["bytes"] > 0 and r["wrong_bytes"] == r["failed"] == 0


def test_a_posted_file_goes_whole_however_big(rows):
    path = rows(60000)
    u = procs.Upstream(bodies=[path])
    try:
        procs.load("closed", u.port, clients=3, requests=6, upload_file=path,
                   target="/?bench_check=0")
        s = u.stats()
    finally:
        u.stop()
    assert (s["checked_bytes"], s["bad_bytes"]) == (6 * os.path.getsize(path), 0)


def test_the_relay_counts_both_ways(upstream):
    import servers
    relay = servers.CountingRelay(upstream)
    try:
        procs.load("fetch", relay.port, target="/?bench_bytes=100000", expect=100000)
        up, down = relay.take()
        assert up == len("GET /?bench_bytes=100000 HTTP/1.1\r\nHost: ch\r\n\r\n")
        assert 100000 < down < 102000
        procs.load("fetch", relay.port, upload=50000)
        assert 50000 < relay.take()[0] < 50300
    finally:
        relay.stop()


@pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists("/dev/net/tun"),
                    reason="needs root and /dev/net/tun")
def test_a_narrow_link_is_never_faster_than_it_says():
    far = procs.FarNamespace(20, 100)
    try:
        u = procs.Upstream(far.here, prefix=far.prefix, congestion="cubic")
        try:
            down = procs.load("fetch", u.port, far.there, far.prefix, requests=2,
                              target="/?bench_bytes=2500000", expect=2500000)["times_us"]
            up = procs.load("fetch", u.port, far.there, far.prefix, upload=2500000)["times_us"]
        finally:
            u.stop()
    finally:
        far.stop()
    # 2.5 MB at 100 Mbit/s take 0.2 s, and the answer half a round trip.
    assert min(down) >= 210000 and min(up) >= 210000


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
