"""What vLLM's build for CPUs is linked to is looked for before the engine is started."""

import ctypes
from pathlib import Path

import pytest

from rollout_workers.engine import CAUSES, check_libraries, first_cause, plain_model_path
from sdpo.config import RunConfig
from sdpo.errors import ConfigError, InfrastructureError


def test_a_missing_library_is_one_line_with_its_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    on_cpu = RunConfig.model_validate({"placement": {"rollout": {"num_gpus": 0}}})
    check_libraries(on_cpu)

    def load(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", load)
    with pytest.raises(InfrastructureError, match=r"libnuma\.so\.1: cannot open.*apt-get install libnuma1"):
        check_libraries(on_cpu)
    check_libraries(RunConfig.model_validate({"placement": {"rollout": {"num_gpus": 1}}}))


@pytest.mark.parametrize(
    "name", ["jürgen", "a b", "a'b", 'a"b', "a:b#c", "[x]", "*", "?", "{x}", "$HOME", "日本", "a\\b", "%s"]
)
def test_a_model_folder_of_any_name_has_a_path_that_is_no_pattern(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    path = Path(plain_model_path(str(folder), tmp_path))
    assert path == tmp_path / "weights"
    assert path.resolve() == folder.resolve()


def test_a_plain_model_folder_is_itself_and_a_pattern_as_tmpdir_is_refused(tmp_path: Path) -> None:
    plain, scratch = tmp_path / "Qwen2.5-0.5B_x", tmp_path / "ü"
    assert plain_model_path(str(plain), tmp_path) == str(plain)
    with pytest.raises(ConfigError, match=r"TMPDIR=.*: allowed with model\.path="):
        plain_model_path(str(tmp_path / "jürgen"), scratch)


def test_the_cause_of_a_failed_start_is_that_of_the_engines_own_process(tmp_path: Path) -> None:
    ours = RuntimeError("Engine core initialization failed.\nSee root cause above.")
    assert first_cause(tmp_path, ours) == "RuntimeError: Engine core initialization failed. See root cause above."
    (tmp_path / CAUSES).write_text("ValueError: no memory\nEngineDeadError: a consequence\n")
    assert first_cause(tmp_path, ours) == "ValueError: no memory"
