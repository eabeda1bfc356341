"""q: [user NAME]: whose credentials a request goes out with, what settings it gets, how many of one user's run
and wait, who may come in by a listener; and that no secret is ever seen."""
import base64
import json
import os
import re
import signal
import threading

import pytest

from helpers import OK, chmux_error
from rig import chmuxd as rig
from rig.http1 import RawClient, ask, connect, request
from rig.wait import wait_until

pytestmark = pytest.mark.san
SECRETS = {"alice": "secret", "reader": "readerpw"}


def show(c, name):
    """What the control API answers; it is asked by an address, as browsers must."""
    r = ask(c.admin_addr, "GET", f"/api/v1/{name}", host="localhost")
    assert r.status == 200, r
    return json.loads(r.text)


def basic(user, password=""):
    return ("Authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())


def key_headers(user, key=None):
    return [("X-ClickHouse-User", user)] + ([("X-ClickHouse-Key", key)] if key is not None else [])


# Every way to bring credentials: (parameters, headers).
NOTHING = {
    "nothing": ("", []), "never": ("", [("Authorization", "never")]), "default": ("user=default&", []),
    "password=": ("password=&", []), "basic default": ("", [basic("default")]),
    "headers default": ("", key_headers("default", "")), "empty headers": ("", key_headers("", "")),
}


def named(name):
    return {
        "url": (f"user={name}&", []), "url with password=": (f"password=&user={name}&", []),
        "headers": ("", key_headers(name)), "headers with a key": ("", key_headers(name, "")),
        "basic": ("", [basic(name)]),
    }


def own(user, password):
    return {
        "url": (f"user={user}&password={password}&", []), "headers": ("", key_headers(user, password)),
        "basic": ("", [basic(user, password)]),
    }


def write_config(folder, users, more=""):
    """A configuration with these sections, and their files."""
    text = more + "[admin]\ntcp_access = read\n"
    for name, options in users.items():
        text += f"[user {name}]\n"
        for key, value in options.items():
            if key.endswith("_file") and not value.startswith("/"):
                path = folder / f"{name}.{key}"
                path.write_text(value)
                path.chmod(0o600)
                value = path
            text += f"{key} = {value}\n"
    path = folder / "chmux.conf"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def users_of(tmp_path_factory, request):
    """users_of(server): a chmuxd with users in front of it, and its listeners by name; one for the whole file."""
    made = {}

    def make(server):
        if server.version in made:
            return made[server.version]
        folder = tmp_path_factory.mktemp("users")
        names = ["plain", "given", "over", "local"]
        listen = (f"[listen plain]\naddress = 127.0.0.1:0\n"
                  f"[listen given]\naddress = 127.0.0.1:0\nuser = app\n"
                  f"[listen over]\naddress = 127.0.0.1:0\nuser = strict\n"
                  f"[listen local]\naddress = unix:{folder}/s\nmode = 0600\n")
        config = write_config(folder, {
            "app": {"password_file": "secret\n", "upstream_user": "alice"},
            "free": {"password_file": "secret", "upstream_user": "alice", "local_auth": "trust",
                     "set.max_threads": "3", "default.max_block_size": "1234", "default.max_result_rows": "77"},
            "strict": {"password_file": "secret\r\n", "upstream_user": "alice", "override": "yes"},
            "reader": {"password_file": "readerpw", "uids": str(os.getuid())},
            "fixed": {"password_file": "readerpw", "upstream_user": "reader", "local_auth": "trust",
                      "set.max_threads": "7"},
        }, listen + "[log]\nlevel = debug\naccess = yes\n")
        c = rig.Chmuxd(server.url, listen=(), args=("--config", str(config)), wait=False)
        c.listen_count = len(names)
        c.wait_started()
        made[server.version] = c, dict(zip(names, c.addrs)), config
        return made[server.version]

    yield make
    for c, _, _ in made.values():
        c.__exit__(None, None, None)


WHO = "SELECT user FROM system.processes WHERE query LIKE '%who-am-i%'"


def who(addr, way):
    """The user ClickHouse took the request for, or its status and error."""
    params, headers = way
    r = ask(addr, "POST", "/?" + params, headers, WHO.encode())
    return r.text.strip() if r.status == 200 else (r.status, r.text)


@pytest.mark.parametrize("way", NOTHING)
def test_who_brings_nothing_gets_the_listeners_user(server, users_of, way):
    _, at, _ = users_of(server)
    assert who(at["given"], NOTHING[way]) == "alice"
    if server.version != "18.16" or way != "never":  # which it refuses
        assert who(at["plain"], NOTHING[way]) == "default"


def test_the_servers_own_page_works_with_the_listeners_user(server, users_of):
    """/play, opened at the address of chmux, sends like this; a copy of it from elsewhere is given nothing."""
    _, at, _ = users_of(server)
    host = "%s:%d" % at["given"]
    assert ask(at["given"], "GET", "/play", [("Sec-Fetch-Site", "none")], host=host).status == (404 if server.version == "18.16" else 200)

    def play(origin, site):
        fields = [("Origin", origin), ("Sec-Fetch-Site", site), ("Content-Type", "text/plain;charset=UTF-8")]
        return ask(at["given"], "POST", "/?user=default&password=&add_http_cors_header=1", fields, WHO.encode(), host=host).text.strip()

    assert play(f"http://{host}", "same-origin") == "alice"
    assert play("http://evil.example", "cross-site") == "default"


def test_own_credentials_win(server, users_of):
    _, at, _ = users_of(server)
    for name, way in own("reader", "readerpw").items():
        assert who(at["given"], way) == "reader", name
        assert who(at["local"], way) == "reader", name
    for name, way in own("reader", "wrong").items():
        assert who(at["given"], way)[0] in (401, 403), name


def test_override_replaces_whatever_comes(server, users_of):
    """Both together too: the server refuses two at once, or takes the URL's in silence."""
    _, at, _ = users_of(server)
    ways = [*NOTHING.values(), *own("reader", "readerpw").values(), *named("reader").values(),
            ("user=reader&password=readerpw&", key_headers("reader", "readerpw") + [basic("reader", "readerpw")]),
            ("us%65r=reader&p%61ssword=readerpw&User=reader&PASSWORD=x&", [("Authorization", "Bearer abc")]),
            ("quota_key=q&", [("X-ClickHouse-Quota", "q"), ("x-clickhouse-ssl-certificate-auth", "on")])]
    for way in ways:
        assert who(at["over"], way) == "alice", way


def test_a_name_is_no_credential(server, users_of):
    """Unless its section trusts whoever says it; `app` and `reader` do not."""
    _, at, _ = users_of(server)
    for how, way in named("free").items():
        assert who(at["plain"], way) == "alice", how
    for how, way in named("reader").items():
        assert who(at["plain"], way)[0] in (401, 403), how
    for how, way in named("app").items():
        assert who(at["plain"], way)[0] in (401, 403), how
        assert who(at["given"], way) == "alice", how  # it would be given it anyway


def test_a_local_uid_is_its_user(server, users_of):
    c, at, _ = users_of(server)
    before = c.metric('chmux_credentials_total{given_by="uid"}')
    assert who(at["local"], NOTHING["nothing"]) == "reader"
    assert who(at["local"], named("reader")["url"]) == "reader"
    assert who(at["local"], named("free")["url"]) == "alice"
    assert who(at["local"], named("app")["url"])[0] in (401, 403)
    assert c.metric('chmux_credentials_total{given_by="uid"}') == before + 1


def setting(addr, name, params="", headers=()):
    sql = f"SELECT value FROM system.settings WHERE name = '{name}'"
    r = ask(addr, "POST", "/?" + params, headers, sql.encode())
    assert r.status == 200, r
    return r.text.strip()


def test_forced_settings_beat_the_client_and_defaults_do_not(server, users_of):
    _, at, _ = users_of(server)
    free = key_headers("free")
    for params in ("", "max_threads=9", "max_threads=9&max_threads=8", "max%5Fthre%61ds=9", "max_threads="):
        assert setting(at["plain"], "max_threads", params, free) == "3", params
    assert setting(at["plain"], "max_block_size", "", free) == "1234"
    assert setting(at["plain"], "max_block_size", "max_block_size=99", free) == "99"
    assert setting(at["plain"], "max_block_size", "max%5fblock_size=99", free) == "99"
    assert setting(at["plain"], "max_result_rows", "max_block_size=99", free) == "77"
    assert setting(at["plain"], "max_threads", "max_threads=9") == "9"


def test_a_read_only_user_refuses_settings(server, users_of):
    """ClickHouse says so, and the client hears it."""
    _, at, _ = users_of(server)
    r = ask(at["plain"], "POST", "/?user=fixed", (), b"SELECT 1")
    assert r.status == 500 and "164" in r.text and "max_threads" in r.text, r
    assert r.header("X-Chmux-Error") is None


def test_ping_takes_no_parameter(server, users_of):
    _, at, _ = users_of(server)
    assert ask(at["local"], "GET", "/ping").text == "Ok.\n"
    assert ask(at["over"], "GET", "/ping", [basic("x", "y")]).text == "Ok.\n"


def test_no_secret_is_seen(server, users_of):
    """Neither a file's, nor one that the client brought, in logs, errors, metrics or the admin's answers."""
    c, at, config = users_of(server)
    for way in (*own("alice", "secret").values(), NOTHING["nothing"]):
        who(at["given"], way)
    who(at["over"], own("reader", "readerpw")["url"])
    wait_until(lambda: "access" in c.stderr, what="the access log")
    texts = {"log": c.stderr}
    shown = [x["path"] for x in show(c, "")["commands"] if x["method"] == "GET"]
    assert "/api/v1/users" in shown and "/api/v1/config" in shown
    for path in shown:
        texts[path] = ask(c.admin_addr, "GET", path, host="localhost").text
    texts["print"] = rig.run("--config", str(config), "--print-config").stdout
    assert "set.max_threads" in texts["print"]
    bare = [base64.b64encode(f"{u}:{p}".encode()).decode() for u, p in SECRETS.items()]
    pattern = re.compile(r"\bsecret\b|readerpw|" + "|".join(map(re.escape, bare)))
    for where, text in texts.items():
        text = text.replace('"secret":"password"', "")  # a kind of secret is no secret
        assert not pattern.search(text), (where, pattern.search(text))


# ---- against a scripted server
class Gate:
    """A script that holds every answer back until open(), and remembers who came."""

    def __init__(self):
        self.steps = threading.Semaphore(0)
        self.order = []

    def __call__(self, conn):
        while (got := conn.request()) is not None:
            self.order.append(got[0].path)
            if not self.steps.acquire(timeout=20):
                raise AssertionError("the gate was never opened")
            conn.send(OK)

    def open(self, n=1000):
        self.steps.release(n)


def user_of(c, name):
    return next(u for u in show(c, "users")["users"] if u["name"] == name)


def send(c, path, user, password="x"):
    k = RawClient(c.addr)
    k.send(request("GET", path, key_headers(user, password)))
    return k


def test_max_in_flight_holds_others_back_without_a_connection(chmuxd, fake, tmp_path):
    gate = Gate()
    up = fake(gate, deadline=30)
    config = write_config(tmp_path, {"busy": {"max_in_flight": 2}, "other": {"max_in_flight": 1}})
    c = chmuxd(up.url, config=config, upstream__pool_size=8)
    busy = [send(c, f"/b{i}", "busy") for i in range(2)]
    up.wait_heads(2)
    late = []
    for i in range(3):
        late.append(send(c, f"/late{i}", "busy"))
        c.wait_metric("chmux_queue_waiting", i + 1)
    assert user_of(c, "busy")["in_flight"] == 2 and user_of(c, "busy")["waiting"] == 3
    assert c.metric('chmux_user_requests{user="busy",state="in_flight"}') == 2
    assert c.metric('chmux_user_requests{user="busy",state="waiting"}') == 3
    waits = show(c, "queue")["waiters"]
    assert [w["waits_for"] for w in waits] == ["user"] * 3
    others = [send(c, "/o", "other"), send(c, "/anybody", "anybody")]  # there are connections for them
    up.wait_heads(4)
    late.pop(1).close()  # who leaves frees its place
    c.wait_metric("chmux_queue_waiting", 2)
    wait_until(lambda: len(gate.order) == 4)
    gate.open()
    for k in busy + others + late:
        assert k.response().status == 200
        k.close()
    assert sorted(gate.order[4:]) == ["/late0", "/late2"]  # on two connections
    wait_until(lambda: user_of(c, "busy")["in_flight"] == 0, what="all to be over")
    assert c.metric("chmux_user_waits_total") == 3


def test_those_held_back_get_in_fairly(chmuxd, fake, tmp_path):
    """Round-robin between peers: by address."""
    gate = Gate()
    up = fake(gate, deadline=30)
    config = write_config(tmp_path, {"busy": {"max_in_flight": 1}})
    c = chmuxd(up.url, config=config)
    first = send(c, "/first", "busy")
    up.wait_heads(1)
    held = []
    for i, (source, path) in enumerate([("127.0.0.1", "/a0"), ("127.0.0.1", "/a1"), ("127.0.0.1", "/a2"),
                                        ("127.0.0.2", "/b0"), ("127.0.0.2", "/b1")]):
        k = RawClient(c.addr, sock=connect(c.addr, source=(source, 0)))
        k.send(request("GET", path, key_headers("busy", "x")))
        c.wait_metric("chmux_queue_waiting", i + 1)
        held.append(k)
    gate.open()
    for k in [first, *held]:
        assert k.response().status == 200
        k.close()
    assert gate.order == ["/first", "/a0", "/b0", "/a1", "/b1", "/a2"]


def test_queue_share(chmuxd, fake, tmp_path):
    """A tenth of ten places; others have the rest."""
    gate = Gate()
    up = fake(gate, deadline=30)
    config = write_config(tmp_path, {"greedy": {"queue_share": 20}})
    c = chmuxd(up.url, config=config, upstream__pool_size=1, upstream__queue_size=10)
    clients = [send(c, "/first", "greedy")]
    up.wait_heads(1)
    for i in range(2):
        clients.append(send(c, f"/w{i}", "greedy"))
        c.wait_metric("chmux_queue_waiting", i + 1)
    r = c.ask("GET", "/much", key_headers("greedy", "x"))
    chmux_error(r, "user_queue_full", 503, 202)
    assert r.header("Retry-After") == "1"
    clients.append(send(c, "/fair", "somebody"))
    c.wait_metric("chmux_queue_waiting", 3)
    assert user_of(c, "greedy")["refused"] == 1
    assert c.metric('chmux_refused_total{reason="user_queue_full"}') == 1
    gate.open()
    for k in clients:
        assert k.response().status == 200
        k.close()


def test_kill_goes_out_with_the_same_credentials(chmuxd, fake, tmp_path):
    def script(conn):
        h, _ = conn.request()
        if h.method == "POST" and h.target.startswith("/?"):
            conn.wait_eof()
        else:
            conn.send(OK)

    up = fake(script)
    config = write_config(tmp_path, {"app": {"token_file": "abc.def-123\n", "set.max_threads": 1}})
    c = chmuxd(up.url, config=config, chmux__default_user="app")
    k = RawClient(c.addr)
    k.send(request("POST", "/?quota_key=q&password=", [("X-ClickHouse-Quota", "q")], b"SELECT 1"))
    first = up.wait_heads(1)
    k.close()
    killed = up.wait_heads(2)
    for h in (first, killed):
        assert h.header("Authorization") == "Bearer abc.def-123"
        assert "quota" not in h.target and "password" not in h.target and h.header("X-ClickHouse-Quota") is None
    assert re.fullmatch(r"/\?query_id=[0-9a-f-]{36}&max_threads=1", first.target), first.target
    assert killed.target == "/"


OWN, EVIL = "http://127.0.0.1:8123", "http://evil.example"
PAGES = {  # Host, what a browser adds: is it given the secret?
    "no page": ("127.0.0.1:8123", [], True),
    "no host": (None, [], True),
    "its own page": ("127.0.0.1:8123", [("Origin", OWN), ("Sec-Fetch-Site", "same-origin")], True),
    "typed in": ("localhost:8123", [("Sec-Fetch-Site", "none")], True),
    "a known name": ("ours.example:8123", [("Origin", "http://ours.example:8123")], True),
    "another page": ("127.0.0.1:8123", [("Origin", EVIL), ("Sec-Fetch-Site", "cross-site")], False),
    "an old browser": ("127.0.0.1:8123", [("Origin", EVIL)], False),
    "a sandbox": ("127.0.0.1:8123", [("Origin", "null")], False),
    "an image": ("127.0.0.1:8123", [("Sec-Fetch-Site", "cross-site")], False),
    "a name made to point here": ("rebound.evil.example:8123", [], False),
}


@pytest.mark.parametrize("way", ["listener", "default_user", "override", "trust"])
def test_a_web_page_of_somebody_else_is_given_no_secret(chmuxd, fake, tmp_path, way):
    up = fake()
    more = "[listen a]\naddress = 127.0.0.1:0\nhost_names = ours.example\n"
    more += {"listener": "user = app\n", "override": "user = app\n", "default_user": "[chmux]\ndefault_user = app\n", "trust": ""}[way]
    more += f"[listen b]\naddress = unix:{tmp_path}/s\n" + ("" if way in ("default_user", "trust") else "user = app\n")
    options = {"password_file": "secret", **{"override": {"override": "yes"}, "trust": {"local_auth": "trust"}}.get(way, {})}
    c = chmuxd(up.url, listen=(), config=write_config(tmp_path, {"app": options}, more), wait=False)
    c.listen_count = 2
    c.wait_started()
    target = "/?query_id=q" + ("&user=app" if way == "trust" else "")

    def given(addr, host, fields):
        r = ask(addr, "POST", target, [*fields, ("Content-Type", "text/plain;charset=UTF-8")], b"DROP TABLE t",
                **({"host": host} if host else {"host": None, "version": "HTTP/1.0"}))
        assert r.status == 200, r
        return up.heads[-1][1]

    withheld = 0
    for name, (host, fields, ok) in PAGES.items():
        h = given(c.addrs[0], host, fields)
        assert (h.header("Authorization") is not None) == ok, name
        assert ok or h.target == target, name  # as it came
        withheld += not ok
        assert given(c.addrs[1], host, fields).header("Authorization") is not None, name  # no page reaches a unix socket
    assert c.metric("chmux_credentials_withheld_total") == withheld
    wait_until(lambda: "credentials_withheld id=" in c.stderr)


def test_allow_list(chmuxd, fake, tmp_path):
    up = fake()
    config = write_config(tmp_path, {}, "[listen a]\naddress = 127.0.0.1:0\nallow = 127.0.0.2, 10.0.0.0/8\n"
                                        "[listen b]\naddress = [::]:0\nallow = 0.0.0.0/0\n[chmux]\nallow_remote = yes\n")
    c = chmuxd(up.url, listen=(), config=config, wait=False)
    c.listen_count = 2
    c.wait_started()

    def status(addr, source):
        with RawClient(addr, sock=connect(addr, source=(source, 0))) as k:
            k.send(request("GET", "/ping"))
            return k.response()

    assert status(c.addrs[0], "127.0.0.2").status == 200
    chmux_error(status(c.addrs[0], "127.0.0.1"), "not_allowed", 403, 195)
    assert status(("::1", c.addrs[1][1]), "::1").status == 403
    assert c.metric('chmux_refused_total{reason="not_allowed"}') == 2


def test_reload_reads_secrets_and_keeps_count(chmuxd, fake, tmp_path):
    """A new secret and a higher limit hold from then on; who waits gets in; a broken one changes nothing."""
    gate = Gate()
    up = fake(gate, deadline=30)
    users = {"app": {"password_file": "old", "max_in_flight": 1}}
    config = write_config(tmp_path, users, "[chmux]\ndefault_user = app\n")
    c = chmuxd(up.url, config=config)
    clients = [RawClient(c.addr) for _ in range(2)]
    clients[0].send(request("GET", "/one"))
    assert up.wait_heads(1).header("Authorization") == basic("app", "old")[1]
    clients[1].send(request("GET", "/two"))
    c.wait_metric("chmux_queue_waiting", 1)
    (tmp_path / "app.password_file").write_text("")
    c.signal(signal.SIGHUP)
    c.wait_metric('chmux_reloads_total{result="failed"}', 1)
    wait_until(lambda: "is empty" in c.stderr, what="the log line")
    assert user_of(c, "app")["max_in_flight"] == 1
    users["app"] |= {"password_file": "new", "max_in_flight": 2}
    write_config(tmp_path, users, "[chmux]\ndefault_user = app\n")
    c.signal(signal.SIGHUP)
    assert up.wait_heads(2).path == "/two"  # with what it had when it came
    assert user_of(c, "app")["in_flight"] == 2 and user_of(c, "app")["requests"] == 2
    clients.append(RawClient(c.addr))
    gate.open()
    for k in clients[:2]:
        assert k.response().status == 200
    clients[2].send(request("GET", "/three"))
    assert up.wait_heads(3).header("Authorization") == basic("app", "new")[1]
    for k in clients:
        k.close()


def test_a_secret_that_changes_by_itself_is_taken(chmuxd, fake, tmp_path):
    """As Kubernetes renews it; a broken one leaves the old in force."""
    up = fake()
    c = chmuxd(up.url, config=write_config(tmp_path, {"app": {"password_file": "old"}}, "[chmux]\ndefault_user = app\n"))

    def sent():
        c.ask("GET", "/?query=SELECT+1")
        return up.heads[-1][1].header("Authorization")

    def replace(text):
        (tmp_path / "fresh").write_text(text)
        os.rename(tmp_path / "fresh", tmp_path / "app.password_file")

    assert sent() == basic("app", "old")[1]
    replace("")
    c.wait_metric("chmux_files_last_success", 0)
    assert sent() == basic("app", "old")[1]
    replace("new")
    wait_until(lambda: sent() == basic("app", "new")[1], what="the new password to be sent")
    assert c.metric("chmux_files_last_success") == 1
    assert c.metric("chmux_reloads_total") == 0


@pytest.mark.parametrize("options,says", [
    ({"password_file": "/nonexistent/file"}, "No such file"),
    ({"password_file": ""}, "is empty"),
    ({"password_file": "\n"}, "is empty"),
    ({"password_file": "two\nlines\n"}, "more than one line"),
    ({"password_file": "x" * 16385}, "larger than 16 KiB"),
    ({"password_file": "/dev/null"}, "not a regular file"),
    ({"token_file": "no token"}, "a token has no spaces"),
    ({"uids": "nobody-of-that-name"}, "no user nobody-of-that-name"),
])
def test_start_says_what_is_wrong_with_a_user(tmp_path, options, says):
    config = write_config(tmp_path, {"app": options})
    for args in ((), ("--check",)):
        r = rig.run("--config", str(config), "--listen", "127.0.0.1:0", *args)
        assert r.returncode in (1, 2) and says in r.stderr and "[user app]" in r.stderr, r
        assert "two" not in r.stderr and "xxx" not in r.stderr


def test_a_secret_that_all_may_read_is_warned_of(chmuxd, fake, tmp_path):
    config = write_config(tmp_path, {"app": {"password_file": "pw"}})
    (tmp_path / "app.password_file").chmod(0o644)
    c = chmuxd(fake().url, config=config)
    wait_until(lambda: "secret_readable_by_all user=app" in c.stderr, what="the warning")
