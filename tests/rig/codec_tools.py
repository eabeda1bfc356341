#!/usr/bin/env python3
"""codec_tools.py CODEC_CAT: our codecs against the command-line tools and Python's zlib, both ways. What a
tool wrote we read, what we wrote it reads; whole bodies, two frames back to back, and cut ones. Ends with
77 (skipped) when a tool is missing, after all others passed."""
import random
import shutil
import subprocess
import sys
import zlib

BIG = 20_000_000
BIG_SANITIZED = 2_000_000  # a sanitizer build is that much slower; the plain build looks at the large one

# codec: the tool's command to encode, and to decode; both from stdin to stdout. At their defaults but for
# brotli, whose 11 takes a minute for the largest body. ClickHouse blocks have no tool: see chblocks.py.
TOOLS = {
    "gzip": (["gzip", "-c"], ["gzip", "-dc"]),
    "zstd": (["zstd", "-c"], ["zstd", "-dc"]),
    "lz4": (["lz4", "-c"], ["lz4", "-dc"]),
    "br": (["brotli", "-c", "-q", "5"], ["brotli", "-dc"]),
}


def run(command, data):
    done = subprocess.run(command, input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert done.returncode == 0, f"{command}: {done.returncode}, {done.stderr[-300:]}"
    return done.stdout


def fails(command, data):
    done = subprocess.run(command, input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert done.returncode == 1 and b" at " in done.stderr, f"{command}: {done.returncode}, {done.stderr[-300:]}"


def text(size):
    """Rows as a SELECT gives them."""
    rng = random.Random(size)
    words = ["click", "house", "user-agent", "Mozilla/5.0", "error", "0.25"]
    # One megabyte is made, with its own numbers, and repeated: making 20 in Python takes long.
    part = "".join(f"{i}\t{rng.choice(words)}\t{rng.randrange(10**6)}\n" for i in range(min(size // 12 + 1, 60_000)))
    return (part.encode() * (size // len(part) + 1))[:size]


def bodies(big):
    for size in (0, 1, 100, 1_000_000, big):
        yield f"text of {size}", text(size)
        if 1 < size < big:
            yield f"noise of {size}", random.Random(size).randbytes(size)


def is_sanitized(program):
    with open(program, "rb") as f:
        data = f.read()
    return b"__asan_init" in data or b"__tsan_init" in data


def check(codec, ours, encode, decode):
    """encode and decode are the other side's, from bytes to bytes."""
    big = BIG_SANITIZED if is_sanitized(ours) else BIG
    for name, plain in bodies(big):
        what = f"{codec}, {name}"
        for op in ("encode", "flush") if len(plain) < big else ("encode",):
            assert decode(run([ours, codec, op], plain)) == plain, f"{what}: our {op} misread"
        theirs = encode(plain)
        assert run([ours, codec, "decode"], theirs) == plain, f"{what}: we misread"
        if len(plain) > 1_000_000:
            continue
        if codec != "br":
            assert run([ours, codec, "decode"], theirs + theirs) == 2 * plain, f"{what}: two frames misread"
        for cut in {len(theirs) // 2, len(theirs) - 1} - {0}:
            fails([ours, codec, "decode"], theirs[:cut])


def main(ours):
    check("deflate", ours, zlib.compress, zlib.decompress)
    missing = []
    for codec, (encode, decode) in TOOLS.items():
        if shutil.which(encode[0]) is None:
            missing.append(encode[0])
            continue
        check(codec, ours, lambda data: run(encode, data), lambda data: run(decode, data))
    if missing:
        print("not here:", *missing)
        return 77
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
