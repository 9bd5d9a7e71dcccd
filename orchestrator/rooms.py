"""The rooms of a fleet: one a member. Whoever replaces a dead actor lives where it lived, as long as that node does."""

from collections.abc import Callable

from orchestrator.room import Reservation, Room
from sdpo.config.placement import ActorPlacement


class Rooms:
    """Reserve with `take`, wait with `find`, give everything back with `close`."""

    def __init__(
        self, namespace: str, placement: ActorPlacement, inside: Callable[[int], tuple[Reservation, int]] | None = None
    ) -> None:
        """`inside(index)`: the reservation and bundle that hold member `index`, where it has none of its own."""
        self._namespace, self._placement, self._inside = namespace, placement, inside
        self._rooms = dict[int, Room]()

    def take(self, name: str) -> Room:
        """The room of the member whose actor is now `name` (`rollout-2`, `rollout-2-r1`): the one it has, or a new one.

        If the node died and Ray does not know yet, Ray itself looks for another one for the reservation.
        """
        index = index_of(name)
        room = self._rooms.get(index)
        if room is not None and not (self._inside is None and room.is_lost()):
            return room
        if room is not None:
            room.give_back()
        inside = None if self._inside is None else self._inside(index)
        self._rooms[index] = Room(f"{self._namespace}/{name}", self._placement, inside)
        return self._rooms[index]

    async def find(self, name: str, timeout_s: float) -> None:
        """Returns when a node has the room of `name`. Raises `InfrastructureError` after `timeout_s`."""
        await self._rooms[index_of(name)].find_within(timeout_s)

    def close(self) -> None:
        """Give back every reservation, and end what lives in it."""
        for room in self._rooms.values():
            room.give_back()
        self._rooms.clear()


def index_of(name: str) -> int:
    """Of a member, from its actor's name: 2 of `rollout-2-r1`."""
    return int(name.split("-")[1])
