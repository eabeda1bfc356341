"""The list of requests that must look the same straight at ClickHouse and through chmux (P1).

Each Case is one or more raw requests on one connection. What chmux refuses on purpose (strict HTTP)
is not here but in test_m_badinput.py. `servers` says where a case makes sense: "26", "18".
"""
import bz2
import dataclasses
import gzip
import lzma
import zlib
from urllib.parse import quote, quote_plus, urlencode

import brotli
import cramjam
import lz4.frame
import zstandard

from rig.http1 import chunk_body, request

BOTH = ("26", "18")
NEW = ("26",)
OLD = ("18",)


@dataclasses.dataclass
class Case:
    name: str
    # Each: (method, bytes or a callable of the server, how). how: "" at once; an int: in pieces of so
    # many bytes; "expect": the body only after a 100; "early": the answer may come before the end.
    requests: list
    servers: tuple = NEW
    setup: tuple = ()  # SQL run directly before each of the two runs
    check: str = ""  # SQL run directly after each; its result is compared too
    decode: bool = False  # compare the decoded body, masked, instead of the bytes (tags inside a codec)
    masks: tuple = ()  # (regex, replacement) for the body
    ignore: tuple = ()  # parts of an answer that may differ; say why at the case
    covers: str = ""


CASES = []


def add(name, *requests, **kw):
    CASES.append(Case(name, list(requests), **kw))


def get(target, headers=(), how="", method="GET", **kw):
    return (method, request(method, target, headers, **kw), how)


def post(target, body, headers=(), how="", method="POST", **kw):
    """body: bytes, str, or a callable of the server that makes it."""
    if callable(body):
        return (method, lambda server: request(method, target, headers, body(server), **kw), how)
    return (method, request(method, target, headers, body.encode() if isinstance(body, str) else body, **kw), how)


def raw(data, method="GET", how=""):
    return (method, data, how)


def q(sql, **params):
    return "/?" + urlencode({"query": sql, **params})


SEL = "SELECT number AS n, toString(number) AS s, number / 3 AS f, [number, 1] AS a FROM numbers(5)"
SEL18 = "SELECT number AS n, toString(number) AS s, number / 3 AS f, [number, 1] AS a FROM system.numbers LIMIT 5"

# ---- output formats
FORMATS_BOTH = """TabSeparated TSV TabSeparatedRaw TSVWithNames TSVWithNamesAndTypes CSV CSVWithNames Values
Vertical JSON JSONCompact JSONEachRow TSKV Pretty PrettyCompact PrettyCompactMonoBlock PrettyNoEscapes
PrettySpace Null Native RowBinary XML""".split()
FORMATS_NEW = """CSVWithNamesAndTypes CustomSeparated CustomSeparatedWithNamesAndTypes JSONStrings JSONColumns
JSONColumnsWithMetadata JSONCompactColumns JSONAsString JSONCompactStrings JSONStringsEachRow
JSONCompactEachRow JSONCompactEachRowWithNamesAndTypes JSONCompactStringsEachRow JSONObjectEachRow
JSONEachRowWithProgress JSONCompactEachRowWithProgress PrettyJSONEachRow NDJSON Parquet Arrow ArrowStream ORC
Avro MsgPack BSONEachRow RowBinaryWithNames RowBinaryWithNamesAndTypes Markdown SQLInsert RawBLOB LineAsString
Hash MySQLWire NoSuchFormat Buffers""".split()
# Avro and ORC carry a random sync mark or a writer time; the bytes in those places are masked.
# The WithProgress formats interleave progress lines by time.
FORMAT_MASKS = {
    "Avro": ((rb"(?s)^.*$", b"AVRO"),),
    "JSONEachRowWithProgress": ((rb'\{"progress":[^\n]*\n', b""),),
    "JSONCompactEachRowWithProgress": ((rb'\{"progress":[^\n]*\n', b""),),
}
for f in FORMATS_BOTH:
    add(f"format {f}", get(q(SEL18 + f" FORMAT {f}")), servers=BOTH, covers="formats")
for f in FORMATS_NEW:
    s = "SELECT toString(number) AS s FROM numbers(5)" if f in ("RawBLOB", "LineAsString") else SEL
    add(f"format {f}", get(q(s + f" FORMAT {f}")), masks=FORMAT_MASKS.get(f, ()), covers="formats")
add("format by default_format", get(q(SEL18, default_format="JSONCompact")), servers=BOTH)
add("format by header", get(q(SEL), [("X-ClickHouse-Format", "CSVWithNames")]))
add("format by header beats the parameter", get(q(SEL, default_format="XML"), [("X-ClickHouse-Format", "CSV")]))
add("format clause beats both", get(q(SEL + " FORMAT TSV", default_format="XML"), [("X-ClickHouse-Format", "CSV")]))
add("format Null of many rows", get(q("SELECT * FROM system.numbers LIMIT 1000000 FORMAT Null")), servers=BOTH)
add("empty result", get(q("SELECT number FROM system.numbers WHERE 0 LIMIT 0")), servers=BOTH)
add("totals and extremes", get(q("SELECT number % 3 AS k, count() FROM (SELECT number FROM system.numbers LIMIT 100) "
                                 "GROUP BY k WITH TOTALS ORDER BY k FORMAT JSON", extremes=1)), servers=BOTH)
add("5 MB of rows", get(q("SELECT number, repeat('x', 40) FROM numbers(100000)")))
add("3 million rows", get(q("SELECT * FROM system.numbers LIMIT 3000000")), servers=BOTH)
add("one 10 MB string", get(q("SELECT repeat('0123456789', 1000000) FORMAT RawBLOB")))
add("binary bytes in TSV", get(q("SELECT unhex('000102030D0A7F80FEFF')")), servers=BOTH)
add("UTF-8", get(q("SELECT 'žluťoučký кінь 馬 🐎'")), servers=BOTH)

