#!/usr/bin/env bash
# The Array API standard's own conformance suite (data-apis/array-api-tests) on each backend: prints a table, and what failed.
#
#     tests/array_api.sh PATH_TO_CHECKOUT [EXAMPLES [BACKEND ...]]
#
# EXAMPLES is the suite's --max-examples (100 by default). The checkout needs its submodule array-api and, in the Python that runs this
# ($PYTHON, or python), pytest, pytest-json-report, hypothesis and ndindex. Logs go to $LOGS (a new temporary folder by default).
# Tests that contradict the standard's own text are in tests/array_api_contradictions.txt, each with the proof; they are run and expected to fail.
set -u
here=$(cd "$(dirname "$0")" && pwd)
suite=${1:?usage: tests/array_api.sh PATH_TO_CHECKOUT [EXAMPLES [BACKEND ...]]}
examples=${2:-100}
shift $(($# < 2 ? $# : 2))
logs=${LOGS:-$(mktemp -d)}
mkdir -p "$logs"
[ -d "$suite/array-api/spec" ] || { echo "$suite has no array-api/spec: git submodule update --init there first" >&2; exit 2; }
export ARRAY_API_TESTS_MODULE=minidl PYTHONPATH="$(dirname "$here")${PYTHONPATH:+:$PYTHONPATH}"
code=0
printf '%-8s %7s %7s %8s %8s %8s\n' backend passed failed skipped expected seconds
for backend in "${@:-numpy numba torch jax}"; do for backend in $backend; do
    start=$SECONDS
    (cd "$suite" && MINIDL_BACKEND=$backend "${PYTHON:-python}" -m pytest -q -p no:cacheprovider -W ignore --tb=short --derandomize --disable-deadline \
        "--max-examples=$examples" --rootdir=. "--xfails-file=$here/array_api_contradictions.txt" array_api_tests) > "$logs/$backend.log" 2>&1
    last=$(tail -n 1 "$logs/$backend.log")
    count() { grep -oE "[0-9]+ $1" <<< "$last" | grep -oE '[0-9]+' || echo 0; }
    printf '%-8s %7s %7s %8s %8s %8s\n' "$backend" "$(count passed)" "$(count failed)" "$(count skipped)" "$(count xfailed)" $((SECONDS - start))
    grep -E '^(FAILED|ERROR) ' "$logs/$backend.log" | sed 's/^/    /' || true
    [[ $last == *passed* ]] || tail -n 3 "$logs/$backend.log" | sed 's/^/    /'
    [[ $last == *passed* && $last != *failed* && $last != *error* ]] || code=1
done; done
echo "logs: $logs"
exit $code
