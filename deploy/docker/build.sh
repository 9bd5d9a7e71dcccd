#!/usr/bin/env bash
# Builds the image of the docker and gvisor sandboxes. Safe to call again: unchanged layers are not built anew.
#   SDPO_IMAGE  name of the image  (default: sdpo-env:latest)
#   SDPO_BASE   its base, pulled by the engine where it does not have it; unset: sdpo-base:bookworm, which is made by
#               make_base.sh where the engine does not have it
set -euo pipefail
cd "$(dirname "$0")"

image=${SDPO_IMAGE:-sdpo-env:latest}
base=${SDPO_BASE:-sdpo-base:bookworm}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
die() { printf 'build: %s\n' "$*" >&2; exit 1; }

command -v docker >/dev/null || die "the docker command is missing; for example: apt-get install docker.io"
docker version --format '{{.Server.Version}}' >/dev/null 2>&1 ||
    die "no Docker engine answers at ${DOCKER_HOST:-its default address}; start one, for example with deploy/docker/start_engine.sh"
if [ -z "${SDPO_BASE:-}" ] && ! docker image inspect "$base" >/dev/null 2>&1; then
    ./make_base.sh
fi
# The classic builder is in every engine; buildx is not. The build context is empty.
DOCKER_BUILDKIT=0 docker build --quiet --network none --build-arg BASE="$base" -t "$image" - <env.Dockerfile >/dev/null 2>"$log" || {
    cat "$log" >&2
    die "the image could not be built"
}
printf 'build: %s from %s\n' "$image" "$base"
