"""The rows that issue 3's part of the bench moves, as files: made by rowgen, compressed by bare."""
import json
import os
import shutil
import subprocess
import tempfile

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
