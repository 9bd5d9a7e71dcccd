"""Starting Ray on a busy machine: it is tried again where only Ray's fixed limit was too short."""

import signal
from typing import Any

import pytest

from orchestrator.cluster.ray_session import LOCAL_STARTS, TOO_SLOW, start_local_ray
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
        start_local_ray()
    else:
        with pytest.raises(InfrastructureError, match=f"Ray on this machine did not start or answer: .*{message[-8:]}"):
            start_local_ray()
    assert [how["address"] for how in asked] == ["local"] * starts


def test_ray_is_started_by_a_process_that_ignores_hangups_for_that_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is started inherits that: a shell that ends does not end Ray under a run that writes its checkpoint."""
    heard = list[object]()
    monkeypatch.setattr("ray.init", lambda **_: heard.append(signal.getsignal(signal.SIGHUP)))
    former = signal.getsignal(signal.SIGHUP)
    start_local_ray()
    assert heard == [signal.SIG_IGN]
    assert signal.getsignal(signal.SIGHUP) == former
