#!/usr/bin/env bash
# Writes the exact pins of the images, gpu.lock, cpu.lock and env.lock beside this script, from pyproject.toml.
# Needs uv and a package index. For Python 3.11 on x86_64, which is what the images have.
set -euo pipefail
cd "$(dirname "$0")"
command -v uv >/dev/null || { echo "make_locks: uv is missing; for example: pip install uv" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The image's build installs the project without build isolation.
echo "setuptools>=77" >"$work/build.in"
# CPU: no CUDA builds of torchvision and others, with which transformers does not import.
for name in torchvision torchaudio torchcodec triton cuda-bindings cuda-toolkit nvidia-cublas nvidia-cudnn-cu13 \
    nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvshmem-cu13; do
    echo "$name; sys_platform == 'never'"
done >"$work/without-cuda.txt"
# The package index of the image's build decides the build of torch.
echo "torch==2.13.0" >>"$work/without-cuda.txt"

lock() { # NAME WORDS [options of uv]
    local name=$1 words=$2
    shift 2
    {
        echo "# $words Made by make_locks.sh; install with \`pip install --no-deps\`."
        uv pip compile --no-config --python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-header \
            --no-annotate --quiet "$@" ../../pyproject.toml "$work/build.in"
    } >"$work/$name.lock"
    mv "$work/$name.lock" "$name.lock"
    echo "make_locks: $name.lock, $(grep -c == "$name.lock") packages"
}
stores=(--extra s3 --extra gcs)
trackers=(--extra wandb --extra mlflow --extra trackio)
lock gpu "Learner, rollout, teacher and head on GPUs." --extra gpu --extra deepspeed "${stores[@]}" "${trackers[@]}"
lock cpu "The same without GPUs." --extra cpu "${stores[@]}" "${trackers[@]}" --override "$work/without-cuda.txt"
lock env "Env workers." "${stores[@]}"