# ---- request forms
add("GET", get(q("SELECT 1")), servers=BOTH)
add("GET of /query", get("/query?query=SELECT%202"), servers=BOTH)
add("GET of ?query without a slash", raw(b"GET ?query=SELECT%202 HTTP/1.1\r\nHost: x\r\n\r\n"))
add("POST body", post("/", "SELECT 1"), servers=BOTH)
add("POST to /?", post("/?", "SELECT 1"), servers=BOTH)
add("POST query in URL, empty body", post(q("SELECT 1"), ""), servers=BOTH)
add("POST query in URL and body", post(q("SELECT 1 +"), "2"), servers=BOTH)
add("GET with a body", post(q("SELECT 1 +"), "2", method="GET"), servers=BOTH)
add("POST form content type is raw SQL", post("/", "SELECT 3", [("Content-Type", "application/x-www-form-urlencoded")]), servers=BOTH)
add("POST chunked", post("/", "SELECT 1, 'chunked'", chunked=True), servers=BOTH)
add("POST without any length", raw(b"POST /?query=SELECT+1 HTTP/1.1\r\nHost: x\r\n\r\n", "POST"), servers=NEW)
add("POST with Connection: close", post("/", "SELECT 1", [("Connection", "close")]), servers=BOTH)
add("GET with Connection: close", get(q("SELECT 1"), [("Connection", "close")]), servers=BOTH)
add("HEAD of a query", get(q("SELECT 1"), method="HEAD"), servers=BOTH)
add("HEAD of an error", get(q("SELECT nope"), method="HEAD"), servers=BOTH)
add("HEAD of /ping", get("/ping", method="HEAD"), servers=BOTH)
add("HEAD of /", get("/", method="HEAD"), servers=BOTH)
add("HEAD of an unknown path", get("/nowhere", method="HEAD"), servers=BOTH)
add("OPTIONS /", get("/", method="OPTIONS"), servers=BOTH)
add("OPTIONS with a query", get(q("SELECT 1"), method="OPTIONS"), servers=NEW)
add("OPTIONS with Origin", get("/", [("Origin", "http://a.test"), ("Access-Control-Request-Method", "POST")], method="OPTIONS"), servers=BOTH)
add("OPTIONS of an unknown path", get("/nowhere", method="OPTIONS"), servers=BOTH)
for m in ("PUT", "DELETE", "PATCH"):
    add(f"{m} with a body", post("/", "SELECT 1", method=m), servers=BOTH)
add("PUT with a query in the URL", post(q("SELECT 1"), "", method="PUT"), servers=BOTH)
add("TRACE", get("/", method="TRACE"), servers=BOTH)
add("method in lower case", get(q("SELECT 1"), method="get"), servers=NEW)
add("unknown method", get(q("SELECT 1"), method="BREW"), servers=NEW)
add("GET runs as readonly", get(q("CREATE TABLE never (a Int8) ENGINE = Memory")), servers=BOTH)
add("GET may not change readonly", get(q("SELECT 1", readonly=0)), servers=NEW)
add("two requests on one connection", get(q("SELECT 1")), post("/", "SELECT 2"), get("/ping"), servers=BOTH)
add("an error keeps the connection", post("/", "SELECT nope"), post("/", "SELECT 2"), servers=BOTH)
add("comment and semicolon", post("/", "/* a */ SELECT 1 -- b\n;"), servers=NEW)
add("query with FORMAT in the body's end", post("/", SEL18 + "\nFORMAT JSONEachRow\n"), servers=BOTH)

# ---- paths
for p in ("/", "/ping", "/replicas_status", "/nowhere", "/ping/", "/ping?x=1", "/pin", "//", "/favicon.ico", "/query"):
    add(f"path {p}", get(p), servers=BOTH)
for p in ("/play", "/dashboard", "/dashboards", "/binary", "/merges", "/schema", "/jemalloc", "/webterminal",
          "/js/uplot.js", "/js/lz-string.js", "/docs"):
    add(f"page {p}", get(p))
add("page /play with gzip", get("/play", [("Accept-Encoding", "gzip")]))
add("page /dashboard with zstd", get("/dashboard", [("Accept-Encoding", "zstd")]))
add("page /play with wrong credentials", get("/play?user=nobody&password=x"))
add("/ping with wrong credentials", get("/ping", [("X-ClickHouse-User", "nobody"), ("X-ClickHouse-Key", "x")]), servers=BOTH)
add("POST to an unknown path", post("/nowhere", "SELECT 1"), servers=NEW)
add("absolute-form target", get("http://chmux.test/?query=SELECT+1"), servers=NEW)
add("path with percent escapes", get("/%70ing"), servers=NEW)
add("path with odd characters", get("/a;b=c/~d!$'()*,:@&=+"), servers=NEW)
add("a fragment in the target", get("/?query=SELECT+1#frag"), servers=NEW)

# ---- the web terminal
WS = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13"),
      ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")]
add("WebSocket 101", get("/webterminal", [("Origin", "http://chmux.test"), *WS]))
add("WebSocket without Origin is 403", get("/webterminal", WS))
add("Upgrade: h2c is ignored", get(q("SELECT 1"), [("Upgrade", "h2c"), ("Connection", "Upgrade, HTTP2-Settings"), ("HTTP2-Settings", "AAMAAABkAAQCAAAAAAIAAAAA")]))

# ---- errors before the first byte
for name, sql in {
    "syntax": "SELEKT 1", "unknown table": "SELECT * FROM nope.nope", "unknown identifier": "SELECT nope",
    "unknown function": "SELECT nope(1)", "bad cast": "SELECT toInt32('x')", "empty query": "",
    "bad argument": "SELECT toDate('x', 1, 2, 3)", "throwIf at once": "SELECT throwIf(1)",
    "type mismatch": "SELECT 1 + 'a'", "divide": "SELECT intDiv(1, 0)",
}.items():
    add(f"error {name}", post("/", sql), servers=BOTH, covers="errors")
for name, sql in {
    "unknown database": "USE nope", "unknown storage": "CREATE TABLE x (a Int8) ENGINE = Nope",
    "unknown format": "SELECT 1 FORMAT Nope", "unknown type": "SELECT CAST(1 AS Nope)",
    "unknown role": "SET ROLE nope", "access denied": "CREATE USER x", "regexp": "SELECT match('a', '(')",
    "two statements": "SELECT 1; SELECT 2",
}.items():
    add(f"error {name}", post("/", sql), covers="errors")
