#!/usr/bin/env bash
# chmux in one command: installs what is missing, builds, starts a real ClickHouse (embedded, on
# loopback, nothing of it is installed) and chmuxd in front of it, and runs a first query through it.
#
#   ./quickstart.sh                              with the embedded ClickHouse
#   ./quickstart.sh --upstream URL[,URL...]      in front of your own server, http:// or https://
#   ./quickstart.sh --stop                       stops what an earlier run started
#
# Ports 8123 (queries) and 8124 (metrics) are used if they are free, others otherwise. For your own
# server CLICKHOUSE_USER and CLICKHOUSE_PASSWORD are used for the first query. Running it again is
# fine: a chmuxd of an earlier run is replaced. Logs and data are in ~/.local/state/chmux/quickstart.
#
# What is missing is installed by apt (with sudo); the embedded ClickHouse (x86-64 only, a download of
# 178 MB) goes to ~/.cache/chmux.
set -eu

cd "$(dirname "$0")"
# shellcheck source=tests/deps.sh
. tests/deps.sh

state=${XDG_STATE_HOME:-$HOME/.local/state}/chmux/quickstart
chmuxd=$PWD/build/release/chmuxd
admin_socket=$state/admin.sock
launcher=tests/rig/start-clickhouse.sh
upstream=
embedded=no
job=start

usage() {
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
}

set_upstream() {
    upstream=$1
    [ -n "$upstream" ] || die "--upstream is empty; it needs a URL, for example https://clickhouse.example:8443"
}

while [ $# -gt 0 ]; do
    case "$1" in
    --upstream)
        [ $# -ge 2 ] || die "--upstream needs a URL, for example https://clickhouse.example:8443"
        set_upstream "$2"
        shift
        ;;
    --upstream=*) set_upstream "${1#*=}" ;;
    --stop) job=stop ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        usage >&2
        die "unknown argument: $1"
        ;;
    esac
    shift
done

# Waits until a command succeeds, at most $1 seconds.
wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $deadline ] || return 1
        sleep 0.1
    done
}

# The pid of the chmuxd of an earlier run; a pid file may be older than a reboot.
running_chmuxd() {
    local pid exe
    pid=$(cat "$state/chmuxd.pid" 2>/dev/null) || return 1
    exe=$(readlink "/proc/$pid/exe" 2>/dev/null) || return 1
    case "$exe" in
    */chmuxd | */chmuxd\ \(deleted\)) echo "$pid" ;;
    *) return 1 ;;
    esac
}

stop_chmuxd() {
    local pid
    if pid=$(running_chmuxd); then
        note "stopping the chmuxd of an earlier run (pid $pid); running queries finish first"
        kill "$pid"
        wait_until 40 not_running "$pid" || die "chmuxd (pid $pid) does not end; see $state/chmuxd.log"
    fi
    rm -f "$state/chmuxd.pid"
}

not_running() {
    ! kill -0 "$1" 2>/dev/null
}

stop_clickhouse() {
    [ ! -d "$state/clickhouse" ] || "$launcher" stop "$state/clickhouse"
    rm -f "$state/clickhouse.ready"
}

interrupted() {
    trap '' INT TERM
    note "interrupted; stopping what was started"
    stop_chmuxd
    [ $embedded = no ] || stop_clickhouse
    exit 130
}

# 127.0.0.1:PORT if nobody listens there, else a port the system picks.
address() {
    if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then
        note "port $1 is taken; another one will do"
        echo 127.0.0.1:0
    else
        echo "127.0.0.1:$1"
    fi
}

build() {
    note "building (release)"
    mkdir -p "$state"
    if ! { cmake --preset release && cmake --build --preset release; } >"$state/build.log" 2>&1; then
        tail -n 30 "$state/build.log" >&2
        die "the build failed; all of it is in $state/build.log"
    fi
}

