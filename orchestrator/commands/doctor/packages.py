"""What programs of the run may import, and whether the imports work in its sandbox."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from env_workers.sandbox.packages import Package, import_failure, list_packages
from env_workers.sandbox.pool import make_sandbox
from env_workers.sandbox.renewable import RenewableSandbox
from orchestrator.commands.doctor.finding import Check, Finding, Level
from sdpo.config import BubblewrapSandbox, EnvConfig, RunConfig
from sdpo.errors import InfrastructureError, SandboxUnavailable

GROUP = "Packages"
finding = partial(Finding, GROUP, "imports")
DEADLINE_S = 120.0
TRIALS_S = 60.0
"""Time for importing the packages, one program each; those after it are not tried."""
WORTH_NAMING_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """A package that was imported in the run's sandbox in `seconds`, or why that failed; None: not tried."""

    package: Package
    seconds: float = 0.0
    failure: str | None = ""


def packages_checks(config: RunConfig) -> list[Check]:
    """List what programs of the run may import; nothing where no env worker would start."""
    if not config.samples:
        return []
    return [Check(GROUP, "imports", lambda: look(config.env), deadline_s=DEADLINE_S)]


def look(config: EnvConfig) -> list[Finding]:
    """Start the run's sandbox where there may be packages, and import each. Another check says why none starts."""
    if isinstance(config.sandbox, BubblewrapSandbox) and not config.sandbox.python_path:
        return list(judge_packages("", ()))
    sandbox = RenewableSandbox(lambda: make_sandbox(config, "doctor", "doctor"))
    try:
        sandbox.check()
        imports = [*_try(sandbox, config)]
        return list(judge_packages(str(sandbox.facts["python"]), imports))
    except (SandboxUnavailable, InfrastructureError):
        message = f"what programs may import is not known: no sandbox of kind {config.sandbox.kind} starts here"
        return [finding(Level.NOTE, message)]
    finally:
        sandbox.close()


def _try(sandbox: RenewableSandbox, config: EnvConfig) -> Iterator[Import]:
    """Import each package; a slow one twice, since other checks run at the same time."""
    packages = list_packages(sandbox)
    end = time.monotonic() + TRIALS_S
    for package in packages:
        if time.monotonic() > end:
            yield Import(package=package, failure=None)
            continue
        tried = _import(sandbox, package, config.sandbox.wall_time_s)
        if not tried.failure and tried.seconds > config.time_limit_s:
            tried = _import(sandbox, package, config.sandbox.wall_time_s)
        if not tried.failure and tried.seconds > config.time_limit_s:
            took = f"takes {tried.seconds:.2f} s, more than env.time_limit_s={config.time_limit_s:g}"
            tried = replace(tried, failure=took)
        yield tried


def _import(sandbox: RenewableSandbox, package: Package, time_limit_s: float) -> Import:
    begin = time.monotonic()
    failure = import_failure(sandbox, package.name, time_limit_s)
    return Import(package=package, seconds=time.monotonic() - begin, failure=failure)


def judge_packages(python: str, imports: Sequence[Import]) -> Iterator[Finding]:
    """Judge the imports. `python`: the version of the sandbox's Python."""
    working = [each for each in imports if not each.failure]
    if not working:
        yield finding(Level.OK, "programs may import the standard library alone")
    else:
        listed = ", ".join(f"{each.package}{_duration(each)}" for each in working)
        yield finding(Level.OK, f"programs may import, beside the standard library of Python {python}: {listed}")
    if failing := [f"{each.package} ({each.failure})" for each in imports if each.failure]:
        fix = f"install them for Python {python}, compiled and with all that they need; or raise env.time_limit_s"
        yield finding(Level.WARNING, f"a program that imports one of these fails: {', '.join(failing)}", fix)


def _duration(each: Import) -> str:
    if each.failure is None:
        return " (not tried)"
    return f" ({each.seconds:.2f} s)" if each.seconds >= WORTH_NAMING_S else ""