add("error 159 is a 408", post("/?max_execution_time=1", "SELECT count() FROM system.numbers WHERE sleepEachRow(0.1) = 0"), masks=((rb"elapsed [\d.]+ ?m?s", b"elapsed T"),))
add("timeout with overflow mode break", post("/?max_execution_time=0.3&timeout_overflow_mode=break&max_block_size=1", "SELECT count() >= 0 FROM (SELECT sleepEachRow(0.1) FROM numbers(20))"))
add("error 158 by a limit", post("/?max_rows_to_read=10", "SELECT * FROM numbers(1000)"))
add("error 396 by a result limit", post("/?max_result_rows=10&wait_end_of_query=1", "SELECT number FROM numbers(1000)"))
add("error 241 by memory", post("/?max_memory_usage=1000000&wait_end_of_query=1&max_threads=1", "SELECT groupArray(number) FROM numbers(10000000) FORMAT Null"), masks=((rb"would use .*?\)", b"would use M)"), (rb"-?[\d.]+ [KMG]iB", b"M"), (rb"While executing [A-Za-z]+|while executing [A-Za-z]+", b"W")))
add("error with a stack trace", post("/?stacktrace=1", "SELECT nope"), masks=((rb"(?s)Stack trace:.*", b"TRACE"),))
add("error in Native format", post("/?default_format=Native", "SELECT nope"))
add("error with a newline in its text", post("/", "SELECT throwIf(1, 'line one\nline two')"))

# ---- errors after the first byte (throwIf after rows; slow enough that rows always come first)
THROW = "SELECT number, sleepEachRow(0.02), throwIf(number = 6, 'boom') FROM numbers(10)"
for f in ("TSV", "CSV", "JSON", "JSONEachRow", "Native", "RowBinary", "Values", "Pretty", "XML"):
    add(f"exception mid-stream {f}", get(q(THROW + f" FORMAT {f}", max_block_size=1)), covers="mid-stream exceptions", masks=((rb"<bytes_read>\d+|<rows_read>\d+", b"R"),))
for f in ("JSON", "JSONEachRow", "JSONCompact", "XML", "TSV"):
    add(f"exception written in format {f}", get(q(THROW + f" FORMAT {f}", max_block_size=1, http_write_exception_in_output_format=1)), covers="mid-stream exceptions")
add("exception after 2 million rows", get(q("SELECT throwIf(number = 2500000) FROM numbers(3000000)", max_threads=1)), masks=((rb"^(?:0\n)+", b"ROWS"),), covers="mid-stream exceptions")
add("exception after rows on 18.16", get(q("SELECT throwIf(number = 2500000) FROM system.numbers LIMIT 3000000")), servers=OLD, masks=((rb"^(?:0\n)+", b"ROWS"),), covers="mid-stream exceptions")
add("exception with wait_end_of_query", get(q(THROW, max_block_size=1, wait_end_of_query=1)))
add("exception after rows, HEAD", get(q(THROW, max_block_size=1), method="HEAD"))
for enc in ("gzip", "zstd", "br", "lz4"):
    # Rows that do not compress, so that over 1 MiB is out before the error; how many rows is a race.
    add(f"exception inside {enc}", get(q("SELECT hex(sipHash128(number)), throwIf(number = 400000) FROM numbers(500000)", max_threads=1), [("Accept-Encoding", enc)]),
        decode=True, masks=((rb"^(?:[0-9A-F]{32}\t0\n)+", b"ROWS"),), covers="mid-stream exceptions")

# ---- response encodings
for enc in ("zstd", "gzip", "br", "lz4", "snappy", "deflate", "xz"):
    add(f"Accept-Encoding {enc}", get(q("SELECT number FROM numbers(20000)"), [("Accept-Encoding", enc)]), covers="encodings")
for enc in ("gzip, deflate, br, zstd", "*", "gzip;q=1.0, zstd;q=0", "identity", "bz2, x-gzip", "GZip", "", "br;q=0.1, gzip;q=0.9"):
    add(f"Accept-Encoding '{enc}'", get(q("SELECT number FROM numbers(2000)"), [("Accept-Encoding", enc)]), covers="encodings")
add("Accept-Encoding, no rows", get(q("SELECT 1 WHERE 0"), [("Accept-Encoding", "gzip")]))
add("Accept-Encoding, an error", get(q("SELECT nope"), [("Accept-Encoding", "gzip")]), decode=True)
add("Accept-Encoding, a login error", get(q("SELECT 1", user="nobody"), [("Accept-Encoding", "zstd")]))
add("Accept-Encoding, compression off", get(q("SELECT 1", enable_http_compression=0), [("Accept-Encoding", "gzip")]))
add("Accept-Encoding, 18.16 with it on", get(q("SELECT number FROM system.numbers LIMIT 2000", enable_http_compression=1), [("Accept-Encoding", "gzip")]), servers=OLD)
add("Accept-Encoding, 18.16 deflate", get(q("SELECT number FROM system.numbers LIMIT 2000", enable_http_compression=1), [("Accept-Encoding", "deflate")]), servers=OLD)
add("compression level", get(q("SELECT number FROM numbers(20000)", http_zlib_compression_level=9), [("Accept-Encoding", "gzip")]))
add("HEAD with Accept-Encoding", get(q("SELECT number FROM numbers(2000)"), [("Accept-Encoding", "gzip")], method="HEAD"))
add("compress=1", get(q("SELECT number FROM numbers(200000)", compress=1)), covers="compress")
add("compress=1 on 18.16", get(q("SELECT number FROM system.numbers LIMIT 400000", compress=1)), servers=OLD, covers="compress")
add("compress=1 of one row", get(q("SELECT 1", compress=1)), covers="compress")
add("compress=1 with gzip", get(q("SELECT number FROM numbers(2000)", compress=1), [("Accept-Encoding", "gzip")]), covers="compress")
add("compress=1, an error", get(q("SELECT nope", compress=1)), covers="compress")
add("compress=1, an error, gzip", get(q("SELECT nope", compress=1), [("Accept-Encoding", "gzip")]), covers="compress")
add("compress=maybe", get(q("SELECT 1", compress="maybe")), covers="compress")

# ---- request encodings
SQL = b"SELECT 'encoded', sum(number) FROM numbers(1000)"


def snappy_frames(data):
    return bytes(cramjam.snappy.compress(data))


ENCODERS = {
    "gzip": lambda d: gzip.compress(d, mtime=0),
    "deflate": zlib.compress,
    "br": brotli.compress,
    "xz": lzma.compress,
    "zstd": zstandard.compress,
    "lz4": lz4.frame.compress,
    "snappy": snappy_frames,
}
for enc, fn in ENCODERS.items():
    add(f"Content-Encoding {enc}", post("/", fn(SQL), [("Content-Encoding", enc)]), covers="encodings")
for enc in ("gzip", "zstd", "lz4", "br"):
    body = b"".join(b"%d\trow %d\n" % (i, i) for i in range(5000))
    add(f"INSERT with Content-Encoding {enc}", post(q("INSERT INTO cmp FORMAT TSV"), ENCODERS[enc](body), [("Content-Encoding", enc)]),
        setup=("TRUNCATE TABLE cmp",), check="SELECT count(), sum(a), sum(cityHash64(s)) FROM cmp", covers="encodings")
    add(f"Content-Encoding {enc}, chunked, with Accept-Encoding", post("/", ENCODERS[enc](SQL), [("Content-Encoding", enc), ("Accept-Encoding", enc)], chunked=True), covers="encodings")
