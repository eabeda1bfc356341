#!/usr/bin/env python3
"""Line coverage of daemon/ after a test run of the coverage preset: tests/coverage.py [BUILD].

Prints one row per file and layer. Lines that only NEVER() guards, and checks that did not fail, are
what they are meant to be: not run. System tests count too when they ran on that build.
"""

import collections
import json
import pathlib
import subprocess
import sys


def run_lines(build, root):
    """{file: {line: times run}} over all objects; a header is seen by many of them."""
    lines = collections.defaultdict(lambda: collections.defaultdict(int))
    for notes in sorted(build.glob("CMakeFiles/*.dir/daemon/**/*.gcno")):
        told = subprocess.run(
            ["gcov", "--json-format", "--stdout", notes], capture_output=True, text=True, cwd=build
        ).stdout
        for report in filter(None, told.splitlines()):
            for file in json.loads(report)["files"]:
                path = (build / file["file"]).resolve()
                if path.is_relative_to(root / "daemon"):
                    for line in file["lines"]:
                        lines[path][line["line_number"]] += line["count"]
    return lines


def main():
    root = pathlib.Path(__file__).resolve().parents[1]
    build = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else root / "build/coverage").resolve()
    lines = run_lines(build, root)
    if not lines:
        sys.exit(f"{build} holds no coverage data: make coverage")
    layers = collections.defaultdict(lambda: [0, 0])
    for path, counts in sorted(lines.items()):
        name = path.relative_to(root / "daemon")
        run = sum(1 for times in counts.values() if times)
        print(f"{name!s:36} {run:5} of {len(counts):5}  {100 * run / len(counts):5.1f} %")
        for key in (name.parts[0] if len(name.parts) > 1 else "main", "all"):
            layers[key][0] += run
            layers[key][1] += len(counts)
    print()
    for layer, (run, total) in layers.items():
        print(f"{layer:36} {run:5} of {total:5}  {100 * run / total:5.1f} %")


if __name__ == "__main__":
    main()
