"""x: the dashboard at / of the admin address, in a real browser.

DASHBOARD_SCREENSHOTS=FOLDER makes the tests leave pictures there; dashboard.png is the one in docs/."""
import json
import os
import random
import re
import threading
import time

import pytest

from helpers import Background, OK, parallel, q
from rig import http1, png
from rig.chromium import Chromium
from rig.wait import wait_until

FOLDER = os.environ.get("DASHBOARD_SCREENSHOTS")
PAGES = {
    "/": "text/html; charset=utf-8",
    "/dashboard.css": "text/css; charset=utf-8",
    "/dashboard.js": "text/javascript; charset=utf-8",
    "/plot.js": "text/javascript; charset=utf-8",
    "/reading.js": "text/javascript; charset=utf-8",
    "/icon.svg": "image/svg+xml",
}
SOURCES = os.path.join(os.path.dirname(__file__), "../../daemon/admin/page")
CONTROL = [("X-Chmux-Control", "1")]
FAST = "#range=60&every=0.2"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    b = Chromium(tmp_path_factory.mktemp("chromium"))
    yield b
    b.close()


@pytest.fixture
def page(browser):
    """page(c, dark, ...): the dashboard of a chmuxd, perhaps through a relay; loaded, and judged at the end."""
    opened = []

    def make(c, through=None, **looks):
        p = browser.page(**looks)
        opened.append((p, through or c))
        p.open(root(through or c) + "/" + FAST)
        p.wait("Number(document.body?.dataset.ticks ?? 0) >= 1")
        return p

    yield make
    for p, _ in opened:
        p.close()
    for p, at in opened:
        foreign = [u for u in p.requests if not u.startswith(root(at) + "/")]
        assert not foreign, "a request left the address"
        assert not p.exceptions
        # A refusal is told in the console by the browser itself.
        assert not [line for line in p.console if "status of 403" not in line and "ERR_" not in line], p.console


@pytest.fixture
def picture():
    """picture(page, name): for people to look at."""
    return lambda p, name, **kw: FOLDER and p.screenshot(os.path.join(FOLDER, name + ".png"), **kw)


def root(at):
    """Of a chmuxd, or of a relay in front of it."""
    return f"http://127.0.0.1:{at.admin_addr[1] if hasattr(at, 'admin_addr') else at.port}"


def api(c, what, method="GET"):
    r = http1.ask(c.admin_addr, method, f"/api/v1/{what}", CONTROL, host="localhost")
    assert r.status == 200 and r.complete, r
    return json.loads(r.body)


def number(p, key):
    return p.text(f'[data-k="{key}"]')


def holding(barrier, conn):
    """Answers what has `hold` in it once the barrier is open, all else at once."""
    while (got := conn.request()) is not None:
        if "hold" in got[0].target:
            barrier.wait(60)
        conn.send(OK)


@pytest.fixture
def held(fake, gate):
    barrier = gate()
    up = fake(lambda conn: holding(barrier, conn))
    up.gate = barrier
    return up


def in_background(c, *names, user="alice"):
    return [Background(lambda n=n: c.ask("GET", q("SELECT 'hold'", user=user, query_id=n))) for n in names]


# ---- what is served
@pytest.mark.san
def test_the_page_is_served_as_it_stands_in_the_tree(chmuxd, fake):
    c = chmuxd(fake().url)
    for path, kind in PAGES.items():
        r = c.admin(path)
        assert r.status == 200 and r.complete and r.header("Content-Type") == kind, path
        with open(os.path.join(SOURCES, path[1:] or "index.html"), "rb") as f:
            assert r.body == f.read(), path
        policy = dict(part.strip().split(" ", 1) for part in r.header("Content-Security-Policy").split(";"))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert r.header("X-Content-Type-Options") == "nosniff" and r.header("X-Frame-Options") == "DENY"
        head = c.admin(path, "HEAD")
        assert head.status == 200 and head.header("Content-Length") == r.header("Content-Length") and not head.body
    assert c.admin("/", "POST").status == 405 and c.admin("/?x=1").status == 400
    assert sorted(os.listdir(SOURCES)) == sorted((p[1:] or "index.html") for p in PAGES)