add("Content-Encoding gzip, two members", post("/", ENCODERS["gzip"](SQL[:20]) + ENCODERS["gzip"](SQL[20:]), [("Content-Encoding", "gzip")]))
add("Content-Encoding gzip cut", post("/", ENCODERS["gzip"](SQL)[:-3], [("Content-Encoding", "gzip")]))
add("Content-Encoding zstd cut", post("/", ENCODERS["zstd"](SQL)[:-3], [("Content-Encoding", "zstd")]))
add("Content-Encoding gzip of garbage", post("/", b"this is no gzip stream", [("Content-Encoding", "gzip")]))
add("Content-Encoding identity is 501", post("/", SQL, [("Content-Encoding", "identity")]))
add("Content-Encoding bz2 is 501", post("/", bz2.compress(SQL), [("Content-Encoding", "bz2")]))
add("Content-Encoding GZIP in capitals", post("/", ENCODERS["gzip"](SQL), [("Content-Encoding", "GZIP")]))
add("Content-Encoding gzip on 18.16", post("/", ENCODERS["gzip"](b"SELECT 1"), [("Content-Encoding", "gzip")]), servers=OLD)
add("Content-Encoding zstd on 18.16", post("/", ENCODERS["zstd"](b"SELECT 1"), [("Content-Encoding", "zstd")]), servers=OLD)


def frames(text):
    """ClickHouse's own compressed frames of a text, made by the server itself."""
    def make(server):
        from rig import http1
        r = http1.ask(server.addr, "POST", "/?compress=1", (), f"SELECT '{text}' FORMAT {'RawBLOB' if server.version == '26.7' else 'TabSeparatedRaw'}".encode())
        assert r.status == 200 and r.complete
        return r.body
    return make


add("decompress=1, SQL in frames", post("/?decompress=1", frames("SELECT 41 + 1")), covers="compress")
add("decompress=1, rows in frames", post(q("INSERT INTO cmp FORMAT TSV", decompress=1), frames("1\\tone\\n2\\ttwo\\n")),
    setup=("TRUNCATE TABLE cmp",), check="SELECT * FROM cmp ORDER BY a", covers="compress")
add("decompress=1 and compress=1", post("/?decompress=1&compress=1", frames("SELECT number FROM numbers(100)")), covers="compress")
add("decompress=1, bad checksum", post("/?decompress=1", lambda s: b"\0" + frames("SELECT 1")(s)[1:]), masks=((rb"[0-9a-f]{32}", b"SUM"),), covers="compress")
add("decompress=1, cut frame", post("/?decompress=1", lambda s: frames("SELECT 1")(s)[:-2]), covers="compress")
add("decompress=1 inside gzip", post("/?decompress=1", lambda s: ENCODERS["gzip"](frames("SELECT 7")(s)), [("Content-Encoding", "gzip")]), covers="compress")

# ---- parameters
add("param_ in the URL", get(q("SELECT {x:UInt8} + 1", param_x=41)), covers="parameters")
add("param_ with escapes", get(q("SELECT {x:String}", param_x="a\\tb")), covers="parameters")
add("param_ with a raw tab", get(q("SELECT {x:String}", param_x="a\tb")), covers="parameters")
add("param_ missing", get(q("SELECT {x:String}")), covers="parameters")
add("param_ of a bad type", get(q("SELECT {x:UInt8}", param_x="abc")), covers="parameters")
add("param_ identifier", get(q("SELECT count() FROM {t:Identifier}", param_t="system.one")), covers="parameters")
add("param_ array", get(q("SELECT {x:Array(String)}", param_x="['a','b']")), covers="parameters")
add("param_ unused", get(q("SELECT 1", param_zzz=1)), covers="parameters")
add("a setting", get(q("SELECT getSetting('max_threads')", max_threads=3)), covers="parameters")
add("a setting twice, last wins", get("/?query=SELECT+getSetting('max_threads')&max_threads=3&max_threads=5"), covers="parameters")
add("query twice, first wins", get("/?query=SELECT+1&query=SELECT+2"), servers=BOTH, covers="parameters")
add("user twice, first wins", get("/?query=SELECT+currentUser()&user=alice&user=nobody&password=secret"), covers="parameters")
add("unknown setting", get(q("SELECT 1", no_such_setting=1)), servers=BOTH, covers="parameters")
add("setting of a bad value", get(q("SELECT 1", max_threads="many")), servers=NEW, covers="parameters")
add("empty parameters", get("/?&&query=SELECT+1&&"), servers=BOTH, covers="parameters")
add("parameter without a value", get("/?query=SELECT+1&max_threads"), servers=NEW, covers="parameters")
add("plus is a space, %2B a plus", get("/?query=SELECT+1%2B1"), servers=BOTH, covers="parameters")
add("percent escapes in names", get("/?%71uery=SELECT+1"), servers=BOTH, covers="parameters")
add("bad percent escape", get("/?query=SELECT+1%zz"), servers=NEW, covers="parameters")
add("percent escaped newline and ampersand", get("/?query=" + quote("SELECT 'a&b=c',\n2")), servers=BOTH, covers="parameters")
add("lower case escapes", get("/?query=select%20%27%c5%be%27"), servers=BOTH, covers="parameters")
add("unescaped brackets and quotes", get("/?query=SELECT+[1,2],'x',{}"), servers=NEW, covers="parameters")
add("query_id by parameter", get(q("SELECT 1", query_id="cmp-fixed-1")), servers=NEW, covers="parameters")
add("query_id by header", get(q("SELECT 1"), [("X-ClickHouse-Query-Id", "cmp-fixed-2")]), covers="parameters")
add("query_id by both", get(q("SELECT queryID()", query_id="cmp-fixed-3"), [("X-ClickHouse-Query-Id", "cmp-fixed-4")]), covers="parameters")
add("query_id empty", get(q("SELECT length(queryID())", query_id="")), covers="parameters")
add("query_id with escapes", get(q("SELECT queryID()", query_id="cmp-fixed a b&c+d/č")), covers="parameters")
add("database by parameter", get(q("SELECT currentDatabase()", database="system")), servers=BOTH, covers="parameters")
add("database by header", get(q("SELECT currentDatabase()"), [("X-ClickHouse-Database", "system")]), covers="parameters")
add("database by both", get(q("SELECT currentDatabase()", database="default"), [("X-ClickHouse-Database", "system")]), covers="parameters")
add("database unknown", get(q("SELECT 1", database="nope")), servers=NEW, covers="parameters")
add("role", get(q("SELECT count() FROM cmp WHERE 0", user="roled", password="roledpw", role="observer")), covers="parameters")
add("role unknown", get(q("SELECT 1", user="roled", password="roledpw", role="nope")), covers="parameters")
add("role twice", get("/?query=SELECT+1&user=roled&password=roledpw&role=observer&role=observer"), covers="parameters")
add("wait_end_of_query", get(q(SEL18, wait_end_of_query=1)), servers=BOTH, covers="parameters")
add("buffer_size", get(q("SELECT number FROM system.numbers LIMIT 100000", buffer_size=300000)), servers=BOTH, covers="parameters")
add("session_timezone", get(q("SELECT toDateTime(0)", session_timezone="Asia/Tokyo")), covers="parameters")
add("client_protocol_version", get(q("SELECT 1 FORMAT Native", client_protocol_version=54460)), covers="parameters")
add("http_response_headers", get(q("SELECT 1", http_response_headers="{'X-My':'v','Content-Type':'text/weird'}")), covers="parameters")
add("http_response_headers, two", get(q("SELECT 1", http_response_headers="{'X-One':'1','X-Two':'2'}")), covers="parameters")
add("add_http_cors_header", get(q("SELECT 1", add_http_cors_header=1), [("Origin", "http://a.test")]), servers=BOTH, covers="parameters")
add("log_comment and quotes", get(q("SELECT getSetting('log_comment')", log_comment="a'b\"c")), covers="parameters")
add("quota_key", get(q("SELECT 1", quota_key="k")), servers=NEW, covers="parameters")
add("quota header", get(q("SELECT 1"), [("X-ClickHouse-Quota", "k")]), servers=BOTH, covers="parameters")
add("quota header and quota_key", get(q("SELECT 1", quota_key="k"), [("X-ClickHouse-Quota", "k")]), covers="parameters")
add("client headers seen by SQL", get(q("SELECT getClientHTTPHeader('X-Anything'), getClientHTTPHeader('Traceparent-Like')", allow_get_client_http_header=1), [("X-Anything", "some value"), ("Traceparent-Like", "00-a-b-01")]), covers="parameters")
add("X-Forwarded-For and User-Agent", get(q("SELECT getClientHTTPHeader('User-Agent'), getClientHTTPHeader('X-Forwarded-For')", allow_get_client_http_header=1), [("User-Agent", "cmp/1.0"), ("X-Forwarded-For", "10.1.2.3")]), covers="parameters")

