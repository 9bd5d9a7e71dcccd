"""What an env-worker node and the config import: neither torch, vllm, transformers, docker nor reasoning_gym."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IMPORTED_ON_DEMAND = (
    *(f"env_workers.sandbox.{name}" for name in ("docker", "engine", "janitor")),
    "env_workers.verifier.reasoning_checks",
)
"""Modules that are imported only where a Docker engine or the package reasoning-gym is used."""


@pytest.mark.parametrize("package", ["sdpo.config", "sdpo.objectives", "sdpo.types", "sdpo.errors", "env_workers"])
def test_imports_without_the_heavy_packages(package):
    """Every module of the package imports in a process in which torch, vllm, transformers, docker and reasoning_gym
    cannot be imported, but for IMPORTED_ON_DEMAND."""
    program = f"""
import importlib, pkgutil, sys
for name in ("torch", "vllm", "transformers", "docker", "reasoning_gym"):
    sys.modules[name] = None
package = importlib.import_module({package!r})
for module in pkgutil.walk_packages(getattr(package, "__path__", []), {package!r} + "."):
    if not module.name.endswith("__main__") and module.name not in {IMPORTED_ON_DEMAND!r}:
        importlib.import_module(module.name)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_laptop_submits_with_ray_alone():
    """`deploy/submit.py` imports where of the core packages only ray and pydantic are installed."""
    program = """
import sys
for name in ("numpy", "torch", "vllm", "transformers", "docker", "pyarrow", "prometheus_client", "safetensors"):
    sys.modules[name] = None
import deploy.submit
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "nope.yaml"),
        ("generate", "nope.yaml", "out"),
        ("tasks", "nope.yaml"),
        ("preview", "nope.yaml"),
        ("doctor", "nope.yaml"),
        ("train", "{bad}", "steps=x"),
    ],
)
def test_a_run_file_that_is_refused_waits_for_no_heavy_import(arguments: tuple[str, ...]) -> None:
    words = [str(ROOT / "examples/tinycoder.yaml") if word == "{bad}" else word for word in arguments]
    program = f"""
import sys
for name in ("ray", "torch", "vllm", "transformers", "pyarrow", "scipy"):
    sys.modules[name] = None
from orchestrator.cli import main
sys.exit(main({words!r}))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
