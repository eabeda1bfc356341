"""What the lint scripts share: the layer table, file lists, and the self-test frame.

Each script is run as `lint_X [--root TREE] ...` and prints one line per fault, `file:line: text`,
with exit code 1 if there is any; 77 means that it could not run here (a tool is missing), which
ctest shows as skipped. `lint_X --self-test` proves in a temporary folder that it can fail.
"""

import argparse
import pathlib
import re
import sys
import tempfile

# The layers of the style guide, bottom first. Folders of one rank do not see each other.
RANK = {
    "base": 0,
    "http": 1,
    "codec": 1,
    "clickhouse": 1,
    "config": 1,
    "rt": 2,
    "net": 3,
    "upstream": 4,
    "proxy": 5,
    "admin": 6,
    "reload": 7,
    "ctl": 8,
    "main": 8,
}
# Rule zero: clickhouse says what a parsed HTTP request means and which codec it asks for, so it
# reads the types of http and codec. The reverse stays forbidden.
SIDEWAYS = {("clickhouse", "http"), ("clickhouse", "codec")}
SANS_IO = ("http", "codec", "clickhouse", "config")
LOOP_LAYERS = ("rt", "net", "upstream", "proxy", "admin", "reload")
SKIP = 77

INCLUDE = re.compile(r'^\s*#\s*include\s+(["<])([^">]+)[">]')


def layer_of(path, root):
    """The layer of a file under daemon/; files directly in it are `main`."""
    parts = path.relative_to(root / "daemon").parts
    return parts[0] if len(parts) > 1 else "main"


def sources(root, *suffixes, under=("daemon",)):
    """Every file below the folders of the tree with one of the suffixes, sorted."""
    found = []
    for folder in under:
        found += [
            p
            for p in (root / folder).rglob("*")
            if p.suffix in suffixes and p.is_file() and "node_modules" not in p.parts
        ]
    return sorted(found)


def includes(path):
    """(line number, quoted?, name) of each include of a file."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        match = INCLUDE.match(line)
        if match:
            yield number, match.group(1) == '"', match.group(2)


class Faults:
    """Collects what is wrong."""

    def __init__(self, root):
        self.root = root
        self.lines = []

    def add(self, path, line, text):
        self.lines.append(f"{path.relative_to(self.root)}:{line}: {text}")


def make_tree(folder, files):
    """Writes {name: text} below folder."""
    root = pathlib.Path(folder)
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def self_test(lint, cases):
    """cases: (files, the text that a fault must contain, or None for a clean tree)."""
    for files, expected in cases:
        with tempfile.TemporaryDirectory() as folder:
            root = make_tree(folder, files)
            faults = Faults(root)
            lint(root, faults)
            told = "\n".join(faults.lines)
            if expected is None and faults.lines:
                sys.exit(f"self-test: a clean tree was faulted:\n{told}")
            if expected is not None and expected not in told:
                sys.exit(f"self-test: expected {expected!r}, got:\n{told or '(nothing)'}")
    print(f"self-test: {len(cases)} trees judged as expected")


def run(description, lint, cases, add_arguments=None):
    """The main() of a script. lint(root, faults, **own arguments) returns what it looked at."""
    parser = argparse.ArgumentParser(description=description)
    here = pathlib.Path(__file__).resolve().parents[2]
    parser.add_argument("--root", type=pathlib.Path, default=here, help="the tree to judge")
    parser.add_argument("--self-test", action="store_true", help="prove that the lint can fail")
    if add_arguments:
        add_arguments(parser)
    arguments = vars(parser.parse_args())
    root = arguments.pop("root").resolve()
    if arguments.pop("self_test"):
        self_test(lambda tree, faults: lint(tree, faults, **arguments), cases)
        return
    faults = Faults(root)
    looked_at = lint(root, faults, **arguments)
    for line in faults.lines:
        print(line)
    print(f"{looked_at} looked at, {len(faults.lines)} faults")
    if looked_at == 0:
        sys.exit("nothing to look at: wrong --root?")
    sys.exit(1 if faults.lines else 0)
