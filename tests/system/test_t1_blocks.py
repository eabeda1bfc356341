"""t1: our codec of ClickHouse blocks (codec_cat) against real servers and an implementation of its own
(rig.chblocks): what they send decodes, what we make they take, and what they refuse we refuse."""
import os
import re
import struct
import subprocess
import zlib

import pytest

from helpers import q
from rig import chblocks
from rig.chmuxd import binary
from rig.http1 import ask

pytestmark = [pytest.mark.san, pytest.mark.loop]
MIB = 1 << 20
ENCODINGS = {  # name: the byte on the wire, codec_cat's name, level
    "none": (chblocks.NONE, "blocks-none", 0),
    "lz4": (chblocks.LZ4, "blocks", 0),
    "lz4-high": (chblocks.LZ4, "blocks", 9),
    "zstd": (chblocks.ZSTD, "blocks-zstd", 1),
    "zstd-high": (chblocks.ZSTD, "blocks-zstd", 9),
}
ROWS = b"".join(b"%d\t%08x\n" % (i, zlib.crc32(b"%d" % i)) for i in range(200000))  # 3 MB


def codec_cat(*args, body):
    """(exit code, what came out, what it said). It stands in the build folder of the chmuxd under test."""
    path = os.path.join(os.path.dirname(binary()), "tests", "rig", "codec_cat")
    p = subprocess.run([path, *args], input=body, capture_output=True, timeout=60)
    return p.returncode, p.stdout, p.stderr.decode()


def decode(body):
    code, plain, said = codec_cat("blocks", "decode", body=body)
    assert code == 0, said
    return plain


def encode(plain, encoding):
    _, name, level = ENCODINGS[encoding]
    code, body, said = codec_cat(name, "encode", str(level), body=plain)
    assert code == 0, said
    return body


@pytest.fixture
def table(server):
    server.sql("DROP TABLE IF EXISTS blk")
    server.sql("CREATE TABLE blk (n UInt64, s String) ENGINE = Memory")
    return server


def insert(server, body):
    return ask(server.addr, "POST", q("INSERT INTO blk FORMAT TSV", decompress=1), (), body)


# ---- results
RESULTS = {
    "tiny": "SELECT 1",
    "3 MB": "SELECT number, hex(sipHash64(number)) FROM (SELECT number FROM system.numbers LIMIT 130000)",
    "exactly 1 MiB": "SELECT toFixedString(toString(number), 1023) FROM (SELECT number FROM system.numbers LIMIT 1024) FORMAT TSVRaw",
    "1 MiB and a row": "SELECT toFixedString(toString(number), 1023) FROM (SELECT number FROM system.numbers LIMIT 1025) FORMAT TSVRaw",
    "Native": "SELECT number, toString(number) AS s FROM (SELECT number FROM system.numbers LIMIT 300000) FORMAT Native",
    "empty": "SELECT 1 WHERE 0",
}


@pytest.mark.parametrize("name", RESULTS)
def test_results_decode_to_the_plain_ones(server, name):
    sql = RESULTS[name]
    params = {"max_threads": 1}
    plain = ask(server.addr, target=q(sql, **params))
    blocks = ask(server.addr, target=q(sql, compress=1, **params))
    assert plain.status == blocks.status == 200 and plain.complete and blocks.complete, (plain, blocks)
    if name == "exactly 1 MiB":
        assert len(plain.body) == MIB
    if server.version == "18.16" and len(plain.body) <= MIB:
        assert blocks.body == b"" and decode(b"") == b""  # 18.16 loses results of up to 1 MiB
        return
    assert decode(blocks.body) == plain.body == chblocks.decode(blocks.body, verify=False)


def test_an_exception_before_the_first_byte_is_a_block(ch26):
    r = ask(ch26.addr, target=q("SELECT * FROM no_such_table", compress=1))
    assert r.status == 404 and decode(r.body).startswith(b"Code: 60. DB::Exception: "), r


