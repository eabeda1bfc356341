"""Fixtures of the system tests. CHMUXD names the binary under test.

Servers and certificates live for the whole run; every chmuxd made by the `chmuxd` factory is stopped and
judged (exit code, sanitizer reports) at the end of its test. Markers: `slow` (over 10 s), `san` (worth
running on an ASan or TSan build), `loop` (not on a TSan build), `memory` (RSS limits; skipped on sanitizer builds)."""
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
pytest.register_assert_rewrite("helpers", "compare", "installs", "loopers", "recode")

from helpers import OK  # noqa: E402
from installs import HERE, INSTALL_LIMIT_S, installed, run  # noqa: E402
from rig import chmuxd as chmuxd_rig  # noqa: E402
from rig import clickhouse, fake as fake_rig, relay as relay_rig, tls as tls_rig  # noqa: E402

TEST_LIMIT_S = 150
SUMMARY = []  # lines for the end of the run


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes over 10 s")
    config.addinivalue_line("markers", "san: worth running on a sanitizer build")
    config.addinivalue_line("markers", "loop: all on chmuxd's event loop, so TSan has nothing to see that others do not show it")
    config.addinivalue_line("markers", "memory: limits on RSS, meaningless on a sanitizer build")


def pytest_collection_modifyitems(config, items):
    if os.environ.get("CHMUXD") and chmuxd_rig.sanitizer():
        skip = pytest.mark.skip(reason="RSS of a sanitizer build says nothing")
        for item in items:
            if "memory" in item.keywords:
                item.add_marker(skip)


def pytest_terminal_summary(terminalreporter):
    for line in SUMMARY:
        terminalreporter.write_line(line)


@pytest.fixture
def summary():
    """A list of lines printed at the end of the run."""
    return SUMMARY


@pytest.fixture(scope="session")
def node_folder():
    """The folder with node_modules, or why there is none."""
    if not shutil.which("node") or not shutil.which("npm"):
        return None, "node and npm are not installed"

    def install(folder):
        shutil.copy(os.path.join(HERE, "package.json"), folder)
        run(["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"], INSTALL_LIMIT_S, cwd=folder)

    try:
        return installed("node", ["package.json"], install), None
    except AssertionError as e:
        return None, str(e)


@pytest.fixture(autouse=True)
def time_limit(request):
    """A hanging test fails with a traceback of where it hung, instead of hanging the run."""

    def too_long(*_):
        raise AssertionError(f"{request.node.name} ran over {TEST_LIMIT_S} s")

    old = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(TEST_LIMIT_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)


# ---- servers
def prepare(server):
    server.sql("DROP TABLE IF EXISTS cmp")
    server.sql("CREATE TABLE cmp (a Int32, s String) ENGINE = Memory")
    return server


@pytest.fixture(scope="session")
def _ch26(tmp_path_factory):
    s = prepare(clickhouse.ClickHouse26(str(tmp_path_factory.mktemp("clickhouse-26"))))
    yield s
    s.stop()


@pytest.fixture(scope="session")
def _ch18(tmp_path_factory):
    s = prepare(clickhouse.ClickHouse18(str(tmp_path_factory.mktemp("clickhouse-18"))))
    yield s
    s.stop()


@pytest.fixture
def ch26(_ch26):
    """ClickHouse 26.7. The embedded build may have aborted in the test before: it is up again here."""
    _ch26.ensure_alive()
    return _ch26


@pytest.fixture
def ch18(_ch18):
    """ClickHouse 18.16."""
    return _ch18


@pytest.fixture(params=["26.7", "18.16"])
def server(request):
    """Both real servers, one after the other."""
    return request.getfixturevalue("ch26" if request.param == "26.7" else "ch18")


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    return tls_rig.Pki(tmp_path_factory.mktemp("pki"))


# ---- chmuxd
@pytest.fixture(scope="session")
def _chmux26(_ch26):
    with chmuxd_rig.Chmuxd(_ch26.url) as c:
        yield c