# ---- sessions
add("session: temporary table", post("/?session_id=cmp-s1", "CREATE TEMPORARY TABLE tt (a Int8)"), post("/?session_id=cmp-s1", "INSERT INTO tt VALUES (1), (2)"),
    post("/?session_id=cmp-s1", "SELECT count() FROM tt"), post("/?session_id=cmp-s1", "DROP TABLE tt"), servers=BOTH, covers="sessions")
add("session: SET stays", post("/?session_id=cmp-s2", "SET max_threads = 3"), post("/?session_id=cmp-s2", "SELECT value FROM system.settings WHERE name = 'max_threads'"), servers=BOTH, covers="sessions")
add("session: USE stays", post("/?session_id=cmp-s3&session_timeout=5", "USE system"), post("/?session_id=cmp-s3", "SELECT currentDatabase()"), servers=NEW, covers="sessions")
add("session: session_check of none", post("/?session_id=cmp-s4&session_check=1", "SELECT 1"), servers=BOTH, covers="sessions")
add("session: timeout too large", post("/?session_id=cmp-s5&session_timeout=99999", "SELECT 1"), servers=BOTH, covers="sessions")
add("session: timeout not a number", post("/?session_id=cmp-s6&session_timeout=x", "SELECT 1"), servers=NEW, covers="sessions")
add("session: close_session", post("/?session_id=cmp-s7", "SELECT 1"), post("/?session_id=cmp-s7&close_session=1", "SELECT 2"), post("/?session_id=cmp-s7&session_check=1", "SELECT 3"), covers="sessions")
add("session: empty id", post("/?session_id=", "SELECT 1"), servers=NEW, covers="sessions")
add("temporary table without a session", post("/", "CREATE TEMPORARY TABLE tt (a Int8)"), servers=BOTH, covers="sessions")

# ---- credentials
A = [("X-ClickHouse-User", "alice"), ("X-ClickHouse-Key", "secret")]
WHO = "SELECT currentUser()"
for name, target, headers in (
    ("URL", q(WHO, user="alice", password="secret"), []),
    ("URL wrong password", q(WHO, user="alice", password="no"), []),
    ("URL unknown user", q(WHO, user="nobody", password="x"), []),
    ("URL default wrong password", q(WHO, user="default", password="x"), []),
    ("URL password alone", q(WHO, password="x"), []),
    ("URL user without its password", q(WHO, user="alice"), []),
    ("headers", q(WHO), A),
    ("headers wrong password", q(WHO), [A[0], ("X-ClickHouse-Key", "no")]),
    ("header user alone", q(WHO), [("X-ClickHouse-User", "default")]),
    ("header key alone", q(WHO), [("X-ClickHouse-Key", "x")]),
    ("headers empty", q(WHO), [("X-ClickHouse-User", ""), ("X-ClickHouse-Key", "")]),
    ("Basic", q(WHO), [("Authorization", "Basic YWxpY2U6c2VjcmV0")]),
    ("Basic wrong password", q(WHO), [("Authorization", "Basic YWxpY2U6bm8=")]),
    ("Basic bad base64", q(WHO), [("Authorization", "Basic %%%")]),
    ("Basic empty", q(WHO), [("Authorization", "Basic ")]),
    ("Basic without a colon", q(WHO), [("Authorization", "Basic YWxpY2U=")]),
    ("Bearer", q(WHO), [("Authorization", "Bearer abc.def.ghi")]),
    ("Negotiate", q(WHO), [("Authorization", "Negotiate YII=")]),
    ("unknown scheme", q(WHO), [("Authorization", "Magic 1")]),
    ("never", q(WHO), [("Authorization", "never")]),
    ("Basic twice", q(WHO), [("Authorization", "Basic YWxpY2U6c2VjcmV0"), ("Authorization", "Basic YWxpY2U6bm8=")]),
    ("headers and Basic", q(WHO), [*A, ("Authorization", "Basic YWxpY2U6c2VjcmV0")]),
    ("headers and URL", q(WHO, user="alice", password="secret"), A),
    ("Basic wrong, URL right", q(WHO, user="alice", password="secret"), [("Authorization", "Basic YWxpY2U6bm8=")]),
    ("Bearer, URL right", q(WHO, user="alice", password="secret"), [("Authorization", "Bearer x")]),
    ("certificate header without a certificate", q(WHO), [("X-ClickHouse-User", "alice"), ("X-ClickHouse-SSL-Certificate-Auth", "on")]),
):
    add(f"auth {name}", get(target.replace("currentUser", "currentUser"), headers), servers=BOTH, covers="authentication")
