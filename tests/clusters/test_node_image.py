"""The image of env nodes is built, and starts our sandbox with the rights that deploy/kubernetes gives its pods."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "deploy/docker/build_node.sh"
LOCK = ROOT / "deploy/docker/env.lock"

INSIDE = """
import json, os, shutil, subprocess, sysconfig
from importlib.util import find_spec
from pathlib import Path
site = Path(sysconfig.get_path("purelib"))
print(json.dumps({
    "uid": os.getuid(),
    "programs": [shutil.which(name) is not None for name in ("ray", "sdpo", "bwrap", "wget", "pip")],
    "set_uid": subprocess.run(["find", "/", "-xdev", "-type", "f", "-perm", "/6000"], stdout=-1).stdout.decode(),
    "tests": [str(path) for path in site.rglob("tests") if path.is_dir()],
    "heavy": [name for name in ("torch", "vllm", "transformers") if find_spec(name)],
    "room": find_spec("env_workers.worker") is not None,
}))
"""
SANDBOX = """
import os
from env_workers.sandbox.bubblewrap import Bubblewrap
from sdpo.config import BubblewrapSandbox
from sdpo.errors import SandboxUnavailable
assert os.getuid() == 1000
sandbox = Bubblewrap(BubblewrapSandbox())
try:
    print("started", sandbox.start()["kind"])
except SandboxUnavailable as error:
    print("refused", error)
finally:
    sandbox.close()
"""


def call(*command: object, timeout_s: float = 600, **options: object) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=timeout_s, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return str(done.stdout)


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    wheels = tmp_path_factory.mktemp("wheels")
    call(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", wheels, "-r", LOCK)
    if subprocess.run(["docker", "image", "inspect", "sdpo-base:bookworm"], capture_output=True).returncode:
        call(ROOT / "deploy/docker/make_base.sh")
    name = f"sdpo-env-node:test-{os.getpid()}"
    call(
        BUILD,
        "env",
        env=os.environ | {"SDPO_IMAGE": name, "SDPO_BASE": "sdpo-base:bookworm", "SDPO_WHEELS": str(wheels)},
    )
    yield name
    subprocess.run(["docker", "image", "rm", "--force", name], capture_output=True, timeout=120)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_image_of_env_nodes_is_small_and_not_root(image):
    said = json.loads(call("docker", "run", "--rm", "--network", "none", image, "python", "-c", INSIDE))
    assert said == {
        "uid": 1000,
        "programs": [True, True, True, True, False],
        "set_uid": "",
        "tests": [],
        "heavy": [],
        "room": True,
    }
    size = int(call("docker", "image", "inspect", "--format", "{{.Size}}", image))
    assert size < 800e6, f"{size / 1e6:.0f} MB"


@pytest.fixture
def pod(image):
    """A folder for runc with the image's files. Not pytest's: that is closed to others, as root of a pod is one."""
    folder = Path(tempfile.mkdtemp(prefix="sdpo-pod-"))
    folder.chmod(0o755)
    (folder / "rootfs").mkdir()
    made = call("docker", "create", image, "true").strip()
    try:
        call("bash", "-c", f"set -o pipefail; docker export {made} | tar -x -C {folder}/rootfs")
        yield folder
    finally:
        call("docker", "rm", made)
        shutil.rmtree(folder)


def run_in(folder: Path, container: dict, masked: bool) -> str:
    """What containerd makes of a container of a pod with hostUsers: false, by runc."""
    (folder / "config.json").unlink(missing_ok=True)
    call("runc", "spec", cwd=folder)
    config = json.loads((folder / "config.json").read_text())
    kept = list(container["capabilities"].get("add", []))
    config["process"] |= {
        "terminal": False,
        "args": ["/opt/sdpo/bin/python", "-c", SANDBOX],
        "user": {"uid": 1000, "gid": 1000},
        "noNewPrivileges": not container["allowPrivilegeEscalation"],
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted", "ambient"), kept),
        "env": ["PATH=/opt/sdpo/bin:/usr/bin:/bin"],
    }
    config["linux"]["namespaces"].append({"type": "user"})
    for mapping in ("uidMappings", "gidMappings"):
        config["linux"][mapping] = [{"containerID": 0, "hostID": 1_000_000, "size": 65536}]
    if not masked:
        config["linux"] |= {"maskedPaths": [], "readonlyPaths": []}
    (folder / "config.json").write_text(json.dumps(config))
    return call("runc", "--root", folder / "runc", "run", f"{folder.name}-{masked}", cwd=folder)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_bubblewrap_starts_with_the_rights_of_an_env_pod(pod):
    groups = yaml.safe_load((ROOT / "deploy/kubernetes/raycluster.yaml").read_text())["spec"]["workerGroupSpecs"]
    spec = next(group for group in groups if group["groupName"] == "cpu-env")["template"]["spec"]
    rights = spec["containers"][0]["securityContext"]
    assert spec["hostUsers"] is False
    assert (rights["procMount"], rights["seccompProfile"]) == ("Unmasked", {"type": "Unconfined"})
    assert run_in(pod, rights, masked=False).startswith("started bubblewrap")
    assert run_in(pod, rights, masked=True).startswith("refused"), "then procMount: Unmasked is not needed any more"
