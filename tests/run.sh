#!/usr/bin/env bash
# Installs what the tests need, builds chmux in every way that is tested, and runs everything.
#
#   tests/run.sh                 all stages
#   tests/run.sh --quick         unit tests, lints and corpus replay with gcc, then no more
#   tests/run.sh STAGE...        only these, in this order
#
# Stages:
#   dev         unit tests, lints and corpus replay, built by gcc, warnings are errors
#   clang       the same by clang, with the thread-safety analysis
#   asan        the same with the address and undefined-behaviour sanitizers
#   tsan        the same with the thread sanitizer
#   fuzz        the fuzz targets with libFuzzer, over their corpus
#   system      chmuxd as shipped (release) between real and scripted clients and servers
#   system-asan the part of it marked `san` and not `slow`, on the asan build
#   system-tsan the same on the tsan build, less what is marked `loop`
#   bench       the benchmark's own tools, and that it runs (figures are judged by nobody here)
#
# A stage that fails does not stop the others. The last line is `N passed, N failed, N skipped`, over
# every ctest and pytest test that ran; the exit code is 1 if anything failed. Logs and JUnit files are
# left in build/results/.
set -u

cd "$(dirname "$0")/.." || exit 1
# shellcheck source=tests/deps.sh
. tests/deps.sh

ALL_STAGES="dev clang asan tsan fuzz system system-asan system-tsan bench"
QUICK_STAGES="dev"
results=$PWD/build/results
jobs=$(nproc)
export CTEST_OUTPUT_ON_FAILURE=1 PYTHONDONTWRITEBYTECODE=1

build() {
    cmake --preset "$1" --log-level=WARNING && cmake --build --preset "$1"
}

# ctest_stage STAGE PRESET
ctest_stage() {
    build "$2" || return
    ctest --preset "$2" -j "$jobs" --no-tests=error --output-junit "$results/$1.xml"
}

# A network of its own, so that two pytests at a time cannot meet on a port. Needs root.
own_network=(unshare --net sh -c 'ip link set lo up && exec "$@"' sh)
network=()
if "${own_network[@]}" true 2>/dev/null; then may_share=yes; else may_share=no; fi

# system_build PRESET
system_build() {
    build "$1" && cmake --build --preset "$1" --target codec_cat || return
    venv=$(ensure_venv tests/requirements.txt)
}

# system_stage STAGE PRESET [pytest arguments]
system_stage() {
    local stage=$1 preset=$2 venv
    shift 2
    system_build "$preset" || return
    run_pytest "$stage" "$preset" "$@"
}

run_pytest() {
    local stage=$1 preset=$2
    shift 2
    CHMUXD=$PWD/build/$preset/chmuxd "${network[@]}" "$venv/bin/python" -m pytest -q -ra \
        -p no:cacheprovider --junitxml="$results/$stage.xml" "$@"
}

# half N TESTS...: in the background
half() {
    local half=system-$1
    shift
    run_pytest "$half" release "$@" >"$results/$half.log" 2>&1 || touch "$results/$half.broken"
}

# Much of a system test is waiting, so two halves share the machine.
system_halves() {
    local venv broken
    if [ "$may_share" = no ]; then
        system_stage system release tests/system
        return
    fi
    system_build release || return
    (
        network=("${own_network[@]}")
        half 1 tests/system/test_[a-s]*.py tests/system/test_t[0-9]*.py
    ) &
    half 2 tests/system/test_t_*.py tests/system/test_[u-z]*.py
    wait $!
    broken=$(cd "$results" && ls -- system-[12].broken 2>/dev/null)
    if [ "$broken" = system-1.broken ]; then
        cat "$results/system-2.log" "$results/system-1.log" # what broke comes last
    else
        cat "$results/system-1.log" "$results/system-2.log"
    fi
    [ -z "$broken" ]
}

stage_dev() { ctest_stage dev dev; }
stage_clang() { ctest_stage clang dev-clang; }
stage_asan() { ctest_stage asan asan; }
stage_tsan() { ctest_stage tsan tsan; }
stage_fuzz() { ctest_stage fuzz fuzz; }
stage_system() { system_halves; }
stage_system_asan() { system_stage system-asan asan tests/system -m "san and not slow"; }
stage_system_tsan() { system_stage system-tsan tsan tests/system -m "san and not slow and not loop"; }
stage_bench() { system_stage bench release tests/bench; }

usage() {
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
}

stages=
while [ $# -gt 0 ]; do
    case "$1" in
    --quick) stages="$stages $QUICK_STAGES" ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        case " $ALL_STAGES " in
        *" $1 "*) stages="$stages $1" ;;
        *)
            usage >&2
            die "no such stage: $1"
            ;;
        esac
        ;;
    esac
    shift
done
stages=${stages:-$ALL_STAGES}

packages="$BUILD_PACKAGES $UNIT_PACKAGES"
case "$stages" in
*system* | *bench*)
    packages="$packages $SYSTEM_PACKAGES"
    ensure_npm || die "npm could not be installed"
    ;;
esac
# shellcheck disable=SC2086  # a list of words
ensure_packages $packages || die "the packages could not be installed"

rm -rf "$results"
mkdir -p "$results"

run_stage() {
    local stage=$1 started=$SECONDS rc=0
    "stage_${stage//-/_}" >"$results/$stage.log" 2>&1 || rc=$?
    if [ $rc -ne 0 ]; then
        ls -- "$results/$stage"-[12].broken >/dev/null 2>&1 || touch "$results/$stage.broken"
        tail -n 200 "$results/$stage.log"
    fi
    printf '=== %s: %s, %d s, log in build/results/%s.log\n' "$stage" \
        "$([ $rc -eq 0 ] && echo ok || echo FAILED)" $((SECONDS - started)) "$stage"
}

for stage in $stages; do
    # The two under sanitizers share the machine, too.
    case "$stage $stages " in
    system-asan*" system-tsan "*)
        if [ "$may_share" = yes ]; then
            (
                network=("${own_network[@]}")
                run_stage "$stage"
            ) &
            continue
        fi
        ;;
    esac
    run_stage "$stage"
done
wait
broken=$(cd "$results" && ls -- *.broken 2>/dev/null | sed 's/\.broken$//')
# shellcheck disable=SC2086
exec python3 tests/count_results.py "$results" --broken $broken
