"""Sends a Case straight to a server and through chmux, and says how the two answers differ."""
import gzip
import json
import re
import zlib
import lzma

import brotli
import cramjam
import lz4.frame
import zstandard

from rig.http1 import Closed, RawClient, Response
from rig.wait import wait_until

PER_HOP = {"connection", "keep-alive", "upgrade"}
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
# What differs from run to run of the very same request, with or without a proxy.
BODY_MASKS = (
    (UUID.pattern.encode(), b"UUID"),
    (rb'"elapsed":\s*[\d.e-]+', b'"elapsed": T'),
    (rb"<elapsed>[\d.e-]+</elapsed>", b"<elapsed>T</elapsed>"),
)
SUMMARY_KEPT = {"written_rows", "written_bytes"}  # the rest is a snapshot, or time and memory
DECODERS = {
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
    "br": brotli.decompress,
    "xz": lzma.decompress,
    "zstd": lambda d: zstandard.ZstdDecompressor().decompressobj().decompress(d),
    "lz4": lz4.frame.decompress,
    "snappy": lambda d: bytes(cramjam.snappy.decompress(d)),
}


def run_requests(case, addr, server, timeout=20):
    """The responses of a case's requests on one connection; the list ends with the first that closes it."""
    out = []
    client = None
    try:
        for method, data, how in case.requests:
            if callable(data):
                data = data(server)
            if client is None:
                client = RawClient(addr, timeout)
            out.append(exchange(client, method, data, how))
            r = out[-1]
            r.request = data
            if r.framing in ("close", "upgrade") or not r.complete or (r.header("Connection") or "").lower() == "close":
                client.close()
                client = None
        return out
    finally:
        if client:
            client.close()


def exchange(client, method, data, how):
    interim = []
    try:
        if how == "expect":
            head, sep, body = data.partition(b"\r\n\r\n")
            client.send(head + sep)
            # Only the 100 is read here; anything else is the final answer.
            try:
                line = client.line()
            except Closed:
                return Response()
            if b" 100 " in line:
                interim.append(line.strip().decode())
                assert client.line() == b"\r\n"
                client.send(body)
            else:
                client.buf[:0] = line
        elif how:
            client.send_pieces(data, how)
        else:
            client.send(data)
    except (BrokenPipeError, ConnectionResetError):
        pass  # answered before the whole request was read: the answer is still there
    r = client.response(method)
    r.interim = interim + r.interim
    return r


def mask_json_numbers(text):
    try:
        return json.dumps({k: v if k in SUMMARY_KEPT else "#" for k, v in json.loads(text).items()})
    except ValueError:
        return text


def view(r, case, server):
    """What of a response must be equal: a list of (what, value)."""
    tag = r.header("X-ClickHouse-Exception-Tag")
    headers = []
    for name, value in r.headers:
        low = name.lower()
        if low in PER_HOP:
            continue
        if low == "date":
            assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", value), value
            value = "DATE"
        elif low == "x-clickhouse-exception-tag":
            assert re.fullmatch(r"[a-z]{16}", value), value
            value = "TAG"
        elif low == "x-clickhouse-summary":
            value = mask_json_numbers(value)
        elif low == "x-clickhouse-progress":
            value = "PROGRESS"  # how many there are is a matter of time
            if headers and headers[-1] == (name, value):
                continue
        else:
            value = UUID.sub("UUID", value)
        headers.append((name, value))
    body = r.body
    if case.decode and r.header("Content-Encoding"):
        body = DECODERS[r.header("Content-Encoding")](body)
    if tag:
        body = body.replace(tag.encode(), b"TAG")
    for pattern, repl in (*BODY_MASKS, *case.masks):
        body = re.sub(pattern, repl, body)
    return [("interim", r.interim), ("status line", r.status_line), ("upgrade", r.header("Upgrade")), ("headers", headers), ("body", body), ("ended", r.ended), ("framing", r.framing),
            ("trailers", r.trailers)]


def short(value):
    text = repr(value)
    return text if len(text) < 1500 else f"{text[:700]} … {text[-700:]} ({len(text)} characters)"


def differences(case, server, direct_addr, through_addr, as_seen=lambda r: r, known=None):
    """Lines that say what differs; empty when all is equal. direct_addr == through_addr proves that a case is
    deterministic. as_seen(r) may take away from a response what is allowed to differ; r.request is what asked for it.
    known: a dict that keeps what came straight for the next call with the same as_seen."""
    seen = []
    key = (server.version, case.name)
    for addr in (direct_addr, through_addr):
        if known and not seen and key in known:
            seen.append(known[key])
            continue
        if any(not callable(data) and b"cmp-fixed" in data for _, data, _ in case.requests):
            # An id is free again only a moment after its query has been answered.
            wait_until(lambda: not server.queries("query_id LIKE 'cmp-fixed%'"))
        for statement in case.setup:
            server.sql(statement)
        answers = [as_seen(r) for r in run_requests(case, addr, server)]
        state = server.sql(case.check) if case.check else None
        seen.append(([view(r, case, server) for r in answers], state))
    if known is not None:
        known[key] = seen[0]
    (direct, direct_state), (through, through_state) = seen
    out = []
    if len(direct) != len(through):
        out.append(f"{len(direct)} answers direct, {len(through)} through chmux")
    for i, (a, b) in enumerate(zip(direct, through)):
        for (what, x), (_, y) in zip(a, b):
            if x != y and what not in case.ignore:
                out.append(f"answer {i + 1}, {what}:\n    direct  {short(x)}\n    through {short(y)}")
    if direct_state != through_state:
        out.append(f"stored:\n    direct  {short(direct_state)}\n    through {short(through_state)}")
    return out