def test_the_sources_name_nothing_outside():
    for name in os.listdir(SOURCES):
        with open(os.path.join(SOURCES, name)) as f:
            text = f.read().replace("http://www.w3.org/2000/svg", "")  # a name, not an address
        assert not re.search(r"https?:|//[a-z]|innerHTML|\beval\b|\son[a-z]+=|\sstyle=|document\.write", text), name


# ---- in the browser
def test_numbers_agree_with_the_api(chmuxd, held, page, picture):
    c = chmuxd(held.url, admin__tcp_access="read", upstream__pool_size=2)
    for _ in range(7):
        assert c.ask("GET", q("SELECT 1")).status == 200
    running = in_background(c, "one", "two", "three", "four")
    wait_until(lambda: api(c, "queue")["waiting"] == 2)
    p = page(c)
    p.wait("document.querySelector('[data-k=\"queue.all\"]').textContent === '2'")
    status = api(c, "status")
    assert p.text("#state") == status["state"] == "serving"
    for key, value in {
        "pool.active": status["pool"]["active"], "pool.size": status["pool"]["size"], "pool.idle": status["pool"]["idle"],
        "pool.peak": status["pool"]["peak"], "queue.size": status["queue"]["size"],
        "requests.running": status["requests"]["running"], "requests.complete": status["requests"]["complete"],
        "clients.open": status["clients"]["open"],
    }.items():
        assert number(p, key) == str(value), key
    assert (status["pool"]["active"], status["requests"]["complete"]) == (2, 7)

    listed = {str(e["id"]): e for e in api(c, "exchanges")["exchanges"]}
    rows = p.js("[...document.querySelectorAll('#requests-rows tr')].map(r => [r.dataset.key, ...[...r.cells].map(c => c.innerText)])")
    assert [r[0] for r in rows] == list(listed)
    for key, _, state, user, query_id, server, sent, received, _ in rows:
        e = listed[key]
        assert (state, user, query_id, server) == (e["state"], "alice", e["query_id"], e["address"] or "–")
    (server,) = p.js("[...document.querySelectorAll('#servers-rows tr')].map(r => [...r.cells].map(c => c.innerText))")
    assert server[:4] == [f"127.0.0.1:{held.port}", "up", "2", "0"]
    assert "tcp_access = control" in p.text("#kill-note")
    assert p.js("[...document.querySelectorAll('.kill')].every(b => b.hidden)")
    picture(p, "look-only")
    held.gate.set()
    assert all(r.result().status == 200 for r in running)
    p.wait("document.querySelector('#requests-rows').innerText === 'Nothing runs.'")
    p.wait("document.querySelector('[data-k=\"pool.active\"]').textContent === '0'")


def test_the_kill_button_kills(chmuxd, held, page, picture):
    c = chmuxd(held.url, admin__tcp_access="control", upstream__pool_size=2)
    keep, victim = in_background(c, "keep", "victim")
    wait_until(lambda: api(c, "exchanges")["running"] == 2)
    p = page(c)
    button = "document.querySelector('[aria-label*=\"query victim of alice\"]')"
    p.wait(f"{button} !== null")
    # By keyboard alone, over some polls: the button keeps the focus, the dialog takes it, Escape gives it back.
    p.js(f"{button}.focus()")
    ticks = p.js("Number(document.body.dataset.ticks)")
    p.wait(f"Number(document.body.dataset.ticks) > {ticks + 2}")
    assert p.js(f"document.activeElement === {button}")
    p.key("Enter")
    p.wait("document.querySelector('#confirm').open")
    picture(p, "confirm")
    p.key("Escape")
    p.wait("!document.querySelector('#confirm').open")
    assert victim.running and p.js(f"document.activeElement === {button}")
    p.key("Enter")
    p.wait("document.querySelector('#confirm').open")
    p.key("Tab")
    assert p.js("document.activeElement.id") == "confirm-kill"
    p.key("Enter")
    r = victim.result()
    assert r.status == 500 and r.header("X-Chmux-Error") == "killed"
    p.wait("document.querySelector('#toast').textContent.includes('ended')")
    p.wait("document.querySelectorAll('#requests-rows .kill').length === 1")
    p.wait("document.querySelector('#errors-rows').innerText.includes('killed')")
    assert keep.running
    held.gate.set()
    assert keep.result().status == 200


