"""What sandboxes of every kind share once their runner answers."""

from collections.abc import Mapping, Sequence
from typing import Any

from env_workers.sandbox.client import RunnerClient, RunnerConversation
from env_workers.sandbox.protocol import Mode
from sdpo.errors import InfrastructureError


class RunnerSandbox:
    """The part of a `Sandbox` that is done through `_client`, which is set while the sandbox lives."""

    _client: RunnerClient | None = None

    def execute(
        self, source: str, calls: Sequence[Mapping[str, Any]], time_limit_s: float, *, shared: bool = False
    ) -> Any:
        """See `Sandbox.execute`."""
        return self._running().execute(source, calls, time_limit_s, shared)

    def converse(
        self, mode: Mode, program: Mapping[str, Any], time_limit_s: float, wall_time_s: float | None = None
    ) -> RunnerConversation:
        """See `Sandbox.converse`."""
        return self._running().converse(mode, program, time_limit_s, wall_time_s)

    @property
    def worn(self) -> bool:
        """See `Sandbox.worn`."""
        return self._running().worn

    @property
    def why_worn(self) -> str:
        """See `Sandbox.why_worn`."""
        return self._running().why_worn

    def _running(self) -> RunnerClient:
        if self._client is None:
            raise InfrastructureError("the sandbox is not running")
        return self._client
