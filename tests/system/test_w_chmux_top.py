"""w: `chmux top` in a real terminal (tmux), the manual page and the completions of the tool."""
import os
import re
import signal
import subprocess

import pytest

from helpers import Background, q
from rig.clickhouse import die_with_parent
from rig.wait import wait_until
from test_w_chmux import LISTS, http, liar, says, tool  # noqa: F401  fixtures

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
COMPLETIONS = os.path.join(ROOT, "conf/completions")


class Terminal:
    """A tmux of our own with one window that runs a shell command."""

    def __init__(self, folder, command, columns=80, lines=24):
        self.socket = f"{folder}/tmux"
        self("new-session", "-d", "-x", columns, "-y", lines, "sh", "-c",
             f"trap : INT; echo before; {command}; echo EXIT=$?; stty -a; cat")

    def __call__(self, *args):
        p = subprocess.run(["tmux", "-f", "/dev/null", "-S", self.socket, *map(str, args)], capture_output=True, text=True,
                           timeout=30, env={**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8"})
        assert p.returncode == 0, (args, p.stderr)
        return p.stdout

    def text(self):
        return self("capture-pane", "-p")

    def wait(self, what):
        wait_until(lambda: re.search(what, self.text()), what=f"{what} in\n{self.text()}")
        return self.text()

    def keys(self, *keys):
        self("send-keys", *keys)

    def pid(self):
        """Of the tool."""
        shell = self("display-message", "-p", "#{pane_pid}").strip()
        with open(f"/proc/{shell}/task/{shell}/children") as f:
            (child,) = f.read().split()
        with open(f"/proc/{child}/comm") as f:
            assert f.read() == "chmux\n"
        return int(child)

    def ended(self, code):
        """The screen, the cursor and the terminal's modes are what they were."""
        text = self.wait(rf"EXIT={code}\n(.|\n)* icanon")
        assert re.match(r"before\n(Terminated\n|Hangup\n)?EXIT=", text) and re.search(r"[^-]echo ", text), text
        assert self("display-message", "-p", "#{cursor_flag} #{alternate_on}").split() == ["1", "0"]


@pytest.fixture
def terminal(tmp_path):
    made = []
    yield lambda *a, **kw: made.append(Terminal(tmp_path, *a, **kw)) or made[-1]
    for t in made:
        t("kill-server")


def test_top_shows_what_runs_fits_the_screen_and_quits_on_q(control, held, terminal):  # noqa: F811
    c = control(held.url, upstream__pool_size=1)
    running = [Background(lambda i=i: c.ask("GET", q("SELECT 1", user=f"user{i}", query_id="q\x1b[31m"))) for i in range(2)]
    wait_until(lambda: held.heads)
    t = terminal(f"{tool()} --admin {c.admin_addr} top --watch=0.1")
    text = t.wait(r"user\d.*\n.*user\d")
    assert re.search(rf"^chmuxd \S+  serving  pid {c.pid}  up \d", text), text
    assert re.search(r"^pool +\[#{20}\] 1 of 1 busy, 0 idle", text, re.M) and "q\\x1b[31m" in text
    assert re.search(r"^queue .* 1 of 1024 waiting", text, re.M) and re.search(r"^total +p50", text, re.M)
    t("resize-window", "-x", 40, "-y", 6)
    wait_until(lambda: len(t.text().rstrip("\n").split("\n")) == 6 and "servers" in t.text(), what=t.text())
    assert all(len(line) <= 40 for line in t.text().split("\n"))
    t("resize-window", "-x", 100, "-y", 30)
    t.wait("q.x1b")
    held.gate.set()
    assert all(r.result().status == 200 for r in running)
    t.wait("nothing runs")
    t.keys("q")
    t.ended(0)


@pytest.mark.parametrize("how, code", [("C-c", 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_top_gives_the_terminal_back(control, fake, terminal, how, code):  # noqa: F811
    c = control(fake().url)
    t = terminal(f"{tool()} --admin {c.admin_addr} top")
    t.wait("nothing runs")
    if isinstance(how, str):
        t.keys(how)
    else:
        os.kill(t.pid(), how)
    t.ended(code)


def test_top_ends_with_its_terminal(control, fake):  # noqa: F811
    """Also where no signal tells it so: it is in no session of that terminal."""
    c = control(fake().url)
    master, slave = os.openpty()
    p = subprocess.Popen([tool(), "--admin", c.admin_addr, "top"], stdin=slave, stdout=slave, stderr=subprocess.DEVNULL,
                         preexec_fn=die_with_parent)
    os.close(slave)
    seen = b""
    while b"nothing runs" not in seen:
        seen += os.read(master, 4096)
    os.close(master)
    assert p.wait(30) == -signal.SIGHUP


def test_top_survives_a_restart_of_chmuxd(chmuxd, fake, folder, terminal):  # noqa: F811
    address = f"unix:{folder}/admin.sock"
    first = chmuxd(fake().url, admin=address)
    t = terminal(f"{tool()} --admin {address} top --watch=0.1")
    t.wait(f"pid {first.pid} ")
    first.signal(signal.SIGQUIT)
    first.wait_exit()
    t.wait("no chmuxd answers there")
    second = chmuxd(fake().url, admin=address)
    text = t.wait(f"pid {second.pid} ")
    assert "no chmuxd" not in text
    t.keys("q")
    t.ended(0)


def test_top_quits_while_the_server_stalls(liar, gate, terminal):  # noqa: F811
    g, asked = gate(), []

    def answer(conn):
        asked.append(1)
        if len(asked) > 2:
            g.wait(60)
        conn.sendall(http("{}"))

    t = terminal(f"{tool()} --admin {liar(answer)} top --watch=0.1")
    wait_until(lambda: len(asked) > 2)
    t.keys("q")
    t.ended(0)


def test_top_says_what_is_wrong_before_it_takes_the_screen(control, fake, terminal, tmp_path):  # noqa: F811
    c = control(fake().url)
    p = subprocess.run([tool(), "--admin", c.admin_addr, "top"], capture_output=True, text=True, timeout=30)
    assert (p.returncode, p.stdout, p.stderr) == (1, "", "chmux: top needs a terminal; there is status --watch\n")
    t = terminal(f"{tool()} --admin {tmp_path}/none top", columns=200)
    assert "no chmuxd answers there" in t.wait("EXIT=1")


def test_watch_draws_over_itself_in_a_terminal(control, fake, terminal):  # noqa: F811
    c = control(fake().url)
    t = terminal(f"{tool()} --admin {c.admin_addr} --watch=0.1 status", columns=100)
    first = t.wait("LATENCY")
    wait_until(lambda: t.text().split(" up ")[1][:8] != first.split(" up ")[1][:8])
    assert t.text().count("LATENCY") == 1 and t.text().startswith("chmuxd ")
    t("resize-window", "-x", 30, "-y", 8)
    wait_until(lambda: re.search(r"^memory", t.text(), re.M) is None and t.text().startswith("chmuxd "), what=t.text())
    t("resize-window", "-x", 100, "-y", 30)
    t.keys("C-c")
    t.wait("EXIT=130")


# ---- manual, completions
def test_the_manual_is_well_formed_and_complete():
    page = os.path.join(ROOT, "docs/man/chmux.1")
    p = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", page], capture_output=True, text=True)
    assert p.returncode == 0, p.stdout
    text = subprocess.run(["mandoc", "-T", "ascii", page], capture_output=True, text=True, check=True).stdout
    text = re.sub(r".\x08", "", text)
    usage = says("help")
    commands = re.findall(r"^  ([a-z][a-z-]*)", usage, re.M)
    options = set(re.findall(r"--[a-z]+", usage))
    assert "log-level" in commands and "--watch" in options
    for word in [*commands, *options, *(f"show {x}" for x in LISTS)]:
        assert re.search(rf"^ +(-., )?{re.escape(word)}\b|wait --ready \[{word}\b|shutdown \[{word}\]|wait {word}", text, re.M), word


def bash_completes(line):
    """What bash offers at the end of the line, parted as bash does it."""
    script = """
        source "$1/chmux.bash"
        shift
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _chmux
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    words = re.findall(r"=|[^\s=]+", line) + ([""] if line[-1] in " =" else [])
    p = subprocess.run(["bash", "-uc", script, "bash", COMPLETIONS, *words], capture_output=True, text=True, timeout=20)
    assert p.stderr == "", p.stderr
    return p.stdout.split()


def test_bash_completes_commands_lists_levels_and_options(tmp_path):
    usage = says("help")
    assert sorted(bash_completes("chmux ")) == sorted(re.findall(r"^  ([a-z][a-z-]*)", usage, re.M))
    assert sorted(bash_completes("chmux --json show ")) == sorted(LISTS)
    assert bash_completes("chmux sho") == ["show"]
    assert bash_completes("chmux show ex") == ["exchanges"]
    assert bash_completes("chmux --admin /a show ex") == ["exchanges"]
    assert bash_completes("chmux --watch=1 show ex") == ["exchanges"]
    assert bash_completes("chmux log-level d") == ["debug"]
    assert bash_completes("chmux show exchanges ") == []
    assert bash_completes("chmux shutdown --n") == ["--now"] and bash_completes("chmux status --n") == []
    assert bash_completes("chmux wait --r") == ["--ready"]
    assert bash_completes("chmux --timeout ") == []
    everything = {o for c in ("show", "shutdown", "wait") for o in bash_completes(f"chmux {c} --")}
    assert everything == set(re.findall(r"--[a-z]+", usage))
    (tmp_path / "a.conf").write_text("")
    assert bash_completes(f"chmux check {tmp_path}/a") == [f"{tmp_path}/a.conf"]


ZSH = r"""
zmodload zsh/zpty
zpty z zsh -f -i
zpty -w z "PROMPT=; fpath=($1 \$fpath); autoload -U compinit; compinit -u -D; bindkey '^I' complete-word; print RE''ADY"
zpty -r z x '*READY*'
for line in "${@:2}"; do
    zpty -w -n z "${line%>*}"$'\t'
    zpty -r z x "*${line#*>}*"
    zpty -w -n z $'\x15'
    print -r -- ok
done
zpty -d z
"""


def test_zsh_completes_too():
    assert subprocess.run(["zsh", "-n", f"{COMPLETIONS}/_chmux"], timeout=20).returncode == 0
    lines = ["chmux recon>reconnect", "chmux show exch>exchanges", "chmux log-level deb>debug", "chmux shutdown --no>--now"]
    p = subprocess.run(["zsh", "-fc", ZSH, "zsh", COMPLETIONS, *lines], capture_output=True, text=True, timeout=60,
                       preexec_fn=die_with_parent)
    assert p.stdout.split() == ["ok"] * len(lines), (p.stdout, p.stderr)
