#!/usr/bin/env bash
# All tests, in several processes at a time: whole runs, which mostly wait, beside everything else.
# Arguments go to all of them. Fails if one fails.
set -uo pipefail
cd "$(dirname "$0")/.."
pytest=("${PYTHON:-.venv/bin/python}" -m pytest --durations=15 "$@")
of=tests/integration/test_
lanes=( # of about equal length
    "${of}restart.py ${of}bad_input.py ${of}objectives.py ${of}eval.py ${of}jobs.py ${of}ray_cloud.py ${of}ray_up.py ${of}slurm.py"
    "${of}run.py ${of}collapse.py ${of}recorded_run.py ${of}walkthrough.py ${of}direct_weights.py ${of}docs_tour.py"
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
failed=0 empty=0
for index in "${!lanes[@]}"; do
    wait "${pids[index]}"
    code=$?
    [ "$code" = 5 ] && empty=$((empty + 1)) && continue # none of its tests was asked for
    [ "$code" = 0 ] || { failed=1; echo "failed: ${lanes[index]}"; }
done
wait "$shown"
for index in "${!lanes[@]}"; do
    [ "$index" = "$last" ] || cat "$logs/$index"
done
[ "$empty" -lt ${#lanes[@]} ] || { echo "no test was asked for"; failed=1; }
exit "$failed"
