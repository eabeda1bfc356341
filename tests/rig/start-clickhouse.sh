#!/bin/sh
# ClickHouse 26.7 on loopback without installing it: the server inside npm's libchdb.
#
#   start-clickhouse.sh start DIR [HTTP_PORT [TCP_PORT]]   start in the background, wait until ready,
#                                                          print "ready http=PORT tcp=PORT pid=PID"
#   start-clickhouse.sh stop DIR                           stop what start started
#   start-clickhouse.sh fetch                              fetch and build only; print the two paths:
#                                                          the launcher and libchdb.so
#
# Ports not given (or 0) are picked. Data, log and pid file live in DIR. The library is fetched once
# (178 MB, 566 MB unpacked) into ${XDG_CACHE_HOME:-$HOME/.cache}/chmux and checked against the
# integrity value below before it is used.
set -eu

PACKAGE=@chdb/lib-linux-x64-gnu
VERSION=26.7.3-stable.1
INTEGRITY=sha512-XP97mMqnc5tZpKQywR8N7cLTsHNiTmHr30pC5mzo3jWmukjKn2IBa60c2B/gWUNcuFjOMjWoorQICCqBVj5wpw==

here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/chmux
tarball=$cache/npm/chdb-lib-linux-x64-gnu-$VERSION.tgz
library=$cache/chdb-$VERSION/libchdb.so

fail() {
    echo "start-clickhouse: $*" >&2
    exit 1
}

# Both steps write under a temporary name and rename, so a run that is cut leaves nothing half done.
fetch_library() {
    [ "$(uname -m)" = x86_64 ] || fail "the embedded ClickHouse is pinned for x86_64 only"
    if [ ! -f "$tarball" ]; then
        command -v npm >/dev/null || fail "npm is needed to fetch $PACKAGE"
        tmp=$(mktemp -d "$cache/fetch.XXXXXX")
        echo "start-clickhouse: fetching $PACKAGE $VERSION (178 MB, once)" >&2
        (cd "$tmp" && npm pack --silent "$PACKAGE@$VERSION" >/dev/null) || fail "npm pack failed"
        mkdir -p "$cache/npm"
        mv "$tmp"/*.tgz "$tarball"
        rmdir "$tmp"
    fi
    got=sha512-$(openssl dgst -sha512 -binary "$tarball" | openssl base64 -A)
    if [ "$got" != "$INTEGRITY" ]; then
        mv "$tarball" "$tarball.bad"
        fail "$tarball does not have the pinned integrity value; moved to $tarball.bad"
    fi
    mkdir -p "$cache/chdb-$VERSION"
    tmp=$(mktemp "$cache/chdb-$VERSION/libchdb.XXXXXX")
    tar -xzOf "$tarball" package/libchdb.so >"$tmp"
    chmod 755 "$tmp"
    mv "$tmp" "$library"
}

build_launcher() {
    tmp=$(mktemp "$cache/chserver.XXXXXX")
    "${CC:-cc}" -std=gnu17 -O2 -Wall -Wextra -o "$tmp" "$here/chserver.c" -ldl
    chmod 755 "$tmp"
    mv "$tmp" "$launcher"
}

fetch() {
    mkdir -p "$cache"
    launcher=$cache/chserver-$(openssl dgst -sha256 -r "$here/chserver.c" | cut -c1-16)
    exec 9>"$cache/lock"
    flock 9
    [ -f "$library" ] || fetch_library
    [ -x "$launcher" ] || build_launcher
    exec 9>&-
}

case "${1:-}" in
start)
    [ $# -ge 2 ] || fail "start needs a folder"
    fetch
    mkdir -p "$2"
    exec "$launcher" --lib "$library" --config "$here/clickhouse-26/config.xml" --dir "$2" \
        --http "${3:-0}" --tcp "${4:-0}" --daemon
    ;;
stop)
    [ $# -eq 2 ] || fail "stop needs the folder given to start"
    [ -f "$2/pid" ] || exit 0
    pid=$(cat "$2/pid")
    # The pid file may be older than a reboot: only a chserver is stopped.
    case "$(cat "/proc/$pid/comm" 2>/dev/null || true)" in
    chserver*) ;;
    *)
        rm -f "$2/pid"
        exit 0
        ;;
    esac
    kill "$pid"
    while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
    rm -f "$2/pid"
    ;;
fetch)
    fetch
    echo "$launcher"
    echo "$library"
    ;;
*)
    sed -n '2,12s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
