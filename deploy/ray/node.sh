#!/usr/bin/env bash
# Prepares a machine for its role in a Ray cluster, and starts Ray on it. ROLE: head, learner, rollout or env.
#   node.sh setup ROLE              installs the role's packages into ~/sdpo-venv, puts it on PATH; safe to call again
#   node.sh prometheus              starts Prometheus for the head's dashboard, on port 9090; safe to call again
#   node.sh grafana                 starts Grafana in Docker, on port 3000; safe to call again
#   node.sh ray start [OPTION…]     `ray start` with what the role offers: label sdpo-role, on env nodes env_slot
#   SDPO_EXTRAS     more extras of the package on head, learner and rollout nodes, with commas  (default: s3)
#   SDPO_ENV_SLOTS  env slots of an env node                                       (default: its number of CPUs)
set -euo pipefail

source=$(cd "$(dirname "$0")/../.." && pwd)
venv=$HOME/sdpo-venv
role_file=$HOME/.sdpo-role
torch_index=https://download.pytorch.org/whl/cpu
extras=${SDPO_EXTRAS:-s3}
grafana_image=grafana/grafana:12.0.0
die() { printf 'node: %s\n' "$*" >&2; exit 1; }
pip_install() { "$venv/bin/python" -m pip install -q --no-input --disable-pip-version-check "$@"; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

apt_install() {
    as_root apt-get -qq -o DPkg::Lock::Timeout=300 update
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@"
}

make_venv() {
    if [ ! -x "$venv/bin/python" ]; then
        python3 -c 'import ensurepip' 2>/dev/null || apt_install python3 python3-venv
        python3 -m venv "$venv"
    fi
    # The first line, because a .bashrc may end early in a shell without a terminal.
    local line="export PATH=$venv/bin:\$PATH"
    grep -qsxF "$line" "$HOME/.bashrc" && return
    { echo "$line"; cat "$HOME/.bashrc" 2>/dev/null || true; } >"$HOME/.bashrc.new"
    mv "$HOME/.bashrc.new" "$HOME/.bashrc"
}

needs_group() { [ "$(id -u)" != 0 ] && ! id -nG | grep -qw docker; }

# A shell that began before the user was in the group docker gets it by sg.
with_docker() { if needs_group; then sg docker -c "$(printf '%q ' "$@")"; else "$@"; fi; }

ensure_docker() {
    command -v docker >/dev/null || apt_install docker.io debootstrap
    if needs_group; then as_root usermod -aG docker "$(id -un)"; fi
}

setup() {
    make_venv
    case $1 in
        head)
            pip_install torch==2.13.0 --index-url "$torch_index"  # otherwise pip installs CUDA, which a head does not need
            pip_install "$source[train,$extras]"
            ;;
        learner | rollout) pip_install "$source[gpu,$extras]" ;;
        env)
            pip_install "$source"
            ensure_docker
            with_docker "$source/deploy/docker/build.sh"
            ;;
        *) die "role ${1:-missing}: allowed: head, learner, rollout, env" ;;
    esac
    printf '%s\n' "$1" >"$role_file"
}

answers() { "$venv/bin/python" -c 'import socket, sys; socket.create_connection(("127.0.0.1", int(sys.argv[1])), 2)' "$1" 2>/dev/null; }

start_prometheus() {
    if ! command -v prometheus >/dev/null; then
        apt_install prometheus
        as_root systemctl disable --now prometheus prometheus-node-exporter || true  # the system's own configuration
    fi
    answers 9090 && return
    mkdir -p "$HOME/prometheus"
    setsid prometheus --config.file="$source/deploy/monitoring/prometheus.yml" \
        --storage.tsdb.path="$HOME/prometheus/data" --web.listen-address=127.0.0.1:9090 \
        </dev/null >"$HOME/prometheus/log" 2>&1 &
    for _ in $(seq 100); do
        if answers 9090; then return; fi
        sleep 0.2
    done
    tail -n 5 "$HOME/prometheus/log" >&2
    die "Prometheus did not answer at port 9090 within 20 s"
}

start_grafana() {
    ensure_docker
    with_docker docker inspect sdpo-grafana >/dev/null 2>&1 && return
    with_docker docker run --detach --name sdpo-grafana --restart unless-stopped --network host \
        --volume "$source/deploy/monitoring:/monitoring:ro" --volume /tmp/ray:/tmp/ray:ro \
        --env GF_PATHS_CONFIG=/monitoring/grafana.ini --env GF_PATHS_PROVISIONING=/monitoring/provisioning \
        --env GF_SERVER_HTTP_ADDR=127.0.0.1 --env SDPO_BOARDS=/monitoring/boards \
        --env RAY_PROMETHEUS_HOST=http://localhost:9090 "$grafana_image"
}

ray_start() {
    [ -r "$role_file" ] || die "$role_file is missing; run this first: $0 setup ROLE"
    local role offers=()
    role=$(<"$role_file")
    case $role in
        head) offers=(--num-cpus=0 --num-gpus=0) ;;
        env) offers=(--num-gpus=0 --resources="{\"env_slot\": ${SDPO_ENV_SLOTS:-$(nproc)}}") ;;
    esac
    ulimit -n "$(ulimit -Hn)"
    local command=("$venv/bin/ray" start "--labels=sdpo-role=$role" "${offers[@]}" "$@")
    if [ "$role" = env ]; then with_docker "${command[@]}"; else "${command[@]}"; fi
}

case ${1:-} in
    setup) setup "${2:-}" ;;
    prometheus | grafana) "start_$1" ;;
    ray) [ "${2:-}" = start ] || die "ray ${2:-}: allowed: ray start"; ray_start "${@:3}" ;;
    *) die "${1:-no command}: allowed: setup ROLE, prometheus, grafana, ray start" ;;
esac
