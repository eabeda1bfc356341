#!/usr/bin/env python3
"""Adds up the JUnit files of a folder (ctest's and pytest's) and prints one line,
`N passed, N failed, N skipped`; exit code 1 on any failure.

count_results.py FOLDER [--broken STAGE...]: a stage that ended badly although its file shows no
failure (it did not build, or the runner itself broke) counts as one failed test.
"""

import argparse
import pathlib
import sys
import xml.etree.ElementTree


def count(path):
    """(passed, failed, skipped) of one file."""
    passed = failed = skipped = 0
    for case in xml.etree.ElementTree.parse(path).iter("testcase"):
        # ctest: status run, fail, notrun, disabled. pytest: child elements only. A pytest test that
        # fails and whose clean-up fails too has two children and is one test.
        kinds = {child.tag for child in case}
        status = case.get("status", "run")
        if kinds & {"failure", "error"} or status == "fail":
            failed += 1
        elif "skipped" in kinds or status in ("notrun", "disabled"):
            skipped += 1
        else:
            passed += 1
    return passed, failed, skipped


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--broken", nargs="*", default=[])
    arguments = parser.parse_args()
    totals = [0, 0, 0]
    for path in sorted(arguments.folder.glob("*.xml")):
        counts = count(path)
        if path.stem in arguments.broken and counts[1] == 0:
            counts = (counts[0], 1, counts[2])
        print(f"{path.stem:12} {counts[0]:5} passed {counts[1]:4} failed {counts[2]:4} skipped")
        totals = [total + n for total, n in zip(totals, counts)]
    for stage in arguments.broken:
        if not (arguments.folder / f"{stage}.xml").exists():
            print(f"{stage:12} did not run to its end")
            totals[1] += 1
    print(f"{totals[0]} passed, {totals[1]} failed, {totals[2]} skipped")
    sys.exit(1 if totals[1] or not totals[0] else 0)


if __name__ == "__main__":
    main()
