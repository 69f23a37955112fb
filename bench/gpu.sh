#!/usr/bin/env bash
# Build, GPU tests, benches and compute-sanitizer on the CUDA device of this machine, within 10 minutes.
#   bench/gpu.sh FOLDER     writes its records there
# Needs python3 with torch, triton and pytest; PYTHON names another interpreter. Each part has a time limit of
# its own and runs whether or not the one before succeeded; the exit code is that of the first that failed.
set -u
cd "$(dirname "$0")/.." || exit 2
if [ $# -ne 1 ]; then
    echo "usage: bench/gpu.sh FOLDER" >&2
    exit 2
fi
mkdir -p "$1" || exit 2
out=$(cd "$1" && pwd)
python=${PYTHON:-python3}
failed=0
export PYTHONUNBUFFERED=1

part() {
    local name=$1 limit=$2
    shift 2
    local began=$SECONDS code
    echo "== $name"
    timeout --kill-after=10 "$limit" "$@" >"$out/$name.log" 2>&1
    code=$?
    echo "$name: exit $code, $((SECONDS - began)) s" | tee -a "$out/summary.txt"
    tail -n 15 "$out/$name.log"
    if [ $code -ne 0 ] && [ $failed -eq 0 ]; then
        failed=$code
    fi
}

: >"$out/summary.txt"
"$python" -c 'import torch; assert torch.cuda.is_available(), "torch sees no CUDA device"' || exit 2
# The extension is optional, and so are the packages that only commands and audio need: nothing is fetched.
part build 120 "$python" -m pip install -q --no-deps --no-build-isolation --no-index -e .
part tests 210 "$python" -m pytest -m gpu tests/kernels -x -q -p no:cacheprovider --timeout=200
part bench 150 "$python" bench/gpu_loss.py "$out"
if command -v compute-sanitizer >/dev/null; then
    part memcheck 60 compute-sanitizer --tool memcheck --error-exitcode 9 "$python" bench/gpu_small.py
    part racecheck 60 compute-sanitizer --tool racecheck --error-exitcode 9 "$python" bench/gpu_small.py
else
    echo "memcheck: skipped, no compute-sanitizer on the PATH" | tee -a "$out/summary.txt"
fi
cat "$out/summary.txt"
exit $failed
