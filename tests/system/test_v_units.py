"""v: the systemd units: systemd's own checks of them, and what the sandbox is worth."""
import os
import re
import subprocess

import pytest

from rig.chmuxd import binary
from rig.units import UNITS, write_units

EXPOSURE_MAX = 1.4  # stated in docs/OPERATIONS.md


@pytest.fixture(scope="module")
def units(tmp_path_factory):
    folder = tmp_path_factory.mktemp("units")
    write_units(folder, sbin=os.path.dirname(binary()))
    return folder


def analyze(folder, *args):
    env = {**os.environ, "SYSTEMD_UNIT_PATH": f"{folder}:", "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""}
    return subprocess.run(["systemd-analyze", *args], capture_output=True, text=True, env=env, timeout=60)


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_has_nothing_to_say_against_it(units, unit):
    p = analyze(units, "verify", "--man=no", str(units / unit))
    assert p.returncode == 0 and p.stdout + p.stderr == "", p.stdout + p.stderr


def test_the_exposure_is_as_the_documents_say(units):
    p = analyze(units, "security", "--offline=yes", str(units / "chmux.service"))
    m = re.search(r"Overall exposure level for chmux.service: ([0-9.]+) (\w+)", p.stdout)
    assert m, p.stdout + p.stderr
    assert float(m.group(1)) <= EXPOSURE_MAX and m.group(2) == "OK", p.stdout
    with open(os.path.join(os.path.dirname(__file__), "../../docs/OPERATIONS.md")) as f:
        assert f"{EXPOSURE_MAX} OK" in f.read()


def test_the_stop_time_fits_the_drain(units):
    """TimeoutStopSec must cover the default drain even if no extension were granted."""
    service = (units / "chmux.service").read_text()
    stop = int(re.search(r"^TimeoutStopSec=(\d+)s$", service, re.M).group(1))
    conf = subprocess.run([binary(), "--print-config"], capture_output=True, text=True, check=True).stdout
    seconds = {k: int(re.search(rf"^{k} = (\d+)s", conf, re.M).group(1)) for k in ("drain_min", "drain_timeout")}
    assert stop > seconds["drain_min"] + seconds["drain_timeout"]


def test_the_descriptor_limit_fits_max_clients(units):
    service = (units / "chmux.service").read_text()
    limit = int(re.search(r"^LimitNOFILE=(\d+)$", service, re.M).group(1))
    conf = subprocess.run([binary(), "--print-config"], capture_output=True, text=True, check=True).stdout
    need = sum(int(re.search(rf"^{k} = (\d+)", conf, re.M).group(1)) for k in ("max_clients", "pool_size")) + 64
    assert limit >= need