add("auth fails for a POST with a body", post("/", "SELECT 1" + " " * 100000, [("Authorization", "Basic YWxpY2U6bm8=")]), servers=BOTH, covers="authentication")
add("auth per request on one connection", get(q(WHO), A), get(q(WHO)), get(q(WHO, user="x")), get(q(WHO), A), covers="authentication")
add("readonly user may not write", post("/", "CREATE TABLE never (a Int8) ENGINE = Memory", [("X-ClickHouse-User", "reader"), ("X-ClickHouse-Key", "readerpw")]), servers=BOTH, covers="authentication")
add("readonly user may not set", get(q("SELECT 1", max_threads=2), [("X-ClickHouse-User", "reader"), ("X-ClickHouse-Key", "readerpw")]), servers=BOTH, covers="authentication")

# ---- INSERT
SEED = "SELECT toInt32(number) AS a, concat('row ', toString(number)) AS s FROM system.numbers LIMIT 100"
INSERTED = "SELECT count(), sum(a), sum(cityHash64(s)) FROM cmp"


def in_format(f):
    def make(server):
        from rig import http1
        r = http1.ask(server.addr, "POST", "/", (), f"{SEED} FORMAT {f}".encode())
        assert r.status == 200 and r.complete, r
        return r.body
    return make


INPUT_BOTH = "TabSeparated TSVWithNames TSVWithNamesAndTypes CSV CSVWithNames Values JSONEachRow TSKV Native RowBinary".split()
INPUT_NEW = """CSVWithNamesAndTypes JSON JSONCompact JSONColumns JSONCompactEachRow JSONCompactEachRowWithNamesAndTypes
JSONStringsEachRow JSONObjectEachRow CustomSeparated RowBinaryWithNames RowBinaryWithNamesAndTypes MsgPack BSONEachRow
Parquet Arrow ArrowStream ORC Avro""".split()
for f in INPUT_BOTH + INPUT_NEW:
    add(f"INSERT {f}", post(q(f"INSERT INTO cmp FORMAT {f}"), in_format(f)), setup=("TRUNCATE TABLE cmp",), check=INSERTED,
        servers=BOTH if f in INPUT_BOTH else NEW, covers="inserts")
TRUNCATE = dict(setup=("TRUNCATE TABLE cmp",), check=INSERTED, covers="inserts")
add("INSERT all in the body", post("/", "INSERT INTO cmp VALUES (1, 'a'), (2, 'b')"), servers=BOTH, **TRUNCATE)
add("INSERT data starts in the URL", post(q("INSERT INTO cmp VALUES (1, 'a'),"), "(2, 'b')"), servers=BOTH, **TRUNCATE)
add("INSERT chunked", post(q("INSERT INTO cmp FORMAT TSV"), b"1\ta\n" * 1000, chunked=True), servers=BOTH, **TRUNCATE)
add("INSERT in 1-byte chunks", ("POST", request("POST", q("INSERT INTO cmp FORMAT TSV"), [("Transfer-Encoding", "chunked")]) + chunk_body(b"1\ta\n" * 50, 1), ""), servers=BOTH, **TRUNCATE)
add("INSERT of nothing", post(q("INSERT INTO cmp FORMAT TSV"), b""), servers=NEW, **TRUNCATE)
add("INSERT one bad row", post(q("INSERT INTO cmp FORMAT TSV"), b"1\ta\nx\tb\n"), servers=BOTH, **TRUNCATE)
add("INSERT one bad row allowed", post(q("INSERT INTO cmp FORMAT TSV", input_format_allow_errors_num=1), b"1\ta\nx\tb\n3\tc\n"), servers=BOTH, **TRUNCATE)
add("INSERT into no table", post(q("INSERT INTO nope FORMAT TSV"), b"1\ta\n" * 10000), servers=BOTH)
add("INSERT SELECT", post("/", "INSERT INTO cmp " + SEED), servers=BOTH, **TRUNCATE)
add("INSERT by GET is refused", get(q("INSERT INTO cmp VALUES (1, 'a')")), servers=BOTH, **TRUNCATE)
add("INSERT one wide row", post(q("INSERT INTO cmp FORMAT TSV"), b"7\t" + b"y" * 38 + b"\n", how=""), servers=BOTH, **TRUNCATE)
add("INSERT 400000 rows", ("POST", request("POST", q("INSERT INTO cmp FORMAT TSV"), (), b"".join(b"%d\trow\n" % i for i in range(400000))), ""), servers=BOTH, **TRUNCATE)
add("INSERT with wait_end_of_query", post(q("INSERT INTO cmp FORMAT TSV", wait_end_of_query=1), b"1\ta\n"), **TRUNCATE)
add("INSERT async", post(q("INSERT INTO cmp FORMAT TSV", async_insert=1, wait_for_async_insert=1), b"1\ta\n"), **TRUNCATE)
add("INSERT with a deduplication token", post(q("INSERT INTO cmp FORMAT TSV", insert_deduplication_token="tok"), b"1\ta\n"), **TRUNCATE)
add("DDL and DROP", post("/", "CREATE TABLE cmp2 (a Int8) ENGINE = Memory"), post("/", "SHOW CREATE TABLE cmp2 FORMAT TSVRaw"), post("/", "DROP TABLE cmp2"), setup=("DROP TABLE IF EXISTS cmp2",), servers=BOTH)

# ---- external data by multipart
BOUND = "----cmp-boundary"


def multipart(*parts):
    out = []
    for name, filename, value in parts:
        disp = f'form-data; name="{name}"' + (f'; filename="{filename}"' if filename else "")
        out.append(f"--{BOUND}\r\nContent-Disposition: {disp}\r\n\r\n{value}\r\n")
    return ("".join(out) + f"--{BOUND}--\r\n").encode()


