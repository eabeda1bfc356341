"""The systemd units as an installation has them: the templates of systemd/ with their paths filled in."""
import os
import re

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../systemd")
UNITS = ("chmux.service", "chmux.socket", "chmux-admin.socket")


def unit_text(name, sbin="/usr/sbin", etc="/etc", doc="/usr/share/doc/chmux"):
    with open(os.path.join(SOURCE, name + ".in")) as f:
        text = f.read()
    reload = "Type=notify\nExecReload=/bin/sh -c 'kill -HUP $$MAINPID'"  # for systemd before 253, as on Debian 12
    for key, path in (("SERVICE_TYPE", reload), ("SBINDIR", sbin), ("SYSCONFDIR", etc), ("DOCDIR", doc)):
        text = text.replace(f"@{key}@", path)
    assert not re.search(r"@[A-Z_]+@", text), text
    return text


def write_units(folder, **paths):
    for name in UNITS:
        with open(os.path.join(folder, name), "w") as f:
            f.write(unit_text(name, **paths))
