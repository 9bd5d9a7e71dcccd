"""What the doctor says of the packages that programs may import."""

from env_workers.sandbox.packages import Package
from orchestrator.commands.doctor.finding import Level
from orchestrator.commands.doctor.packages import Import, judge_packages, packages_checks
from sdpo.config import RunConfig

NUMPY, TINY = Package("numpy", "2.3.5"), Package("tiny")


def test_packages_are_listed_with_slow_imports() -> None:
    imports = [
        Import(package=NUMPY, seconds=0.234),
        Import(package=TINY, seconds=0.01),
        Import(package=Package("late"), failure=None),
    ]
    (found,) = judge_packages("3.11.2", imports)
    assert found.level is Level.OK
    assert found.message == (
        "programs may import, beside the standard library of Python 3.11.2: numpy 2.3.5 (0.23 s), tiny, "
        "late (not tried)"
    )


def test_imports_that_fail_are_a_warning() -> None:
    broken = Import(package=NUMPY, failure="ImportError no module named numpy._core")
    listed, warned = judge_packages("3.11.2", [broken, Import(package=TINY)])
    assert "numpy" not in listed.message
    assert warned.level is Level.WARNING
    assert warned.message == (
        "a program that imports one of these fails: numpy 2.3.5 (ImportError no module named numpy._core)"
    )
    assert "Python 3.11.2" in warned.fix


def test_without_folders_bubblewrap_has_the_standard_library_alone() -> None:
    (check,) = packages_checks(RunConfig())
    assert [found.message for found in check.run()] == ["programs may import the standard library alone"]
