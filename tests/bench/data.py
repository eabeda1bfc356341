"""The rows that issue 3's part of the bench moves, as files: made by rowgen, compressed by bare."""
import json
import mmap
import os
import shutil
import socket
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor

import procs

COLUMNS = ("id UInt64, time DateTime, user UInt32, session UInt64, kind String, country String, "
           "page String, took_ms UInt32, amount Float64")
FORMATS = {"JSONEachRow": "json", "TSV": "tsv", "RowBinary": "rowbinary"}
ENDINGS = {"zstd": ".zst", "lz4": ".lz4", "gzip": ".gz"}
# What ClickHouse compresses HTTP answers with (http_zlib_compression_level is for all of them).
SERVER_LEVEL = 3


def bare(how, coding, path, level=1, **options):
    """Runs the library alone over a file: its figures."""
    argv = [os.path.join(procs.BUILD, "bare"), how, "--coding", coding, "--in", path, "--level",
            str(level)]
    for name, value in options.items():
        argv += ["--" + name, str(value)]
    r = subprocess.run(argv, capture_output=True, text=True, timeout=300)
    if r.returncode != 0:
        raise procs.BenchError("%s: %s" % (" ".join(argv), r.stderr))
    return json.loads(r.stdout)


# The cheapest of what was tried: with and without --single-thread and --no-asyncio.
TOOLS = {
    ("encode", "zstd"): ["zstd", "-q", "-c", "-1"],
    ("decode", "zstd"): ["zstd", "-q", "-dc", "--no-asyncio"],
    ("encode", "lz4"): ["lz4", "-q", "-c", "-1", "-B4", "-BD"],  # blocks of 64 KiB, linked, as ours
    ("decode", "lz4"): ["lz4", "-q", "-dc"],
}


def tool_cpu(how, coding, path, repeat):
    """CPU seconds of the coding's command-line tool that takes the file from one TCP connection on
    loopback, as often as repeat says, and sends what it makes of it into another."""
    (feed, stdin), (stdout, drain) = _connection(), _connection()
    with feed, drain, ThreadPoolExecutor(2) as pool:
        with stdin, stdout:
            tool = subprocess.Popen(TOOLS[how, coding], stdin=stdin, stdout=stdout)
        fed, came = pool.submit(_feed, feed, path, repeat), pool.submit(_drain, drain)
        _, status, usage = os.wait4(tool.pid, 0)
        tool.returncode = os.waitstatus_to_exitcode(status)
        fed.result()
        if tool.returncode != 0 or came.result() == 0:
            raise procs.BenchError("%s: status %d, %d bytes" % (
                " ".join(TOOLS[how, coding]), tool.returncode, came.result()))
    return usage.ru_utime + usage.ru_stime


def _connection():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        return one, listener.accept()[0]


def _feed(sock, path, repeat):
    with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as m:
        with memoryview(m) as bytes_:
            for _ in range(repeat):
                for at in range(0, len(bytes_), 1 << 18):
                    sock.sendall(bytes_[at:at + (1 << 18)])
    sock.shutdown(socket.SHUT_WR)


def _drain(sock):
    buf, count = bytearray(1 << 18), 0
    while n := sock.recv_into(buf):
        count += n
    return count


class Data:
    """Files by what is in them, made when first asked for, removed at the end of the run."""

    def __init__(self):
        self.dir = None

    def _path(self, name):
        if not self.dir:
            self.dir = tempfile.mkdtemp(prefix="chmux-bench-data-")
        return os.path.join(self.dir, name)

    def plain(self, kind, rows):
        path = self._path("%s-%d" % (kind, rows))
        if not os.path.exists(path):
            with open(path, "wb") as f:
                subprocess.run([os.path.join(procs.BUILD, "rowgen"), FORMATS[kind], str(rows)],
                               stdout=f, check=True)
        return path

    def cut(self, kind, rows, size):
        """The first bytes of the rows, not ended at the end of one."""
        path = self._path("%s-%d-first-%d" % (kind, rows, size))
        if not os.path.exists(path):
            with open(self.plain(kind, rows), "rb") as f:
                start = f.read(size)
            with open(path, "wb") as f:
                f.write(start)
        return path

    @staticmethod
    def coded(path, coding, level):
        """The same file compressed."""
        out = "%s-l%d%s" % (path, level, ENDINGS[coding])
        if not os.path.exists(out):
            bare("encode", coding, path, level, out=out)
        return out

    def remove(self):
        if self.dir:
            shutil.rmtree(self.dir)
            self.dir = None


DATA = Data()
