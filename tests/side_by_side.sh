#!/usr/bin/env bash
# All tests, in two processes at a time: whole runs, which mostly wait, beside everything else.
# Arguments go to both. Fails if either fails.
set -uo pipefail
cd "$(dirname "$0")/.."
pytest=("${PYTHON:-.venv/bin/python}" -m pytest --durations=15 "$@")
runs=(tests/integration/test_{bad_input,collapse,restart,run}.py)
log=$(mktemp)
trap 'kill "$beside" 2>/dev/null; rm -f "$log"' EXIT
"${pytest[@]}" tests/unit tests/integration "${runs[@]/#/--ignore=}" >"$log" 2>&1 &
beside=$!
"${pytest[@]}" "${runs[@]}"
runs_code=$?
wait "$beside"
beside_code=$?
cat "$log"
echo "whole runs: exit code $runs_code; all other tests: exit code $beside_code"
[ "$runs_code" = 0 ] && [ "$beside_code" = 0 ]
