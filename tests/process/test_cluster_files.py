"""The files of `ray up` against Ray's own schema, and what a node of each role installs and offers."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
RAY = ROOT / "deploy/ray"
NODE = RAY / "node.sh"


def prepared(name: str) -> dict[str, Any]:
    """The file as `ray up` reads it: with the provider's defaults, and checked by Ray; raises what Ray finds wrong."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config: dict[str, Any] = prepare_config(yaml.safe_load((RAY / name).read_text()))
    validate_config(config)
    return config


@pytest.mark.parametrize("name", ["cluster.yaml", "onprem.yaml"])
def test_ray_takes_the_file_and_what_it_sends_to_nodes_exists(name: str) -> None:
    config = prepared(name)
    sources = [source for source in config["file_mounts"].values() if not source.startswith("~")]
    assert all((ROOT / source).exists() for source in sources)
    assert {"sdpo", "env_workers", "learner", "orchestrator", "rollout_workers", "deploy"} < set(sources)
    assert all("node.sh ray start" in config[f"{kind}_start_ray_commands"][-1] for kind in ("head", "worker"))


def test_node_types_of_the_cloud_file() -> None:
    config = prepared("cluster.yaml")
    types = config["available_node_types"]
    head = types.pop(config["head_node_type"])
    assert head["resources"] == {"CPU": 0}, "the head works on nothing"
    assert {name: kind["labels"]["sdpo-role"] for name, kind in types.items()} == {
        "gpu.learner": "learner",
        "gpu.rollout": "rollout",
        "cpu.env": "env",
    }
    assert [name for name, kind in types.items() if "env_slot" in kind["resources"]] == ["cpu.env"]
    assert [name for name, kind in types.items() if "GPU" not in kind["resources"]] == ["cpu.env"]
    assert config["max_workers"] == sum(kind["max_workers"] for kind in types.values())
    for kind in types.values():
        assert kind["worker_setup_commands"][0].endswith(f"node.sh setup {kind['labels']['sdpo-role']}")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home whose Python and Ray write down how they were called."""
    programs = tmp_path / "sdpo-venv/bin"
    programs.mkdir(parents=True)
    for name in ("python", "ray"):
        program = programs / name
        program.write_text(f'#!/bin/bash\nprintf "%s\\n" "$@" >>"$HOME/{name}.log"\n')
        program.chmod(0o755)
    return tmp_path


def node(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`node.sh` with a home of its own."""
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin", "SDPO_ENV_SLOTS": "6"}
    return subprocess.run([NODE, *words], env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(("role", "extras"), [("head", "[train,s3]"), ("learner", "[gpu,s3]"), ("rollout", "[gpu,s3]")])
def test_a_node_installs_what_its_role_needs_and_again(home: Path, role: str, extras: str) -> None:
    for _ in range(2):
        done = node(home, "setup", role)
        assert done.returncode == 0, done.stderr
    assert f"{ROOT}{extras}" in (home / "python.log").read_text().splitlines()
    assert (home / ".bashrc").read_text() == f"export PATH={home}/sdpo-venv/bin:$PATH\n"


@pytest.mark.parametrize(
    ("role", "offers"),
    [
        ("head", ["--labels=sdpo-role=head", "--num-cpus=0", "--num-gpus=0"]),
        ("learner", ["--labels=sdpo-role=learner"]),
        ("env", ["--labels=sdpo-role=env", "--num-gpus=0", '--resources={"env_slot": 6}']),
    ],
)
def test_ray_starts_with_what_the_role_offers(home: Path, role: str, offers: list[str]) -> None:
    (home / ".sdpo-role").write_text(f"{role}\n")
    done = node(home, "ray", "start", "--address=10.0.0.10:6379")
    assert done.returncode == 0, done.stderr
    assert (home / "ray.log").read_text().splitlines() == ["start", *offers, "--address=10.0.0.10:6379"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["setup", "gpu"], "role gpu: allowed: head, learner, rollout, env"),
        (["ray", "start"], "run this first"),
        (["ray", "stop"], "allowed: ray start"),
        ([], "no command: allowed: setup ROLE, prometheus, grafana, ray start"),
    ],
)
def test_node_names_what_is_allowed(home: Path, words: list[str], says: str) -> None:
    done = node(home, *words)
    assert done.returncode == 1
    assert says in done.stderr
