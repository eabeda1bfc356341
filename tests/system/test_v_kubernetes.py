"""v: what conf/kubernetes says: manifests against the schemas of Kubernetes, their configurations against chmuxd,
and one chmuxd run as the manifests run it. No cluster is at hand; the Containerfile's packages are held against
what the binaries need."""
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile

import kubernetes_validate
import pytest
import yaml

from helpers import q
from rig.chmuxd import Chmuxd, binary, parse_addr
from rig.http1 import ask
from rig.wait import wait_until

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "conf", "kubernetes")
UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "Mi": 2**20, "Gi": 2**30}
SIDECARS = ("sidecar.yaml", "sidecar-classic.yaml")


def documents(name):
    with open(os.path.join(FOLDER, name)) as f:
        return list(yaml.safe_load_all(f))


def every():
    return [(n, d) for n in sorted(os.listdir(FOLDER)) if n.endswith(".yaml") for d in documents(n)]


def size(text):
    number, unit = re.fullmatch(r"(\d+)([a-zA-Z]*)", text).groups()
    return int(number) * UNITS[unit]


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)(ms|s|m)", text).groups()
    return int(number) * {"ms": 0.001, "s": 1, "m": 60}[unit]


def pod_of(name):
    return next(d for d in documents(name) if d["kind"] in ("Deployment", "DaemonSet"))["spec"]["template"]["spec"]


def chmux_of(pod):
    return next(c for c in pod["containers"] + pod.get("initContainers", []) if c["name"] == "chmux")


def conf_of(name):
    """The chmux.conf that the container of this manifest reads."""
    volume = next(v for v in pod_of(name)["volumes"] if v["name"] == "chmux-config")["configMap"]["name"]
    source = name if name == "daemonset.yaml" else "config.yaml"
    return next(d for d in documents(source) if d["kind"] == "ConfigMap" and d["metadata"]["name"] == volume)["data"]["chmux.conf"]


def option(conf, key, default=None):
    found = re.search(rf"^{key} = (.*)$", conf, re.M)
    return found.group(1) if found else default


# ---- schemas
@pytest.mark.parametrize("version", ["1.25", "1.29", "1.37"])
def test_manifests_fit_the_schemas(version):
    seen = set()
    for name, d in every():
        if d["kind"] == "PodMonitor" or (name == "sidecar.yaml" and version == "1.25"):
            continue  # a custom resource; native sidecars came later
        kubernetes_validate.validate(d, version, strict=True)
        seen.add(d["kind"])
    assert seen == {"ConfigMap", "Secret", "Deployment", "DaemonSet", "Pod"}


