"""Environment, tiers and shared fixtures of a test session. Nothing is downloaded."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

os.environ.update(
    HF_HUB_OFFLINE="1",
    RAY_USAGE_STATS_ENABLED="0",
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
    TOKENIZERS_PARALLELISM="false",
    VLLM_LOGGING_LEVEL="WARNING",
    VLLM_NO_USAGE_STATS="1",
)
# Processes that a test starts (Ray workers, engines, commands) import the tree under test.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))


TIERS = ("clusters", "integration", "attacks", "process", "pure")
"""Folders of the tests. Slow tiers start first: with several processes, the short tests fill the time at the end."""


def _tier(item: pytest.Item) -> str:
    return item.path.relative_to(ROOT / "tests").parts[0]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test with its tier and order the tiers. GPU tests are skipped where there is no GPU."""
    for item in items:
        item.add_marker(_tier(item))
    items.sort(key=lambda item: TIERS.index(_tier(item)))
    if shutil.which("nvidia-smi") is None:
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU on this machine"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave the cluster of `ray_cluster` before the tests of a tier without Ray; the tiers with Ray come before."""
    ray = sys.modules.get("ray")
    if _tier(item) in TIERS[TIERS.index("attacks") :] and ray is not None and ray.is_initialized():
        ray.shutdown()


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[str]:
    """A Ray cluster of this process with 8 logical CPUs and 4 env slots; yields its namespace."""
    import ray

    namespace = f"tests-{os.getpid()}"
    ray.init(
        address="local",
        num_cpus=8,
        resources={"env_slot": 4},
        include_dashboard=False,
        namespace=namespace,
        object_store_memory=512 * 2**20,
    )
    yield namespace
    ray.shutdown()


@pytest.fixture(scope="session")
def tinycoder_model() -> Path:
    """The embedded base model's folder. Missing is a failure, not a skip: it is part of the repository."""
    folder = ROOT / "examples/tinycoder/model"
    assert (folder / "model.safetensors").is_file(), f"the embedded model is missing: {folder}"
    return folder