@pytest.fixture(scope="session")
def _chmux18(_ch18):
    with chmuxd_rig.Chmuxd(_ch18.url) as c:
        yield c


def still_running(c):
    if c.proc.poll() is not None:
        pytest.fail(f"the shared chmuxd has ended ({c.proc.returncode}): {c.stderr[-3000:]}")
    return c


@pytest.fixture
def chmux26(ch26, _chmux26):
    """A chmuxd with default options in front of 26.7, shared by tests that leave nothing behind."""
    return still_running(_chmux26)


@pytest.fixture
def chmux18(ch18, _chmux18):
    """The same in front of 18.16."""
    return still_running(_chmux18)


@pytest.fixture
def through(server, request):
    """The shared chmuxd in front of `server`."""
    return request.getfixturevalue("chmux26" if server.version == "26.7" else "chmux18")


class Cleanup:
    """Makes things in a test and ends them after it, last made first."""

    def __init__(self):
        self.made = []

    def add(self, thing):
        self.made.append(thing)
        return thing

    def run(self, failed):
        problems = []
        for thing in reversed(self.made):
            try:
                thing.__exit__(AssertionError if failed else None, None, None)
            except AssertionError as e:
                problems.append(str(e))
        assert not problems, "\n".join(problems)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    if call.when == "call":
        item.failed_in_call = outcome.get_result().failed


@pytest.fixture
def cleanup(request):
    c = Cleanup()
    yield c
    c.run(getattr(request.node, "failed_in_call", False))


@pytest.fixture
def chmuxd(cleanup):
    """chmuxd(upstream, **options): a running one, judged at the end of the test."""
    return lambda *a, **kw: cleanup.add(chmuxd_rig.Chmuxd(*a, **kw))


@pytest.fixture
def fake(cleanup):
    """fake(script): a scripted upstream."""
    return lambda *a, **kw: cleanup.add(fake_rig.FakeUpstream(*a, **kw))


@pytest.fixture
def relay(cleanup):
    return lambda *a, **kw: cleanup.add(relay_rig.Relay(*a, **kw))


@pytest.fixture(scope="session")
def _links():
    made = {}
    with contextlib.ExitStack() as stack:
        yield lambda key, make: made.get(key) or made.setdefault(key, stack.enter_context(make()))


@pytest.fixture
def link(_links):
    """link(server, codec, **options): a chmuxd whose link to the server is coded, and a tap on that link. Shared
    by all tests that ask for the same; what the tap recorded before is dropped."""
    import recode

    def make(server, codec="zstd", **options):
        if codec:
            options = {"upstream__request_compression": codec, "upstream__response_compression": codec, **options}
        one = _links((server.version, tuple(sorted(options.items()))), lambda: recode.Link(server, **options))
        still_running(one.chmux)
        one.tap.forget()
        return one

    return make


@pytest.fixture
def terminator(cleanup, tmp_path):
    """terminator(pem, target): haproxy that ends TLS in front of target."""
    return lambda *a, **kw: cleanup.add(tls_rig.TlsTerminator(tmp_path, *a, **kw))


@pytest.fixture
def gate():
    """gate(): a barrier for fake upstreams; all are opened at the end, so that no script stays behind."""
    gates = []

    def make():
        gates.append(threading.Event())
        return gates[-1]

    yield make
    for g in gates:
        g.set()


@pytest.fixture
def folder():
    """One that other users can enter, unlike tmp_path."""
    made = tempfile.mkdtemp(prefix="chmux-")
    os.chmod(made, 0o777)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def control(folder, chmuxd):
    """control(upstream, **options): a chmuxd with a unix admin socket."""
    return lambda upstream, **kw: chmuxd(upstream, admin=f"unix:{folder}/admin.sock", **kw)


@pytest.fixture
def held(fake, gate):
    """An upstream whose answers wait for held.gate."""
    g = gate()

    def script(conn):
        while conn.request() is not None:
            g.wait(60)
            conn.send(OK)

    up = fake(script)
    up.gate = g
    return up
