#!/usr/bin/env bash
# Build, GPU tests, benches and compute-sanitizer on the CUDA device of this machine, within 10 minutes.
#   bench/gpu.sh [--dry-run] FOLDER     writes log.txt, summary.txt, gpu-loss.* and train-features.* there
# Needs python3 with torch, triton and pytest, and fetches nothing; PYTHON names another interpreter. Each part
# has a time limit of its own and runs whether or not the one before succeeded; SECONDS_IN_ALL (570) bounds
# their sum. The exit code is that of the first that failed. --dry-run takes the same steps without a GPU, as
# far as they go, with small shapes: tests skip, and nothing is worth keeping.
set -u
cd "$(dirname "$0")/.." || exit 2
dry=
if [ "${1-}" = --dry-run ]; then
    dry=--dry-run
    shift
fi
if [ $# -ne 1 ]; then
    echo "usage: bench/gpu.sh [--dry-run] FOLDER" >&2
    exit 2
fi
mkdir -p "$1" || exit 2
out=$(cd "$1" && pwd)
python=${PYTHON:-python3}
ends=$((SECONDS + ${SECONDS_IN_ALL:-570}))
failed=0
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# What is compiled is kept in places that can be written, wherever the home folder lies.
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
export TRITON_CACHE_DIR="$scratch/triton" TORCHINDUCTOR_CACHE_DIR="$scratch/inductor"
: >"$out/log.txt"
: >"$out/summary.txt"

say() {
    echo "$*" | tee -a "$out/summary.txt"
}

# part NAME LIMIT COMMAND...
part() {
    local name=$1 limit=$2 began=$SECONDS left=$((ends - SECONDS)) code=0
    shift 2
    if [ $left -lt 10 ]; then
        say "$name: left out, no time left"
        return 1
    fi
    echo "== $name: $*" >>"$out/log.txt"
    timeout --kill-after=10 $((limit < left ? limit : left)) "$@" >"$scratch/log" 2>&1 || code=$?
    # A tool that repeats itself must not make the log too large to keep.
    tail -c 2000000 "$scratch/log" >>"$out/log.txt"
    case $code in
        0) say "$name: ok, $((SECONDS - began)) s" ;;
        124 | 137) say "$name: FAILED, ran past $limit s or the time left" ;;
        *) say "$name: FAILED with exit code $code, $((SECONDS - began)) s" ;;
    esac
    echo "-- $name" && tail -n 12 "$scratch/log"
    if [ $code -ne 0 ] && [ $failed -eq 0 ]; then
        failed=$code
    fi
    return $code
}

if [ -z "$dry" ]; then
    if ! "$python" -c 'import torch; assert torch.cuda.is_available(), "torch sees no CUDA device"'; then
        say "nothing done: $python sees no CUDA device"
        exit 2
    fi
    part device 20 nvidia-smi
fi

# What it imports: an installation in place; failing that, links that put the folders where one would.
installed() {
    (cd "$scratch" && "$python" -c 'import ttsfast.kernels.launch, ttsfast.losses.module')
}
if [ -n "$dry" ] || ! part build 120 "$python" -m pip install -q --no-deps --no-build-isolation --no-index -e . ||
    ! installed >>"$out/log.txt" 2>&1; then
    [ -n "$dry" ] || part extension 100 "$python" setup.py -q build_ext --inplace
    mkdir -p "$scratch/site/ttsfast"
    ln -s "$PWD"/ttsfast/* "$scratch/site/ttsfast/"
    ln -sfn "$PWD/kernels" "$scratch/site/ttsfast/kernels"
    export PYTHONPATH="$scratch/site${PYTHONPATH:+:$PYTHONPATH}" PYTHONSAFEPATH=1
    say "imports: through links, without installation"
fi
part imports 60 "$python" -c '
import sys, torch, triton, ttsfast, ttsfast.kernels, ttsfast.losses.module
from ttsfast import native
print("python", sys.version.split()[0], "torch", torch.__version__, "triton", triton.__version__)
print("ttsfast", ttsfast.__file__, ttsfast.kernels.__file__, "extension:", native.core is not None)'

# One step of every term before all else: what fails here fails everywhere.
part small 90 "$python" bench/gpu_small.py $dry

# Every test compiles kernels of its own, so several processes share the work. A test that hangs ends its own
# process alone, by name: nothing else interrupts one that waits for a device. Some need packages that only
# audio, commands or property tests use: what fails to import without them must not cost the others.
options=(-q -p no:cacheprovider --continue-on-collection-errors)
if "$python" -c 'import pytest_timeout' 2>/dev/null; then
    options+=(--timeout 120 --timeout-method thread)
fi
workers=()
if "$python" -c 'import xdist' 2>/dev/null; then
    workers=(-n "$([ -n "$dry" ] && echo 2 || echo 12)" --dist worksteal)
fi
part tests 190 env TORCHINDUCTOR_COMPILE_THREADS=1 "$python" -m pytest -m gpu tests/kernels "${options[@]}" --maxfail=40 "${workers[@]}"

part bench 230 "$python" bench/gpu_loss.py $dry --seconds 200 "$out"
[ -f "$out/gpu-loss.txt" ] && cat "$out/gpu-loss.txt"

# It makes a store of sounds first.
if "$python" -c 'import numpy, soundfile' 2>/dev/null; then
    part train 120 "$python" bench/gpu_train.py $dry --seconds 80 "$out"
else
    say "train: skipped, no soundfile"
fi

others=$(grep -rlE 'mark\.gpu' tests --include='*.py' | grep -v '^tests/kernels/' | tr '\n' ' ')
if [ -n "$others" ]; then
    # shellcheck disable=SC2086
    part others 60 "$python" -m pytest -m gpu $others "${options[@]}"
fi
part host 40 "$python" bench/gpu_host.py --rounds 1000

if [ -n "$dry" ]; then
    say "memcheck, racecheck: left out of a dry run"
elif command -v compute-sanitizer >/dev/null; then
    # One allocation for each tensor, so that what lies past its end is nobody's. torch asks the driver for what
    # it may not have and goes on without: that is no error of memory.
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 part memcheck 70 \
        compute-sanitizer --tool memcheck --report-api-errors no --error-exitcode 9 "$python" bench/gpu_small.py
    part racecheck 60 compute-sanitizer --tool racecheck --error-exitcode 9 "$python" bench/gpu_small.py
else
    say "memcheck, racecheck: skipped, no compute-sanitizer on the PATH"
fi
echo "== summary" && cat "$out/summary.txt"
exit $failed
