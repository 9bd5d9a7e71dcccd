"""The Ray namespace of a run's actors: the run's name and its incarnation, which together no other run alive has."""


def run_namespace(name: str, incarnation: int | str) -> str:
    """Return the namespace of one incarnation of a run; of a session without a learner, `incarnation` is a word."""
    return f"{name}-{incarnation}"


def parse_namespace(namespace: str) -> tuple[str, int] | None:
    """Return name and incarnation of a run's namespace, or None for a namespace of another form."""
    name, _, incarnation = namespace.rpartition("-")
    return (name, int(incarnation)) if name and incarnation.isdecimal() else None
