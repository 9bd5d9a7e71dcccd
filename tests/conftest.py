"""Order, environment and shared parts of a test session: cheap tests first, real parts always, nothing downloaded."""

import os
import shutil
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


def _cost(item: pytest.Item) -> tuple[bool, bool]:
    return item.get_closest_marker("slow") is not None, "integration" in item.path.parts


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Unit tests, then integration tests, then slow ones. GPU tests are skipped where there is no GPU."""
    items.sort(key=_cost)
    if shutil.which("nvidia-smi") is None:
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU on this machine"))


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