def test_a_forwarded_unix_socket_gives_the_rights_of_who_forwards(chmuxd, held, relay, page, tmp_path):
    """As `ssh -L PORT:/run/chmux/admin.sock` does: the daemon sees the uid of the relay, which is its own."""
    c = chmuxd(held.url, admin=f"unix:{tmp_path}/admin.sock")
    (running,) = in_background(c, "one")
    forward = relay(c.admin_addr)
    p = page(c, through=forward)
    p.wait("document.querySelectorAll('#requests-rows .kill').length === 1")
    assert p.text("#rights") == "You may look, and kill requests." and p.text("#state") == "serving"
    p.js("document.querySelector('.kill').click()")
    p.js("document.querySelector('#confirm-kill').click()")
    assert running.result().header("X-Chmux-Error") == "killed"
    r = http1.ask(forward.addr, "POST", "/api/v1/pause", [("Origin", "http://evil.example")], host=f"localhost:{forward.port}")
    assert r.status == 403 and json.loads(r.body)["error"] == "origin"


def test_without_permission_the_metrics_are_drawn_and_the_way_is_told(chmuxd, held, page, picture):
    c = chmuxd(held.url, upstream__pool_size=2)  # tcp_access = health
    for _ in range(5):
        assert c.ask("GET", q("SELECT 1")).status == 200
    (running,) = in_background(c, "one")
    c.wait_metric("chmux_exchanges", 1)
    p = page(c)
    p.wait("document.querySelector('.banner') !== null")
    assert "tcp_access = read" in p.text(".banner") and "unix socket" in p.text(".banner")
    for key, value in {"pool.active": "1", "pool.size": "2", "requests.complete": "5", "requests.running": "1"}.items():
        assert number(p, key) == value, key
    assert p.js("[...document.querySelectorAll('.needs-read')].every(s => s.hidden)")
    p.wait("Number(document.body.dataset.ticks) > 5")
    assert p.requests.count(root(c) + "/api/v1/") == 1, "a refused question is not repeated all the time"
    picture(p, "no-permission")
    held.gate.set()
    running.result()


def test_several_upstreams_are_told_apart(chmuxd, held, page):
    """Each with its own cap; the numbers above are of all together. The second one is put into what /metrics says."""
    c = chmuxd(held.url, upstream__pool_size=3)
    (running,) = in_background(c, "one")
    c.wait_metric("chmux_exchanges", 1)
    p = page(c)
    assert p.js("document.querySelector('#upstreams-card').hidden"), "one alone is the sum"
    text = c.admin("/metrics").text
    other = [line.replace('upstream="default"', 'upstream="logs"') for line in text.splitlines() if 'upstream="default"' in line]
    text += "\n".join(other) + "\n"
    p.js(f"""{{ const real = window.fetch, text = {json.dumps(text)};
        window.fetch = (path, how) => path === "/metrics" ? Promise.resolve(new Response(text)) : real(path, how); }}""")
    p.wait("!document.querySelector('#upstreams-card').hidden")
    rows = p.js("[...document.querySelectorAll('#upstreams-rows tr')].map(r => [...r.cells].map(c => c.innerText))")
    assert rows == [[name, "up", "1", "3", "0", "0", "1024", "1 of 1"] for name in ("default", "logs")]
    assert number(p, "pool.size") == "6" and number(p, "pool.active") == "2"
    held.gate.set()
    running.result()


