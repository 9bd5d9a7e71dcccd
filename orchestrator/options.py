"""What a role asks of the cluster, as Ray's options of an actor."""

from typing import Any

from sdpo.config.placement import ActorPlacement


def options_of(placement: ActorPlacement) -> dict[str, Any]:
    """Ray's options of an actor that asks for what `placement` says."""
    wanted = placement.request
    options: dict[str, Any] = {"num_cpus": wanted.pop("CPU", 0), "num_gpus": wanted.pop("GPU", 0)}
    if (memory := wanted.pop("memory", None)) is not None:
        options["memory"] = int(memory)
    if placement.label_selector:
        options["label_selector"] = dict(placement.label_selector)
    return options | {"resources": wanted}
