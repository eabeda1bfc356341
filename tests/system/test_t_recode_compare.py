"""t: P1 Transparent with a coded link: the whole list of requests of `b`, straight and through a chmux whose link
is coded. Status, headers, decoded body, and what is stored are the same; the coding itself, the framing and where
blocks begin may differ."""
import dataclasses
from urllib.parse import parse_qsl

import pytest

import compare
from compare_cases import CASES
from recode import decode_what_came
from rig import chblocks

KNOWN = {}  # what the servers answered straight
OF_THE_CODING = {"content-encoding", "content-length", "transfer-encoding"}
CODINGS = ("gzip", "deflate", "zstd", "lz4", "br")
# Not the same on purpose: bodies that are broken are found out by chmux (test_t_recode_errors.py), and those that
# look at the codings themselves.
NOT_THE_SAME = {
    "Content-Encoding gzip cut", "Content-Encoding zstd cut", "Content-Encoding gzip of garbage", "Content-Encoding zstd on 18.16",
    "decompress=1, bad checksum", "decompress=1, cut frame",
    "trailers after the last chunk",  # 26.7 refuses them; the chunks of a recoded body are chmux's own, without
    "compress=1, an error, gzip",  # 26.7 sends an empty body here: see test_t_recode_errors.py
}
# A coded result of 26.7 is held back to 1 MiB, so an exception after some rows becomes a status where it is in the
# body of a plain one, as it does straight for whoever asks for a coding. test_t_recode_errors.py has these.
GROUPS = sorted({(s, c.covers or "requests") for c in CASES for s in c.servers} - {("26", "mid-stream exceptions")})


def plain_body(r):
    """The body as the client's program sees it."""
    coding = r.header("Content-Encoding")
    body = r.body
    if coding in CODINGS and body:
        body = decode_what_came(coding, body)
    elif coding and body:
        body = compare.DECODERS[coding](body)
    target = r.request.lstrip().split(b" ", 2)[1].decode("latin-1")
    params = dict(reversed(parse_qsl(target.partition("?")[2])))
    if params.get("compress") == "1":
        try:
            body = chblocks.decode(body, verify=False)
        except ValueError:
            pass  # an error before ClickHouse has looked at compress=1 is plain text
    return body


def as_seen(r):
    """r as both sides must agree on: decoded, without what the coding changes."""
    r.body = plain_body(r)
    r.headers = [(n, v) for n, v in r.headers if n.lower() not in OF_THE_CODING]
    if r.framing in ("length", "chunked"):
        r.framing = "delimited"
    return r


def compared(version, group, link, request, codec, **options):
    server = request.getfixturevalue("ch" + version)
    one = link(server, codec, upstream__compression_min_size=0, **options)
    report = []
    for case in CASES:
        if version in case.servers and (case.covers or "requests") == group and case.name not in NOT_THE_SAME:
            found = compare.differences(dataclasses.replace(case, decode=False), server, server.addr, one.addr, as_seen, KNOWN)
            if found:
                report.append(f"{case.name} ({server.version}): " + "\n  ".join(found))
        one.tap.forget()
    assert not report, f"{len(report)} differ\n" + "\n".join(report)


@pytest.mark.parametrize("version,group", GROUPS, ids=[f"{g.replace(' ', '_')}-{v}" for v, g in GROUPS])
def test_the_same_through_a_zstd_link(version, group, link, request):
    compared(version, group, link, request, "zstd")


@pytest.mark.parametrize("codec", ["zstd", "gzip", "lz4"])
@pytest.mark.parametrize("version,group", [g for g in GROUPS if g[1] in ("encodings", "compress", "errors")], ids=lambda v: str(v))
def test_the_same_with_the_clients_own_coding(version, group, codec, link, request):
    compared(version, group, link, request, codec, upstream__local_encoding="client")