def test_plots_show_traffic_and_can_be_read_by_keyboard(chmuxd, ch26, page, picture):
    c = chmuxd(ch26.url, admin__tcp_access="read")
    p = page(c)
    stop = threading.Event()

    def load(_):
        with c.client() as k:
            while not stop.is_set():
                k.send(http1.request("GET", q("SELECT sum(number) FROM numbers(100000)")))
                assert k.response("GET").body == b"4999950000\n"

    load = Background(lambda: parallel(2, load))
    p.wait("parseFloat(document.querySelector('[data-k=\"rate.requests\"]').textContent) > 0")
    p.wait("document.querySelector('[data-k=\"total.p50\"]').textContent.includes('ms')")
    p.wait("document.querySelectorAll('.plot .tone-teal .tone-line').length >= 3")
    assert "/s" in p.text('[data-series="to_clients"]')
    p.js("document.querySelectorAll('.plot')[2].focus()")
    p.key("ArrowLeft")
    spoken = p.js("document.querySelectorAll('.plot')[2].getAttribute('aria-valuetext')")
    assert re.match(r"(now|\d+ seconds ago): complete [\d.–]+.*refused", spoken), spoken
    assert p.js("document.querySelectorAll('.plot .cursor').length") == 6, "all plots show the same moment"
    picture(p, "real-traffic")
    stop.set()
    load.result()


def test_paused_draining_and_gone_are_told(chmuxd, held, page, picture):
    c = chmuxd(held.url, admin__tcp_access="control", chmux__drain_min="0s")
    (running,) = in_background(c, "one")
    wait_until(lambda: api(c, "exchanges")["running"] == 1)
    p = page(c)
    api(c, "pause", "POST")
    p.wait("document.querySelector('#state').textContent === 'paused'")
    assert "chmux resume" in p.text("#banners")
    api(c, "drain", "POST")
    p.wait("document.querySelector('#state').textContent === 'draining'")
    assert p.js("document.title") == "chmux: draining"
    picture(p, "draining")
    held.gate.set()
    assert running.result().status == 200
    c.wait_exit()
    p.wait("document.querySelector('#state').textContent === 'no answer'")
    picture(p, "gone")


def test_it_fits_narrow_and_wide_and_names_everything(chmuxd, held, page, picture):
    c = chmuxd(held.url, admin__tcp_access="control")
    running = in_background(c, "a-query-id-" + "x" * 200, user="<b>&amp;</b>" + "u" * 60)
    wait_until(lambda: api(c, "exchanges")["running"] == 1)
    p = page(c, dark=True)
    p.wait("document.querySelectorAll('#requests-rows .kill').length === 1")
    for width in (320, 390, 768, 1280, 2200):
        p.look(width, 900, dark=width < 1000)
        assert p.js("document.documentElement.scrollWidth") <= width, width
        picture(p, f"width-{width}")
    assert p.js("document.querySelector('#requests-rows td:nth-child(3)').innerText").startswith("<b>&amp;</b>u")
    nameless = [role for role, name in p.tree() if role in ("button", "slider", "link", "combobox", "image") and not name]
    assert not nameless, nameless
    held.gate.set()
    for r in running:
        r.result()


# ---- what the page computes
def buckets_quantile(share, bounds, counts):
    """histogram_quantile() of Prometheus, in its own words."""
    rank, below = share * sum(counts), 0
    for i, n in enumerate(counts):
        if i == len(bounds):
            return bounds[-1]
        if n and below + n >= rank:
            low = bounds[i - 1] if i else 0
            return low + (bounds[i] - low) * (rank - below) / n
        below += n


def test_both_sources_and_percentiles_agree(chmuxd, held, page):
    """What is made of /metrics is what /api/v1/status says; percentiles are those that Grafana would show."""
    c = chmuxd(held.url, admin__tcp_access="read")
    parallel(4, lambda i: [c.ask("GET", q(f"SELECT {n}")) for n in range(20)])
    wait_until(lambda: api(c, "status")["requests"]["running"] == 0)
    p = page(c)
    both = p.js("""(async () => {
        const { fromMetrics } = await import("/reading.js");
        const status = await (await fetch("/api/v1/status")).json();
        return [fromMetrics(await (await fetch("/metrics")).text()), status];
    })()""")
    for part in ("pool", "queue", "requests", "bytes", "addresses", "clients", "latency", "state", "version"):
        made, told = (x[part] for x in both)
        if isinstance(made, dict):
            for key in made.keys() & told.keys() - {"bounds_ms"}:
                if isinstance(made[key], dict):
                    assert made[key]["buckets"] == told[key]["buckets"], (part, key)
                else:
                    assert made[key] == told[key], (part, key)
            assert made.keys() <= told.keys(), part
        else:
            assert made == told, part
    latency = both[1]["latency"]
    assert both[0]["latency"]["bounds_ms"] == pytest.approx(latency["bounds_ms"])
    assert latency["total"]["count"] == 80
    for counts in (latency["total"]["buckets"], [3, 0, 5, 0, 2] + [0] * 16, [0] * 20 + [4]):
        for share in (0.5, 0.9, 0.99):
            args = json.dumps([share, latency["bounds_ms"], None, counts])
            got = p.js(f"import('/reading.js').then((m) => m.quantile(...{args}))")
            assert got == pytest.approx(buckets_quantile(share, latency["bounds_ms"], counts)), (share, counts)
    assert p.js("import('/reading.js').then((m) => m.quantile(0.5, [1], [2, 2], [2, 2]))") is None, "nothing came"


