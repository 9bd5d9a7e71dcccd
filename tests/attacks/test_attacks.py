"""What a model could write against its sandbox, its judge or its neighbours, each committed through an env worker.

For every attack and every kind of sandbox: no escape, no false success, the verdict names what happened, the worker
serves the next attempt, and that attempt finds nothing of the attack.
"""

import re
from collections.abc import Iterator

import pytest

from sdpo.config.env import SandboxKind
from tests.attacks import CATALOGUE
from tests.attacks.attack import Attack
from tests.attacks.bench import Bench, Host, host
from tests.fixtures.sandbox import docker_engine, sandbox_config, sandbox_kind  # noqa: F401


@pytest.fixture(scope="module")
def target() -> Iterator[Host]:
    with host() as here:
        yield here


@pytest.fixture(scope="module")
def bench(target: Host, sandbox_config: SandboxKind) -> Iterator[Bench]:  # noqa: F811
    with Bench(sandbox_config, target) as bench:
        yield bench


@pytest.mark.parametrize("attack", CATALOGUE, ids=lambda attack: attack.name)
def test_attack(bench: Bench, target: Host, attack: Attack) -> None:
    verdict = bench.commit(attack)
    said = f"{verdict.kind} {verdict.infrastructure_error or ''}\n{verdict.feedback}"
    assert verdict.kind in attack.kinds, said
    assert verdict.success == (verdict.kind == "passed")
    assert (verdict.reward, verdict.infrastructure_error) == (float(verdict.success), None)
    assert verdict.success or verdict.feedback
    assert re.search(attack.shows, verdict.feedback or ""), said
    assert target.num_visits == 0
    assert not bench.what_is_left()
