"""The attack catalogue: programs that a model might write against its sandbox, its judge or its neighbours.

Each module holds attacks of one sort; `tests.attacks.bench` commits them, `python -m tests.attacks.table` prints them.
"""

from tests.attacks import (
    asserts,
    floods,
    forging,
    kernel,
    language,
    network,
    outliving,
    reading,
    records,
    runner,
    stuck,
)
from tests.attacks.attack import Attack

CATALOGUE: tuple[Attack, ...] = tuple(
    attack
    for module in (floods, stuck, outliving, network, reading, kernel, runner, forging, records, language, asserts)
    for attack in module.ATTACKS
)
assert len({attack.name for attack in CATALOGUE}) == len(CATALOGUE), "two attacks have one name"
