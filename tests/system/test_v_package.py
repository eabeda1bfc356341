"""v: the packages, installed on a fresh Debian: what is put where, upgrade, removal, purge; and the same with a real
systemd, which starts chmux, restarts it and upgrades it under clients that notice nothing."""
import os
import re
import shutil
import subprocess

import pytest

from loopers import Looper, check_rows, insert_row, large, slow, small
from rig.chmuxd import binary, codec_niceness, sanitizer
from rig.clickhouse import ClickHouse26
from rig.http1 import ask
from rig.machine import Machine, bare_root, chroot, missing
from rig.wait import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=str(missing()))]

UPGRADE = "99.0"  # higher than any version of ours
UNITS = ["chmux.socket", "chmux-admin.socket", "chmux.service"]
PACKAGED = {
    "/etc/chmux/chmux.conf", "/usr/sbin/chmuxd", *(f"/usr/lib/systemd/system/{u}" for u in UNITS),
    "/usr/share/doc/chmux/README.md", "/usr/share/doc/chmux/OPERATIONS.md", "/usr/share/doc/chmux/dashboard.png",
    "/usr/share/doc/chmux/examples/kubernetes/config.yaml", "/usr/share/doc/chmux/examples/chmux.conf",
    "/usr/bin/chmux", "/usr/share/man/man1/chmux.1.gz", "/usr/share/bash-completion/completions/chmux",
    "/usr/share/zsh/vendor-completions/_chmux",
    "/usr/share/man/man8/chmuxd.8.gz", "/usr/share/man/man5/chmux.conf.5.gz",
}


def cpack(out, generator, *args):
    build = os.path.dirname(binary())
    subprocess.run(["cpack", "--config", os.path.join(build, "CPackConfig.cmake"), "-G", generator, "-B", str(out), *args],
                   cwd=build, check=True, stdout=subprocess.DEVNULL, timeout=120)
    [made] = [f for f in os.listdir(out) if f.endswith("." + generator.lower())]
    return os.path.join(out, made)


@pytest.fixture(scope="module")
def debs(tmp_path_factory):
    """The package as it is, and one of a higher version."""
    return (cpack(tmp_path_factory.mktemp("deb"), "DEB"),
            cpack(tmp_path_factory.mktemp("newer"), "DEB", "-D", f"CPACK_PACKAGE_VERSION={UPGRADE}"))


@pytest.fixture(scope="module")
def root(tmp_path_factory, debs):
    """A bare Debian with both packages in /. Each test leaves it as it was."""
    folder = str(tmp_path_factory.mktemp("machine"))
    root = bare_root(folder)
    for deb in debs:
        shutil.copy(deb, root)
    yield root
    shutil.rmtree(folder)


def files_of(deb):
    out = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE, check=True).stdout
    names = subprocess.run(["tar", "-t"], input=out, stdout=subprocess.PIPE, check=True).stdout.decode().split()
    return {n[1:] for n in names if not n.endswith("/")}


def tree(root):
    """Every path, but those in which dpkg and others keep their books and their backups."""
    books = re.compile(r"^/(proc|sys|dev|run|tmp|var/log|var/tmp|var/cache|var/lib/systemd|var/lib/dpkg/\w+-old|root)\b|^/etc/machine-id$")
    found = set()
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            path = os.path.join(folder, name)[len(root):]
            if not books.search(path):
                found.add(path)
    return found


def put(root, path, text):
    os.makedirs(os.path.dirname(root + path), exist_ok=True)
    with open(root + path, "w") as f:
        f.write(text)