MP = [("Content-Type", f"multipart/form-data; boundary={BOUND}")]
add("multipart: external table", post(q("SELECT sum(id), count() FROM ext", ext_structure="id UInt32, s String"), multipart(("ext", "f.tsv", "1\ta\n2\tb\n")), MP), servers=BOTH, covers="external data")
add("multipart: external table, types", post(q("SELECT sum(_1) FROM ext", ext_types="UInt32"), multipart(("ext", "f.tsv", "1\n2\n")), MP), servers=BOTH, covers="external data")
add("multipart: external table, CSV", post(q("SELECT * FROM ext ORDER BY id", ext_structure="id UInt32, s String", ext_format="CSV"), multipart(("ext", "f.csv", '1,"a"\n2,"b"\n')), MP), servers=BOTH, covers="external data")
add("multipart: two tables", post(q("SELECT count() FROM one CROSS JOIN two", one_structure="id UInt8", two_structure="id UInt8"), multipart(("one", "1", "1\n2\n"), ("two", "2", "1\n2\n3\n")), MP), servers=NEW, covers="external data")
add("multipart: structure in a part", post(q("SELECT sum(id) FROM ext"), multipart(("ext_structure", None, "id UInt32"), ("ext", "f", "1\n2\n")), MP), covers="external data")
add("multipart: query in a part", post("/", multipart(("query", None, "SELECT 1 + 1")), MP), covers="external data")
add("multipart: query in URL and part", post("/?query=SELECT+1", multipart(("query", None, ",2")), MP), covers="external data")
add("multipart: param_ in a part", post(q("SELECT {x:String}"), multipart(("param_x", None, "from a part")), MP), covers="external data")
add("multipart: 200 kB param_", post("/", multipart(("query", None, "SELECT length({x:String})"), ("param_x", None, "y" * 200000)), MP), covers="external data")
add("multipart chunked", post(q("SELECT sum(id) FROM ext", ext_structure="id UInt32"), multipart(("ext", "f", "1\n2\n")), MP, chunked=True), servers=NEW, covers="external data")
add("multipart without a boundary", post("/", multipart(("query", None, "SELECT 1")), [("Content-Type", "multipart/form-data")]), covers="external data")
add("multipart: missing structure", post(q("SELECT * FROM ext"), multipart(("ext", "f", "1\n")), MP), servers=NEW, covers="external data")

# ---- odd but legal HTTP
add("no Host", get(q("SELECT 1"), host=None), servers=BOTH, covers="odd HTTP")
add("empty Host", get(q("SELECT 1"), host=""), servers=BOTH, covers="odd HTTP")
add("empty header value", get(q("SELECT 1"), [("X-Empty", "")]), servers=BOTH, covers="odd HTTP")
add("header value with inner spaces and tabs", get(q("SELECT getClientHTTPHeader('X-Odd')", allow_get_client_http_header=1), [("X-Odd", "a  b\tc \t d")]), covers="odd HTTP")
add("header value with high bytes", get(q("SELECT hex(getClientHTTPHeader('X-Odd'))", allow_get_client_http_header=1), [("X-Odd", "\u00e9\u00ff")]), covers="odd HTTP")
add("no space after the colon", raw(b"GET /?query=SELECT+getClientHTTPHeader('X-Odd')&allow_get_client_http_header=1 HTTP/1.1\r\nHost:x\r\nX-Odd:v\r\n\r\n"), covers="odd HTTP")
add("spaces around the value", raw(b"GET /?query=SELECT+getClientHTTPHeader('X-Odd')&allow_get_client_http_header=1 HTTP/1.1\r\nHost:  x  \r\nX-Odd: \t v \t \r\n\r\n"), covers="odd HTTP")
add("header names in odd case", raw(b"POST / HTTP/1.1\r\nhOST: x\r\ncONTENT-lENGTH: 8\r\n\r\nSELECT 1", "POST"), servers=BOTH, covers="odd HTTP")
add("300 headers", get(q("SELECT 1"), [(f"X-H{i}", f"v{i}") for i in range(300)]), covers="odd HTTP")
add("90 headers on 18.16", get(q("SELECT 1"), [(f"X-H{i}", f"v{i}") for i in range(90)]), servers=OLD, covers="odd HTTP")
add("a 100 kB header", get(q("SELECT length(getClientHTTPHeader('X-Long'))", allow_get_client_http_header=1), [("X-Long", "z" * 100000)]), covers="odd HTTP")
add("the same header twice", get(q("SELECT 1"), [("X-Twice", "1"), ("X-Twice", "2")]), servers=BOTH, covers="odd HTTP")
add("a 200 kB URI", get("/?query=SELECT+1&" + "&".join(f"param_p{i}={'x' * 50000}" for i in range(4))), covers="odd HTTP")
add("a URI of nearly 1 MiB", get("/?query=SELECT+1&" + "&".join(f"param_p{i}={'x' * 100000}" for i in range(10)) + "&param_z=" + "x" * 48000), covers="odd HTTP")
add("a URL parameter over 128 KiB", get("/?query=SELECT+1&param_p=" + "x" * 140000), covers="odd HTTP")
add("a 15 kB URI on 18.16", get(q("SELECT '" + "x" * 15000 + "'")), servers=OLD, covers="odd HTTP")
add("SQL over max_query_size", post("/", "SELECT '" + "x" * 300000 + "'"), servers=BOTH, covers="odd HTTP")
add("HTTP/1.0", get(q("SELECT 1"), version="HTTP/1.0"), servers=BOTH, covers="odd HTTP")
add("HTTP/1.0 without Host", get(q("SELECT 1"), version="HTTP/1.0", host=None), servers=BOTH, covers="odd HTTP")
add("HTTP/1.0 POST", post("/", "SELECT number FROM system.numbers LIMIT 200000", version="HTTP/1.0"), servers=BOTH, covers="odd HTTP")
add("HTTP/1.0 error", post("/", "SELECT nope", version="HTTP/1.0"), servers=BOTH, covers="odd HTTP")
add("HTTP/1.0 /ping", get("/ping", version="HTTP/1.0"), servers=BOTH, covers="odd HTTP")
add("HTTP/1.0 HEAD", get(q("SELECT 1"), version="HTTP/1.0", method="HEAD"), servers=BOTH, covers="odd HTTP")
add("leading empty lines", raw(b"\r\n\r\nGET /?query=SELECT+1 HTTP/1.1\r\nHost: x\r\n\r\n"), covers="odd HTTP")
add("head in 1-byte pieces", get(q("SELECT 'slow'"), how=1), servers=BOTH, covers="odd HTTP")
add("body in 3-byte pieces", post("/", "SELECT 'slow body'", how=3), servers=BOTH, covers="odd HTTP")
CH = [("Transfer-Encoding", "chunked")]


