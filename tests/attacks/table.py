"""Commits every attack in every kind of sandbox and writes what came out.

python -m tests.attacks.table [OUT.md] [--kinds bubblewrap docker]
"""

import argparse
from pathlib import Path

from tests.attacks import CATALOGUE
from tests.attacks.bench import Bench, host
from tests.fixtures.sandbox import KINDS, sandbox_of


def main() -> None:
    """Write the table; ends with 1 when an attack came to something else than it may."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("out", type=Path, nargs="?", default=Path("benchmarks/results/attacks.md"))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    given = parser.parse_args()
    columns = {kind: outcomes(kind) for kind in given.kinds}
    lines = [
        "# Attacks",
        "",
        "What the verdict on each attacking program says, and that nothing of it is left for the next. `passed`: the",
        "program found everything refused, or harmless, and answered honestly; a program that got through would not.",
        "",
        f"| attack | {' | '.join(columns)} |",
        f"|---|{'---|' * len(columns)}",
        *(f"| {attack.name} | {' | '.join(columns[kind][attack.name] for kind in columns)} |" for attack in CATALOGUE),
    ]
    given.out.write_text("\n".join(lines) + "\n")
    bad = [(kind, name) for kind in columns for name, said in columns[kind].items() if said.startswith("**")]
    print(f"{len(CATALOGUE)} attacks, {len(columns)} kinds of sandbox, {len(bad)} holes {bad or ''}: {given.out}")
    raise SystemExit(bool(bad))


def outcomes(kind: str) -> dict[str, str]:
    """Attack -> the kind of its verdict, in bold where that is not right."""
    found = {}
    with host() as target, Bench(sandbox_of(kind), target) as bench:
        for attack in CATALOGUE:
            verdict = bench.commit(attack)
            left, visits = bench.what_is_left(), target.num_visits
            right = verdict.kind in attack.kinds and verdict.success == (verdict.kind == "passed")
            found[attack.name] = verdict.kind
            if not right or left or visits:
                found[attack.name] = (
                    f"**{verdict.kind}{', something is left' * bool(left)}{', got out' * bool(visits)}**"
                )
    return found


if __name__ == "__main__":
    main()