def version():
    return subprocess.run([binary(), "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout


def test_install_upgrade_remove_and_purge(root, debs):
    old, new = ("/" + os.path.basename(d) for d in debs)
    before = tree(root)
    assert PACKAGED <= files_of(debs[0]), files_of(debs[0])

    chroot(root, "dpkg", "-i", old)
    assert chroot(root, "chmuxd", "--version") == version()
    assert "valid" in chroot(root, "chmuxd", "--config", "/etc/chmux/chmux.conf", "--check")
    assert chroot(root, "chmux", "check", "/etc/chmux/chmux.conf") == "/etc/chmux/chmux.conf: the configuration is valid\n"
    assert chroot(root, "dpkg", "--verify", "chmux") == ""
    for path in files_of(debs[0]):
        st = os.stat(root + path)
        assert st.st_uid == 0 and st.st_gid == 0 and st.st_mode & 0o777 == (0o755 if "bin/" in path else 0o644), path
    for unit in UNITS:
        assert chroot(root, "systemctl", "is-enabled", unit).strip() == "enabled"
    assert chroot(root, "dpkg-query", "-W", "-f", "${Conffiles}", "chmux").split()[0] == "/etc/chmux/chmux.conf"

    # An upgrade keeps what the administrator did: the configuration, and a unit that is not wanted.
    with open(root + "/etc/chmux/chmux.conf", "a") as f:
        f.write("# mine\n")
    chroot(root, "systemctl", "disable", "chmux-admin.socket")
    chroot(root, "dpkg", "-i", new)
    assert chroot(root, "dpkg-query", "-W", "-f", "${Version}", "chmux") == UPGRADE
    with open(root + "/etc/chmux/chmux.conf") as f:
        assert f.read().endswith("# mine\n")
    assert "disabled" in chroot(root, "systemctl", "is-enabled", "chmux-admin.socket", check=False)

    chroot(root, "dpkg", "-r", "chmux")
    assert not os.path.exists(root + "/usr/sbin/chmuxd") and os.path.exists(root + "/etc/chmux/chmux.conf")
    chroot(root, "dpkg", "-P", "chmux")
    assert tree(root) - before == set() and before - tree(root) == set()


@pytest.mark.skipif(not shutil.which("rpmbuild"), reason="rpmbuild is not installed (tests/deps.sh does)")
def test_the_rpm_has_the_same(root, debs, tmp_path):
    rpm = cpack(tmp_path, "RPM")
    before = tree(root)
    run = ["rpm", "--root", root, "--dbpath", "/tmp/rpm"]
    # The names of Debian's packages are not what it asks for; its libraries are there.
    subprocess.run([*run, "--nodeps", "-i", rpm], check=True)
    listed = set(subprocess.run([*run, "-ql", "chmux"], stdout=subprocess.PIPE, text=True, check=True).stdout.split())
    debian_only = {"/usr/share/doc/chmux/copyright", "/usr/share/doc/chmux/changelog.gz"}
    assert files_of(debs[0]) - debian_only <= listed, listed
    configs = subprocess.run([*run, "-qc", "chmux"], stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    assert configs == ["/etc/chmux/chmux.conf"]
    assert chroot(root, "chmuxd", "--version") == version()
    requires = subprocess.run([*run, "-qR", "chmux"], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert "libevent_core-2.1.so.7" in requires and "libssl.so.3" in requires
    subprocess.run([*run, "-e", "chmux"], check=True)
    assert tree(root) - before <= {f"/etc/systemd/system/{w}.wants" for w in ("sockets.target", "multi-user.target")}


@pytest.fixture
def machine(root, cleanup):
    try:
        return cleanup.add(Machine(root))
    except Machine.CannotBoot as e:
        pytest.skip(f"no systemd can be booted here: {e}")


@pytest.mark.skipif(bool(sanitizer()), reason="its runtime is not on a bare machine")
def test_under_systemd_nobody_notices_a_restart_or_an_upgrade(machine, root, debs, tmp_path, summary):
    old, new = ("/" + os.path.basename(d) for d in debs)
    with machine.network():
        server = ClickHouse26(str(tmp_path / "clickhouse"))
        try:
            put(root, "/etc/systemd/system/chmux.service.d/upstream.conf", f"[Service]\nEnvironment=CHMUX_UPSTREAM_URL={server.url}\n")
            server.sql("CREATE TABLE roll (c UInt32, n UInt64) ENGINE = MergeTree ORDER BY (c, n)")
            use(machine, server, root, old, new, summary)
        finally:
            server.stop()


def use(m, server, root, old, new, summary):
    m.run("dpkg", "-i", old)
    for unit in UNITS:
        assert m.show(unit, "ActiveState") == "active"
    assert m.show("chmux.service", "StatusText").startswith("Serving: ")
    assert "serving" in m.run("chmux", "status")  # finds the admin socket by itself
    inside = f"/proc/{m.leader}/root"
    admin, unix, tcp = inside + "/run/chmux/admin.sock", inside + "/run/chmux/http.sock", ("127.0.0.1", 8123)
    assert ask(admin, "GET", "/ready").status == 200 and ask(("::1", 8123), "GET", "/ping").status == 200
    with open(inside + "/proc/" + m.show("chmux.service", "MainPID") + "/status") as f:
        status = dict(line.split(":\t", 1) for line in f.read().splitlines())
    assert status["CapEff"] == status["CapBnd"] == "0" * 16 and status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
    assert status["Uid"].split()[0] not in ("0", "65534")

    assert ask(tcp, "POST", "/?query=INSERT+INTO+FUNCTION+null('n+UInt64')+FORMAT+TSV", [("X-Chmux-Compression", "zstd")], b"1\n" * 50000).status == 200
    assert set(codec_niceness(inside + "/proc/" + m.show("chmux.service", "MainPID"))) == {10}  # the sandbox lets them give way

    kinds = [(tcp, small, True, 0), (tcp, small, False, 0), (unix, small, True, 0.4), (tcp, large, True, 0), (tcp, slow, True, 0),
             (tcp, insert_row, True, 0), (tcp, insert_row, False, 0), (unix, insert_row, True, 0), (tcp, insert_row, True, 0.4)]
    loopers = [Looper(i, a, work, keep, pause) for i, (a, work, keep, pause) in enumerate(kinds)]
    pids = [m.show("chmux.service", "MainPID")]
    with open(root + "/etc/chmux/chmux.conf", "a") as f:
        f.write("[upstream]\npool_size = 9\n")
    m.run("systemctl", "reload", "chmux")
    wait_until(lambda: re.search(r"^chmux_upstream_pool_size\S* 9$", ask(admin, "GET", "/metrics").text, re.M))
    wait_until(lambda: m.show("chmux.service", "SubState") == "running")
    assert m.show("chmux.service", "MainPID") == pids[0]
    try:
        # As many starts as systemd allows in ten seconds.
        for command in (["systemctl", "restart", "chmux"], ["dpkg", "-i", new], ["systemctl", "restart", "chmux"]):
            before = {c: c.done for c in loopers}
            wait_until(lambda: all(c.error or c.done > n for c, n in before.items()), 60, "everybody to get an answer")
            m.run(*command)
            pids.append(m.show("chmux.service", "MainPID"))
    finally:
        errors = [e for e in [c.finish() for c in loopers] if e]
    assert not errors, errors
    check_rows(server, loopers)
    assert len(set(pids)) == 4 and "0" not in pids
    assert "clients_taken_over" in m.run("journalctl", "-u", "chmux", "-o", "cat")
    assert all(c.connects <= 4 for c in loopers if c.keep), [c.connects for c in loopers]
    summary.append(f"real systemd: {sum(c.done for c in loopers)} requests over 2 restarts and an upgrade, no error")

    m.run("dpkg", "-P", "chmux")
    assert not os.path.exists(inside + "/run/chmux")
    assert "chmux" not in m.run("systemctl", "list-units", "--all", "chmux*", "--no-legend")
    shutil.rmtree(root + "/etc/systemd/system/chmux.service.d")
