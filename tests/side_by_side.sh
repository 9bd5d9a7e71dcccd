#!/usr/bin/env bash
# Unit tests beside integration tests, each in a process of its own: what starts engines and whole runs mostly waits.
# Arguments go to both. Prints the unit tests' output last; fails if either fails.
set -uo pipefail
cd "$(dirname "$0")/.."
pytest=("${PYTHON:-.venv/bin/python}" -m pytest --durations=15 "$@")
log=$(mktemp)
trap 'kill "$unit" 2>/dev/null; rm -f "$log"' EXIT
OMP_NUM_THREADS=1 "${pytest[@]}" tests/unit >"$log" 2>&1 &
unit=$!
"${pytest[@]}" tests/integration
integration_code=$?
wait "$unit"
unit_code=$?
cat "$log"
echo "unit tests: exit code $unit_code; integration tests: exit code $integration_code"
[ "$unit_code" = 0 ] && [ "$integration_code" = 0 ]
