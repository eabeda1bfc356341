# Sourced by tests/run.sh and quickstart.sh: what must be installed, and how, on Debian 12. A machine
# that has everything is left alone and no network is used.

# Building chmuxd and chmux.
BUILD_PACKAGES="gcc libc6-dev make cmake ninja-build pkg-config libevent-dev libssl-dev libinih-dev
    zlib1g-dev libzstd-dev liblz4-dev libbrotli-dev libjansson-dev ca-certificates"
# The unit tests and lints: cmocka, clang with its sanitizer runtimes, ctags.
UNIT_PACKAGES="libcmocka-dev zstd lz4 brotli clang libclang-rt-14-dev llvm clang-format universal-ctags binutils mandoc python3"
# The system tests: real servers, proxies and clients (node and npm: ensure_npm; Go, if there is one).
SYSTEM_PACKAGES="python3 python3-venv curl openssl haproxy clickhouse-server clickhouse-client
    php-cli php-curl nginx-light strace chromium-headless-shell systemd systemd-container debootstrap
    zstd dpkg-dev file rpm prometheus mandoc tmux zsh iproute2"

cache=${XDG_CACHE_HOME:-$HOME/.cache}/chmux

note() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
}

die() {
    note "$*"
    exit 1
}

# Prints those of the packages that are not installed.
missing_packages() {
    local package
    for package in "$@"; do
        # The trailing "installed" of the status: a removed package leaves "config-files" behind.
        dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null | grep -q ' installed$' ||
            printf '%s ' "$package"
    done
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        note "root or sudo is needed to run: $*"
        return 1
    fi
}

# Packages that bring a service (clickhouse-server) would start it, on the very port we want: Debian
# asks policy-rc.d first. An existing one is the administrator's and stays as it is.
apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive sh -euc '
        policy=/usr/sbin/policy-rc.d
        if [ ! -e $policy ]; then
            trap "rm -f $policy" EXIT
            trap "exit 1" HUP INT TERM
            printf "#!/bin/sh\nexit 101\n" >$policy
            chmod 755 $policy
        fi
        apt-get update -q
        apt-get install -y -q --no-install-recommends "$@"' sh "$@"
}

# Installs what is missing of the packages given.
ensure_packages() {
    local missing
    command -v dpkg-query >/dev/null ||
        die "this is no Debian, so the packages cannot be checked; these are needed: $*"
    missing=$(missing_packages "$@")
    [ -n "$missing" ] || return 0
    note "installing: $missing"
    # shellcheck disable=SC2086  # a list of words
    apt_install $missing >&2
}

# npm fetches the embedded ClickHouse; any node that is there already will do.
ensure_npm() {
    command -v npm >/dev/null || ensure_packages nodejs npm
}

# A venv for a requirements file, made once per content of the file; prints its folder.
ensure_venv() {
    local requirements=$1 key venv
    key=$( (python3 --version && cat "$requirements") | sha256sum | cut -c1-16)
    venv=$cache/venv-$key
    if [ ! -f "$venv/complete" ]; then
        note "installing Python packages into $venv"
        rm -rf "$venv"
        python3 -m venv "$venv" >&2 &&
            "$venv/bin/pip" install --quiet --requirement "$requirements" >&2 &&
            touch "$venv/complete" || return 1
    fi
    echo "$venv"
}
