"""Ray of a run's own on a busy machine: its start is tried again when only Ray's fixed limit was too short."""

from typing import Any

import pytest

from orchestrator import ray_session
from orchestrator.ray_session import LOCAL_STARTS, TOO_SLOW
from sdpo.errors import InfrastructureError


@pytest.mark.parametrize(
    ("failures", "message", "starts", "is_up"),
    [
        (LOCAL_STARTS - 1, f"The current node {TOO_SLOW}.", LOCAL_STARTS, True),
        (LOCAL_STARTS, f"The current node {TOO_SLOW}.", LOCAL_STARTS, False),
        (1, "no disk", 1, False),
    ],
)
def test_a_start_that_was_too_slow_is_tried_again(
    failures: int, message: str, starts: int, is_up: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def init(**how: Any) -> None:
        asked.append(how)
        if len(asked) <= failures:
            raise Exception(message)

    monkeypatch.setattr("ray.init", init)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if is_up:
        ray_session._init(tries=LOCAL_STARTS, address="local")
    else:
        with pytest.raises(InfrastructureError, match=f"Ray on this machine did not start or answer: .*{message[-8:]}"):
            ray_session._init(tries=LOCAL_STARTS, address="local")
    assert [how["address"] for how in asked] == ["local"] * starts