def test_the_schema_check_can_fail():
    d = next(d for d in documents("sidecar.yaml"))
    d["spec"]["template"]["spec"]["initContainers"][0]["restartPolice"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(d, "1.29", strict=True)


def test_the_podmonitor_fits_its_schema_and_finds_the_pods(node_folder, summary):
    monitor = documents("podmonitor.yaml")[0]
    selector, endpoint = monitor["spec"]["selector"]["matchLabels"], monitor["spec"]["podMetricsEndpoints"][0]
    assert set(endpoint) == {"port", "path", "interval"}, "the schema's library lets unknown fields pass"
    for name, d in every():
        if d["kind"] in ("Deployment", "DaemonSet"):
            labels = d["spec"]["template"]["metadata"]["labels"]
            assert selector.items() <= labels.items(), name
            assert endpoint["port"] in [p["name"] for p in chmux_of(pod_of(name))["ports"]]
    folder, why = node_folder
    if folder is None:
        summary.append(f"NOT TESTED: the PodMonitor's schema: {why}")
        pytest.skip(why)
    shutil.copy(os.path.join(os.path.dirname(__file__), "clients", "podmonitor.mjs"), folder)
    for change, fits in ((lambda o: None, True), (lambda o: o["spec"].pop("selector"), False)):
        changed = json.loads(json.dumps(monitor))
        change(changed)
        p = subprocess.run(["node", "podmonitor.mjs"], input=json.dumps(changed), capture_output=True, text=True, cwd=folder, timeout=60)
        assert (p.returncode == 0) == fits, p.stderr


# ---- what the manifests promise
@pytest.mark.parametrize("name", [*SIDECARS, "daemonset.yaml"])
def test_the_pod_is_locked_down_and_has_time_to_drain(name):
    pod, conf = pod_of(name), conf_of(name)
    c = chmux_of(pod)
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert c["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    mounted = [m["mountPath"] for m in c["volumeMounts"] if not m.get("readOnly")]
    for socket in re.findall(r"unix:(\S+?)/[^/\s]+\.sock", conf):
        assert socket in mounted, (socket, mounted)
    drain = seconds(option(conf, "drain_min", "0s")) + seconds(option(conf, "drain_timeout", "30s"))
    stop = c.get("lifecycle", {}).get("preStop", {}).get("exec", {"command": ["sleep", "0"]})["command"]
    assert pod["terminationGracePeriodSeconds"] > drain + int(stop[1])
    assert size(c["resources"]["limits"]["memory"]) >= size(option(conf, "memory_limit")) + 64 * 2**20
    assert ("restartPolicy" in c) == (name == "sidecar.yaml")


@pytest.mark.parametrize("name", [*SIDECARS, "daemonset.yaml"])
def test_chmuxd_runs_as_the_manifest_says(name, cleanup, terminator, pki, ch26):
    """Its configuration, with folders and addresses moved to what is here; as the manifest's user, without
    capabilities, probed as the kubelet does."""
    conf, uid, server = conf_of(name), pod_of(name)["securityContext"]["runAsUser"], terminator(pki.good, ch26.addr).url
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(pki.ca, f"{folder}/ca.crt")
        for was, now, times in (("/run/chmux-admin/", f"{folder}/", None), ("/run/chmux/", f"{folder}/", None),
                                ("/etc/chmux/tls/ca.crt", f"{folder}/ca.crt", 1), ("https://clickhouse.example.com:8443", server, 1),
                                ("0.0.0.0:8124", "0.0.0.0:0", 1), ("127.0.0.1:8123", "127.0.0.1:0", None)):
            assert times is None or conf.count(was) == times, was
            conf = conf.replace(was, now)
        with open(f"{folder}/chmux.conf", "w") as f:
            f.write(conf)
        for path in (folder, f"{folder}/ca.crt", f"{folder}/chmux.conf"):
            os.chown(path, uid, uid)
        c = cleanup.add(Chmuxd(listen=(), admin=None, config=f"{folder}/chmux.conf", prefix=[
            "setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]))
        wait_until(lambda: len(c.admin_addrs) == 2 and c._bound()[0])
        by_socket, by_tcp = c.admin_addrs
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert ask(by_tcp, "GET", chmux_of(pod_of(name))[probe]["httpGet"]["path"]).status == 200, probe
        assert ask(by_tcp, "GET", "/metrics").status == 200
        assert ask(by_tcp, "GET", "/api/v1/status", host="localhost").status == 403
        assert ask(by_socket, "GET", "/api/v1/status", host="localhost").status == 200
        assert ask(parse_addr(c._bound()[0][0][0]), "GET", q("SELECT 40 + 2")).body == b"42\n"
        c.signal(signal.SIGTERM)
        assert c.wait_exit() == 0


@pytest.fixture
def limited():
    """limited(microseconds of 100,000): a command that runs what follows under such a CPU limit, as a container's."""
    folders = []

    def make(quota):
        for root, name, text in (("/sys/fs/cgroup", "cpu.max", f"{quota} 100000"), ("/sys/fs/cgroup/cpu", "cpu.cfs_quota_us", str(quota))):
            folder = f"{root}/chmux-test-{os.getpid()}-{quota}"
            if not os.path.exists(f"{root}/cgroup.procs"):
                continue  # no cgroup, only a folder of them
            try:
                os.mkdir(folder)
                folders.append(folder)
                with open(f"{folder}/{name}", "r+") as f:
                    f.write(text)
            except OSError:
                continue
            return ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', folder]
        pytest.skip("no cgroup with a CPU limit can be made here")

    yield make
    for folder in folders:
        wait_until(lambda: _removed(folder), what="the group's processes to be gone")


def _removed(folder):
    try:
        os.rmdir(folder)
    except OSError:
        return False
    return True


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="with one core there is nothing to limit")
@pytest.mark.parametrize("quota, workers", [(50000, 1), (100000, 1), (150000, 2)])
def test_a_cpu_limit_counts_for_workers(limited, cleanup, fake, quota, workers):
    c = cleanup.add(Chmuxd(fake().url, prefix=limited(quota), chmux__inline_limit=0, upstream__request_compression="zstd",
                           upstream__compression_min_size=0))
    assert c.ask("POST", "/?query=INSERT+INTO+t+FORMAT+TSV", (), b"1\n" * 50000).status == 200
    assert c.metric("chmux_workers") == workers
    c.stop()


# ---- the image
def test_the_image_has_every_library_that_is_needed():
    with open(os.path.join(FOLDER, "Containerfile")) as f:
        runtime = f.read().rpartition("\nFROM ")[2]
    installed = set(re.search(r"install -y --no-install-recommends (.*?)&&", runtime, re.S).group(1).replace("\\", "").split())
    programs = [binary(), *[p for p in [os.path.join(os.path.dirname(binary()), "chmux")] if os.path.exists(p)]]
    needed = set()
    for lib in re.findall(r"=> (/\S+)", "".join(subprocess.run(["ldd", p], capture_output=True, text=True).stdout for p in programs)):
        real = os.path.realpath(lib)  # dpkg knows it with or without the /usr of a merged system
        owner = subprocess.run(["dpkg", "-S", real, real.removeprefix("/usr")], capture_output=True, text=True).stdout
        assert owner, lib
        needed.add(owner.partition(":")[0])
    sanitizers = {p for p in needed if re.match(r"lib(asan|tsan|ubsan|gcc-s|stdc\+\+|hwasan)", p)}
    assert {"libevent-core-2.1-7", "libssl3", "libzstd1"} <= needed
    assert needed - sanitizers - {"libc6"} <= installed, needed - installed
