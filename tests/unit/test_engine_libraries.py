"""What vLLM's build for CPUs is linked to is looked for before the engine is started."""

import ctypes

import pytest

from rollout_workers.engine import check_libraries
from sdpo.config import RunConfig
from sdpo.errors import InfrastructureError


def test_a_missing_library_is_one_line_with_its_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    on_cpu = RunConfig.model_validate({"placement": {"rollout": {"num_gpus": 0}}})
    check_libraries(on_cpu)

    def load(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", load)
    with pytest.raises(InfrastructureError, match=r"libnuma\.so\.1: cannot open.*apt-get install libnuma1"):
        check_libraries(on_cpu)
    check_libraries(RunConfig.model_validate({"placement": {"rollout": {"num_gpus": 1}}}))