def luminance(colour):
    parts = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_can_be_told_apart(scheme):
    """WCAG 2.1 AA: 4.5 for text, 3 for what a plot is made of."""
    with open(os.path.join(SOURCES, "dashboard.css")) as f:
        roots = re.findall(r":root \{(.*?)\}", f.read(), re.S)
    assert len(roots) == 2
    colour = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", "".join(roots[: 1 + (scheme == "dark")])))
    for text, back in (("ink", "page"), ("ink", "card"), ("dim", "page"), ("dim", "card"), ("focus", "page"), ("bad", "card"),
                       ("good", "good-back"), ("warn", "warn-back"), ("bad", "bad-back"), ("ink", "plain-back")):
        assert contrast(colour[text], colour[back]) >= 4.5, (text, back)
    for line in ("blue", "teal", "amber", "red", "violet", "grey"):
        assert contrast(colour[line], colour["card"]) >= 3, line


def test_a_page_opened_by_a_foreign_name_is_told_so(chmuxd, held, browser):
    """A name that somebody made point here gets the page, but nothing that needs rights."""
    c = chmuxd(held.url, admin__tcp_access="control")
    r = http1.ask(c.admin_addr, "GET", "/", host=f"evil.example:{c.admin_addr[1]}")
    assert r.status == 200 and b"alice" not in r.body
    r = http1.ask(c.admin_addr, "GET", "/api/v1/exchanges", host=f"evil.example:{c.admin_addr[1]}")
    assert r.status == 403 and json.loads(r.body)["error"] == "host"


def uneven(stop, conn):
    """Answers of many sizes after waits of many lengths, so that there is something to draw."""
    while (got := conn.request()) is not None:
        stop.wait(120 if "report" in got[0].target else random.expovariate(1 / 0.03))
        size = random.choice([40, 900, 20000, 150000])
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: Keep-Alive\r\n\r\n" % size + b"x" * size)


if FOLDER:

    def test_the_picture_of_the_readme(chmuxd, fake, browser, cleanup):
        stop = threading.Event()
        up = [fake(lambda conn: uneven(stop, conn)) for _ in range(2)]
        c = chmuxd([u.url for u in up], upstream__pool_size=12, admin__tcp_access="control")

        def work(i):
            while not stop.is_set():
                c.ask("GET", q("SELECT 1", user=("shop", "search", "etl")[i % 3]))
                stop.wait(random.random() * 0.2 * (1 + (i + int(time.monotonic() / 6)) % 4))

        for n in ("monthly-report", "cohorts-report"):
            Background(lambda n=n: c.ask("GET", q("SELECT", user="analyst", query_id=n), timeout=120))
        load = Background(lambda: parallel(36, work))
        p = browser.page(height=996)
        p.open(root(c) + "/" + FAST)
        p.wait("Number(document.body?.dataset.ticks ?? 0) >= 220", 100)
        path = os.path.join(FOLDER, "dashboard.png")
        p.screenshot(path, full=False)
        with open(path, "rb") as f:
            smaller = png.small(f.read())
        with open(path, "wb") as f:
            f.write(smaller)
        assert len(smaller) < 150000
        stop.set()
        load.result()
        p.close()
