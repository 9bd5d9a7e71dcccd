#!/usr/bin/env bash
# All tests, in several processes at a time: whole runs, which mostly wait, beside everything else.
# Arguments go to all of them. Fails if one fails.
set -uo pipefail
cd "$(dirname "$0")/.."
pytest=("${PYTHON:-.venv/bin/python}" -m pytest --durations=15 "$@")
lanes=(  # each lasts about as long as all others together
    "tests/integration/test_restart.py tests/integration/test_bad_input.py"
    "tests/integration/test_run.py tests/integration/test_collapse.py tests/integration/test_recorded_run.py"
)
others="tests/unit tests/integration"
for lane in "${lanes[@]}"; do
    for file in $lane; do others+=" --ignore=$file"; done
done
lanes+=("$others")

logs=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null; rm -rf "$logs"' EXIT
for index in "${!lanes[@]}"; do
    : >"$logs/$index"
    read -ra arguments <<<"${lanes[index]}"
    "${pytest[@]}" "${arguments[@]}" >"$logs/$index" 2>&1 &
    pids+=("$!")
done
last=$((${#lanes[@]} - 1))
tail --follow --lines=+1 --pid="${pids[last]}" "$logs/$last" &
shown=$!
failed=0
for index in "${!lanes[@]}"; do
    wait "${pids[index]}" || { failed=1; echo "failed: ${lanes[index]}"; }
done
wait "$shown"
for index in "${!lanes[@]}"; do
    [ "$index" = "$last" ] || cat "$logs/$index"
done
exit "$failed"
