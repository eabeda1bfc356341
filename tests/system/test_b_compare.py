"""b: P1 Transparent: every request of the list answers the same straight and through chmux."""
import pytest

import compare
from compare_cases import CASES

pytestmark = [pytest.mark.san, pytest.mark.loop]

GROUPS = sorted({(s, c.covers or "requests") for c in CASES for s in c.servers})
totals = {"requests": 0, "differences": 0}


@pytest.mark.parametrize("version,group", GROUPS, ids=[f"{g.replace(' ', '_')}-{v}" for v, g in GROUPS])
def test_byte_for_byte(version, group, request, summary):
    server = request.getfixturevalue("ch" + version)
    chmux = request.getfixturevalue("chmux" + version)
    report = []
    for case in CASES:
        if version not in case.servers or (case.covers or "requests") != group:
            continue
        found = compare.differences(case, server, server.addr, chmux.addr)
        totals["requests"] += len(case.requests)
        totals["differences"] += bool(found)
        if found:
            report.append(f"{case.name} ({server.version}): " + "\n  ".join(found))
    assert not report, "\n" + "\n".join(report)


def test_the_list_is_long_enough(summary):
    """At least 150 requests; the last line of the comparison."""
    listed = sum(len(c.requests) * len(c.servers) for c in CASES)
    assert listed >= 150
    summary.append(f"byte-for-byte comparison: {totals['requests']} of {listed} requests compared, {totals['differences']} differences")
    assert totals["differences"] == 0