def chunked_raw(body, target="/", headers=()):
    return ("POST", request("POST", target, [*CH, *headers]) + body, "")


add("chunk extensions", chunked_raw(b"6;a=b;c=\"d\"\r\nSELECT\r\n2;x\r\n 1\r\n0;end\r\n\r\n"), servers=BOTH, covers="odd HTTP")
add("chunk sizes with zeros in front", chunked_raw(b"0006\r\nSELECT\r\n00000002\r\n 1\r\n000\r\n\r\n"), servers=BOTH, covers="odd HTTP")
add("chunk sizes in both cases", chunked_raw(b"a\r\nSELECT 1, \r\nA\r\n2, 3, 4, 5\r\n0\r\n\r\n"), servers=BOTH, covers="odd HTTP")
add("1-byte chunks", chunked_raw(chunk_body(b"SELECT 1, 'one byte each'", 1)), servers=BOTH, covers="odd HTTP")
add("chunked, nothing but the end", chunked_raw(b"0\r\n\r\n", q("SELECT 5")), servers=BOTH, covers="odd HTTP")
add("trailers after the last chunk", chunked_raw(b"8\r\nSELECT 1\r\n0\r\nX-Trailer: v\r\n\r\n"), servers=NEW, covers="odd HTTP")
add("Transfer-Encoding: CHUNKED", ("POST", request("POST", "/", [("Transfer-Encoding", "CHUNKED")]) + b"8\r\nSELECT 1\r\n0\r\n\r\n", ""), servers=NEW, covers="odd HTTP")
add("Content-Length with zeros in front", raw(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0008\r\n\r\nSELECT 1", "POST"), servers=BOTH, covers="odd HTTP")
add("GET with Content-Length: 0", get(q("SELECT 1"), [("Content-Length", "0")]), servers=BOTH, covers="odd HTTP")
EXPECT = [("Expect", "100-continue")]
add("Expect: 100-continue", post("/", "SELECT 'expected'", EXPECT, how="expect"), servers=BOTH, covers="Expect")
add("Expect: 100-continue, chunked", post("/", "SELECT 'expected'", EXPECT, how="expect", chunked=True), servers=BOTH, covers="Expect")
# A 100 may be left out when the body is already there (RFC 9110, 10.1.1).
add("Expect: 100-continue, body sent at once", post("/", "SELECT 'expected'", EXPECT), servers=BOTH, ignore=("interim",), covers="Expect")
add("Expect: 100-continue, INSERT", post(q("INSERT INTO cmp FORMAT TSV"), b"1\ta\n" * 20000, EXPECT, how="expect"), servers=BOTH, setup=("TRUNCATE TABLE cmp",), check=INSERTED, covers="Expect")
add("Connection: keep-alive named", get(q("SELECT 1"), [("Connection", "keep-alive"), ("Keep-Alive", "timeout=5")]), servers=BOTH, covers="odd HTTP")
add("TE: trailers", get(q("SELECT 1"), [("TE", "trailers"), ("Connection", "TE")]), servers=NEW, covers="odd HTTP")
add("Origin without CORS", get(q("SELECT 1"), [("Origin", "http://a.test")]), servers=BOTH, covers="odd HTTP")
add("Accept and Accept-Language", get(q("SELECT 1"), [("Accept", "application/json"), ("Accept-Language", "cs")]), servers=BOTH, covers="odd HTTP")
add("Cookie and Referer", get(q("SELECT 1"), [("Cookie", "a=b; c=d"), ("Referer", "http://a.test/")]), servers=BOTH, covers="odd HTTP")
add("traceparent", get(q("SELECT 1"), [("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), ("tracestate", "a=b")]), covers="odd HTTP")
add("Range and If-None-Match", get("/play", [("Range", "bytes=0-10"), ("If-None-Match", "*")]), covers="odd HTTP")

# ---- progress headers
SLOW = "SELECT count() FROM (SELECT sleepEachRow(0.05) FROM numbers(14))"
PROGRESS = dict(send_progress_in_http_headers=1, max_block_size=1, http_headers_progress_interval_ms=100)
add("progress headers", get(q(SLOW, **PROGRESS)), covers="progress")
add("progress headers, JSON", get(q(SLOW + " FORMAT JSON", **PROGRESS)), covers="progress")
add("progress headers, an error after them", get(q("SELECT throwIf(n = 13) FROM (SELECT max(number) AS n, sum(sleepEachRow(0.05)) FROM numbers(14))", **PROGRESS)), covers="progress")
add("progress headers, wait_end_of_query", get(q(SLOW, wait_end_of_query=1, **PROGRESS)), covers="progress")
add("progress headers, INSERT SELECT", post("/?" + urlencode(PROGRESS), "INSERT INTO cmp SELECT number, toString(sleepEachRow(0.05)) FROM numbers(14)"), setup=("TRUNCATE TABLE cmp",), check=INSERTED, covers="progress")
add("progress headers, HEAD", get(q(SLOW, **PROGRESS), method="HEAD"), covers="progress")
add("progress headers, gzip", get(q(SLOW, **PROGRESS), [("Accept-Encoding", "gzip")]), covers="progress")
add("progress setting on 18.16", get(q("SELECT count() FROM (SELECT number FROM system.numbers LIMIT 100000)", send_progress_in_http_headers=1)), servers=OLD, covers="progress")

# ---- concurrency errors that come at once
add("session locked is 373 when the session is another user's", get(q("SELECT 1", session_id="cmp-shared"), A), get(q("SELECT 1", session_id="cmp-shared")), covers="sessions")
add("KILL QUERY of nothing", post("/", "KILL QUERY WHERE query_id = 'no-such-id' ASYNC"), servers=BOTH)
add("SHOW PROCESSLIST shape", get(q("SELECT count() > 0 FROM system.processes")), servers=BOTH)
add("EXPLAIN", post("/", "EXPLAIN SYNTAX SELECT 1 FROM system.one WHERE 1"))
add("DESCRIBE and EXISTS", post("/", "DESCRIBE TABLE system.one"), post("/", "EXISTS TABLE system.one"), servers=BOTH)

assert len({c.name for c in CASES}) == len(CASES), "two cases of one name"
