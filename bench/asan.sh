#!/usr/bin/env bash
# Builds the compiled modules with AddressSanitizer, UndefinedBehaviorSanitizer and the standard library's
# bounds checks, and runs their tests under them. Needs GCC and an installed test environment:
#
#     bench/asan.sh [PYTHON]        (PYTHON: .venv/bin/python unless told)
#
# The build goes to build/asan and leaves the ordinary one alone.
set -euo pipefail
cd "$(dirname "$0")/.."
tests=(
    tests/test_candidates.py
    tests/test_counting.py
    tests/test_augment.py
    tests/test_cpu_kernels.py
    tests/test_recording.py
)
python=${1:-.venv/bin/python}
out=$PWD/build/asan

rm -rf "$out"
CXXFLAGS="-g1 -O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined -D_GLIBCXX_ASSERTIONS" \
LDFLAGS="-fsanitize=address,undefined" \
    "$python" setup.py --quiet build --build-base "$out/base" --build-lib "$out/lib"
for module in "$out"/lib/pnas_fast/*.so; do
    nm -D "$module" | grep __asan_ > /dev/null || { echo "$module has no sanitizer in it" >&2; exit 1; }
done

# The interpreter is not instrumented, so the runtime comes first by hand; its own allocations at exit
# are not ours to judge, hence no leak check. The safe path keeps the checkout's build out.
export LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libstdc++.so)"
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1
export PYTHONSAFEPATH=1 PYTHONPATH=$out/lib PYTHONMALLOC=malloc
found=$("$python" -c 'import pnas_fast; print(pnas_fast.__file__)')
[[ $found == "$out"/* ]] || { echo "tests would load $found" >&2; exit 1; }
exec "$python" -m pytest "${tests[@]}" -q -n auto -k "not instruction_set"  # those start pythons of their own
