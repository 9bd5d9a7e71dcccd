#!/usr/bin/env bash
# Builds the image of a Ray node. Safe to call again: unchanged layers are not built anew.
#   build_node.sh gpu   head, learner, rollout, teacher: sdpo-gpu:<version>       (about 10 GB of packages)
#   build_node.sh cpu   the same without GPUs:           sdpo-cpu:<version>
#   build_node.sh env   env workers:                     sdpo-env-node:<version>
#   SDPO_IMAGE   another name for the image
#   SDPO_BASE    its base, Debian 12 (default: the pinned one of gpu.Dockerfile)
#   SDPO_WHEELS  a folder of wheels, the only source of packages then: for builds that reach no package index, filled by
#                pip wheel --no-deps --wheel-dir FOLDER -r deploy/docker/<gpu|cpu|env>.lock
#   SDPO_NETWORK network of the build's steps (default: the engine's; host where the engine has no bridge)
set -euo pipefail
cd "$(dirname "$0")/../.."
die() { printf 'build_node: %s\n' "$*" >&2; exit 1; }

kind=${1:-}
compiler="gcc libc6-dev python3-dev"
case "$kind" in
    gpu) name=sdpo-gpu ;;
    cpu) name=sdpo-cpu compiler="g++ libc6-dev libnuma1 python3-dev" ;; # vLLM's build for CPUs is linked to libnuma
    env) name=sdpo-env-node compiler="" ;;
    *) die "kind=${kind:-nothing}: allowed: gpu, cpu, env" ;;
esac
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' sdpo/__init__.py)
image=${SDPO_IMAGE:-$name:$version}
docker version --format '{{.Server.Version}}' >/dev/null 2>&1 || die "no Docker engine answers"
options=(--build-arg "LOCK=deploy/docker/$kind.lock" --build-arg "SYSTEM=$compiler")
[ -z "${SDPO_BASE:-}" ] || options+=(--build-arg "BASE=$SDPO_BASE")
[ -z "${SDPO_NETWORK:-}" ] || options+=(--network "$SDPO_NETWORK")
work=$(mktemp -d)
server=
cleanup() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
if [ -n "${SDPO_WHEELS:-}" ]; then
    [ -d "$SDPO_WHEELS" ] || die "SDPO_WHEELS=$SDPO_WHEELS: allowed: a folder of wheels"
    # Served on the loopback of this machine, which a step of the build sees in the host's network only.
    python3 -u -m http.server --bind 127.0.0.1 --directory "$SDPO_WHEELS" 0 >"$work/server" 2>/dev/null &
    server=$!
    for _ in $(seq 100); do
        port=$(sed -n 's/.* port \([0-9]*\) .*/\1/p' "$work/server")
        [ -z "$port" ] || break
        sleep 0.1
    done
    [ -n "$port" ] || die "the folder of wheels could not be served"
    options+=(--network host --build-arg "PIP_FIND_LINKS=http://127.0.0.1:$port/" --build-arg PIP_NO_INDEX=1)
fi
# The classic builder is in every engine; buildx is not.
DOCKER_BUILDKIT=0 docker build "${options[@]}" -f deploy/docker/gpu.Dockerfile -t "$image" . >"$work/log" 2>&1 || {
    tail -n 30 "$work/log" >&2
    die "$image could not be built"
}
printf 'build_node: %s, %s\n' "$image" "$(docker image inspect --format '{{.Size}}' "$image" | awk '{printf "%.0f MB", $1 / 1e6}')"