# Sets upstream.
start_clickhouse() {
    local ready
    ready=$(cat "$state/clickhouse.ready" 2>/dev/null || true)
    upstream=http://127.0.0.1:$(expr "$ready" : '.*http=\([0-9]*\)' || true)
    if [ -n "$ready" ] && curl -fsS -m 2 "$upstream/ping" >/dev/null 2>&1; then
        note "ClickHouse of an earlier run is up: $upstream"
        return
    fi
    stop_clickhouse
    note "starting ClickHouse"
    ready=$("$launcher" start "$state/clickhouse") ||
        die "ClickHouse did not start; see $state/clickhouse/log"
    echo "$ready" >"$state/clickhouse.ready"
    upstream=http://127.0.0.1:$(expr "$ready" : '.*http=\([0-9]*\)')
}

# The address on the start line that begins with $1.
bound() {
    sed -n "s/^chmuxd: $1 on \([^ ]*\).*/\1/p" "$state/chmuxd.out" | head -n 1
}

started_or_ended() {
    { [ -n "$(bound listening)" ] && [ -n "$(bound admin)" ]; } || not_running "$1"
}

# Sets query_at and admin_at.
start_chmuxd() {
    local pid admin
    note "starting chmuxd"
    admin=$(address 8124)
    [ ${#admin_socket} -gt 107 ] || admin=$admin,unix:$admin_socket # no longer name can be bound
    : >"$state/chmuxd.out"
    setsid nohup "$chmuxd" --listen "$(address 8123)" --admin "$admin" \
        --upstream "$upstream" >"$state/chmuxd.out" 2>"$state/chmuxd.log" </dev/null &
    pid=$!
    echo "$pid" >"$state/chmuxd.pid"
    wait_until 10 started_or_ended "$pid" || die "chmuxd does not come up; see $state/chmuxd.log"
    if not_running "$pid"; then
        rm -f "$state/chmuxd.pid"
        cat "$state/chmuxd.log" >&2
        die "chmuxd did not start; it says why above"
    fi
    query_at=http://$(bound listening)
    admin_at=http://$(bound admin)
}

# A header line of a curl config file.
header() {
    local value=${2//\\/\\\\}
    printf 'header = "%s: %s"\n' "$1" "${value//\"/\\\"}"
}

# SQL through chmux; prints the status. The password goes to curl on a pipe, where ps shows nothing.
query() {
    {
        [ -z "${CLICKHOUSE_USER:-}" ] || header X-ClickHouse-User "$CLICKHOUSE_USER"
        [ -z "${CLICKHOUSE_PASSWORD:-}" ] || header X-ClickHouse-Key "$CLICKHOUSE_PASSWORD"
    } | curl -sS -m 30 --config - --data-binary "$1" "$query_at/" -o "$state/answer" -w '%{http_code}'
}

first_query() {
    local status sql="SELECT 'Hello from ClickHouse ' || version() || ', through chmux'"
    status=$(query "$sql") || die "no answer from chmuxd at $query_at; see $state/chmuxd.log"
    printf '\n$ curl %s --data-binary "%s"\n' "$query_at" "$sql"
    cat "$state/answer"
    case "$status" in
    200) ;;
    401 | 403 | 516)
        note "chmux works, but $upstream wants credentials: set CLICKHOUSE_USER and CLICKHOUSE_PASSWORD"
        ;;
    *)
        stop_chmuxd
        die "the query ended with HTTP status $status; why stands above and in $state/chmuxd.log"
        ;;
    esac
}

tell() {
    cat <<END

chmux is up. Point any ClickHouse HTTP client at $query_at instead of
$upstream: the same paths, users and formats, at most 16 connections behind it.

  query     curl '$query_at/?query=SELECT+now()'
  browser   $query_at/play, and chmux itself: $admin_at/
  metrics   curl $admin_at/metrics
  tool      $PWD/build/release/chmux --admin unix:$admin_socket status
  log       tail -f $state/chmuxd.log
  options   $chmuxd --print-config; README.md has the ones most people need
  stop      ./quickstart.sh --stop
END
}

if [ $job = stop ]; then
    stop_chmuxd
    stop_clickhouse
    note "stopped"
    exit 0
fi

# shellcheck disable=SC2086  # a list of words
ensure_packages $BUILD_PACKAGES curl openssl || die "the packages could not be installed"
[ -n "$upstream" ] || ensure_npm || die "npm could not be installed"
build
stop_chmuxd
trap interrupted INT TERM
if [ -z "$upstream" ]; then
    embedded=yes
    start_clickhouse
fi
start_chmuxd
first_query
trap - INT TERM
tell