def test_an_exception_inside_a_result_is_in_the_last_block(server):
    """26.7 cuts the body behind it, and always between two blocks; 18.16 ends the body as if all were well."""
    sql = "SELECT number, hex(sipHash64(number)), throwIf(number = 400000) FROM (SELECT number FROM system.numbers LIMIT 500000)"
    r = ask(server.addr, target=q(sql, compress=1, max_threads=1))
    assert r.status == 200 and r.complete == (server.version == "18.16"), r
    plain = decode(r.body)
    assert len(plain) > MIB and plain.startswith(b"0\t")
    assert b"DB::Exception" in plain[-2000:] and (b"__exception__" in plain[-2000:]) == (server.version == "26.7")


# ---- inserts
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("rows", [1, 1000, 200000])
def test_servers_take_our_blocks(table, encoding, rows):
    plain = b"".join(ROWS.splitlines(keepends=True)[:rows])
    body = encode(plain, encoding)
    assert {b[1] for b in chblocks.split(body)} == {ENCODINGS[encoding][0]}  # 26.7 wants one method
    assert chblocks.decode(body, verify=rows <= 1000) == plain == decode(body)
    r = insert(table, body)
    assert r.status == 200 and r.complete, r
    assert table.sql("SELECT count(), sum(n) FROM blk") == f"{rows}\t{sum(range(rows))}\n"
    sums = sum(zlib.crc32(b"%d" % i) for i in range(rows))
    assert table.sql("SELECT sum(reinterpretAsUInt32(reverse(unhex(s)))) FROM blk") == f"{sums}\n"


def test_an_empty_body_has_no_blocks():
    assert encode(b"", "lz4") == b""


def test_mixed_methods(server, table):
    """We decode them, as 18.16 does; 26.7 refuses them, so we never make them."""
    body = chblocks.block(b"1\ta\n", chblocks.LZ4) + chblocks.block(b"2\tb\n", chblocks.ZSTD) + chblocks.block(b"3\tc\n", chblocks.NONE)
    assert decode(body) == b"1\ta\n2\tb\n3\tc\n"
    r = insert(table, body)
    if server.version == "26.7":
        assert r.status == 500 and "271" in r.header("X-ClickHouse-Exception-Code"), r
    else:
        assert r.status == 200 and table.sql("SELECT count() FROM blk") == "3\n", r


# ---- what is refused
def raw(method, payload, plain):
    rest = struct.pack("<BII", method, len(payload) + 9, plain) + payload
    return chblocks.cityhash128(rest) + rest


GOOD = chblocks.block(b"1\ta\n", chblocks.LZ4)
BAD = {
    "checksum": (b"\0" + GOOD[1:], "checksum mismatch"),
    "method": (raw(0x77, b"1\ta\n", 4), "block method is not LZ4, ZSTD or NONE"),
    "plain size 0": (raw(chblocks.LZ4, b"\0", 0), "block without plain bytes"),
    "plain size too small": (raw(chblocks.LZ4, b"\x401\ta\n", 3), "block does not decompress to its size"),
    "plain size too large": (raw(chblocks.LZ4, b"\x401\ta\n", 5), "block does not decompress to its size"),
    "size too large": (raw(chblocks.LZ4, b"\x401\ta\n", 0x7FFFFFFF), "block larger than allowed"),
    "cut in the head": (GOOD[:20], "input ends inside a block"),
    "cut in the payload": (GOOD[:-1], "input ends inside a block"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_26_refuses_we_refuse(ch26, name):
    ch26.sql("DROP TABLE IF EXISTS blk")
    ch26.sql("CREATE TABLE blk (n UInt64, s String) ENGINE = Memory")
    body, why = BAD[name]
    body = GOOD + body
    r = insert(ch26, body)
    assert r.status >= 400, r
    code, plain, said = codec_cat("blocks", "decode", body=body)
    assert code == 1 and plain == b"1\ta\n"
    at = len(body) if "ends" in why else len(GOOD)
    assert why in said and re.search(rf"\b{at}\b", said), said
