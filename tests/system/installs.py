"""What tests install for themselves: clients and validators from the language registries, kept in the cache."""
import hashlib
import os
import shutil
import subprocess

import pytest

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "clients")
CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "chmux", "clients")
INSTALL_LIMIT_S = 900


def run(cmd, timeout=120, **kw):
    p = subprocess.run(cmd, capture_output=True, text=True, timeout=timeout, **kw)
    assert p.returncode == 0, f"{cmd}: exit {p.returncode}\n{p.stdout[-2000:]}\n{p.stderr[-4000:]}"
    return p.stdout


def missing(summary, what, why):
    line = f"CLIENT NOT TESTED: {what}: {why}"
    summary.append(line)
    pytest.skip(line)


def installed(name, sources, install):
    """A folder in the cache for these sources, filled once by install(folder)."""
    h = hashlib.sha256()
    for s in sources:
        with open(os.path.join(HERE, s), "rb") as f:
            h.update(f.read())
    folder = os.path.join(CACHE, f"{name}-{h.hexdigest()[:16]}")
    if not os.path.isdir(folder):
        part = f"{folder}.{os.getpid()}"
        shutil.rmtree(part, ignore_errors=True)
        os.makedirs(part)
        install(part)
        try:
            os.rename(part, folder)
        except OSError:  # another run was faster
            shutil.rmtree(part, ignore_errors=True)
    return folder
