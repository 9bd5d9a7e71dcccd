"""Which data sets of reasoning-gym have scorers that compile text, and whether each accepts its own answer.

    python benchmarks/reasoning_scorers.py

Needs the extra `reasoning`. One line for each data set that does something else than score; then the list that
`env_workers.reasoning.REFUSED` must hold. A few minutes.
"""

from collections.abc import Iterator

import reasoning_gym
from reasoning_gym.factory import DATASETS

from env_workers.reasoning import REFUSED, puzzle_verifier
from env_workers.verifier.host import Overrun, Raised, Verifier

ANSWERS = ("1+1", "[1, 2]", "x**2", "__import__('os')", "((((", "abc\ndef", "-3", "1/2", "{'a': 1}")
PARTS_OF_OTHERS = {"composite"}


def findings(verifier: Verifier, name: str) -> Iterator[str]:
    """What answers to the first puzzle of data set `name` bring about, other than a score."""
    key = reasoning_gym.create_dataset(name, size=2, seed=1)[0]["answer"]
    for given in [*([key] if isinstance(key, str) else []), *ANSWERS]:
        request = {"dataset": name, "seed": 1, "size": 2, "config": {}, "index": 0, "given": given}
        try:
            score = verifier.ask(request)["score"]
        except Overrun as error:
            yield error.why
            if error.why == "evaluation":
                return
        except Raised as error:
            yield f"raises {error} at {given!r}"
        else:
            if given == key and score != 1:
                yield f"scores its own answer {score}"


def main() -> None:
    verifier = puzzle_verifier()
    compiling = set(PARTS_OF_OTHERS)
    try:
        for name in sorted(set(DATASETS) - PARTS_OF_OTHERS):
            for finding in findings(verifier, name):
                print(f"{name}: {finding}", flush=True)
                compiling |= {name} if finding == "evaluation" else set()
    finally:
        verifier.close()
    print(f"compile text: {', '.join(sorted(compiling))}; {len(DATASETS) - len(compiling)} of {len(DATASETS)} do not")
    print("as env_workers.reasoning.REFUSED" if compiling == REFUSED else f"REFUSED differs: {compiling ^ REFUSED}")


if __name__ == "__main__":
    main()
