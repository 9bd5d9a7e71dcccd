#!/usr/bin/env bash
# Starts a Docker engine where none answers, for machines and containers without an init system. Needs root and dockerd.
# The engine has no bridge and touches no firewall: sandboxes have no network. Safe to call again.
#   SDPO_DOCKER_LOG  the engine's log  (default: /var/log/sdpo-dockerd.log)
#   SDPO_DOCKERD     more options for dockerd, for example --add-runtime=runsc=/usr/bin/runsc
set -euo pipefail

log=${SDPO_DOCKER_LOG:-/var/log/sdpo-dockerd.log}
timeout_s=60
die() { printf 'start_engine: %s\n' "$*" >&2; exit 1; }
answers() { docker version --format '{{.Server.Version}}' 2>/dev/null; }

command -v docker >/dev/null || die "the docker command is missing; for example: apt-get install docker.io"
if answers >/dev/null; then exit 0; fi
[ -z "${DOCKER_HOST:-}" ] || die "no engine answers at DOCKER_HOST=$DOCKER_HOST; start that one, or unset DOCKER_HOST"
[ "$(id -u)" = 0 ] || die "no engine answers, and only root can start one"
command -v dockerd >/dev/null || die "dockerd is missing; for example: apt-get install docker.io"
# shellcheck disable=SC2086  # several options in one variable
setsid dockerd --bridge=none --iptables=false --ip6tables=false ${SDPO_DOCKERD:-} </dev/null >>"$log" 2>&1 &
for _ in $(seq $((timeout_s * 5))); do
    if version=$(answers); then
        printf 'start_engine: Docker engine %s answers\n' "$version"
        exit 0
    fi
    kill -0 $! 2>/dev/null || break
    sleep 0.2
done
tail -n 5 "$log" >&2
die "dockerd did not answer within $timeout_s s (whole log: $log)"
