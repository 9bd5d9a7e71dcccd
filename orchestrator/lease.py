"""The lock of a run directory: two live runs never write in one, also on two hosts, on any file system or store.

lease/000007.json holds who runs, and how often it was renewed. Only exclusive creation is asked of the store: whoever
creates number n + 1 holds the lock, and n does not any more. The number grows with every holder; what a holder writes
in a store carries it, so that a holder that lost the lock never writes over what a later one wrote.

A holder renews its file every sixth of `lease_s` and is a holder until `lease_s` after it began its last renewal that
succeeded, by its own clock. Another host takes over when it has seen the same content for longer than that, by its own
clock: no two clocks are ever compared, so that clocks may be skewed as they like. On the host of the holder its process
says whether it lives: after a kill the next start waits for nothing.
"""

import json
import os
import socket
import threading
import time
import uuid
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import psutil

from sdpo.errors import ConfigError, InfrastructureError, LeaseLost, SdpoError, StorageError
from sdpo.show import show_error
from sdpo.storage import Store

FOLDER = "lease"
RENEWALS = 6
"""Of one lease."""
LOOKS = 30
"""How often a lease is looked at while it is watched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """What a lease file says. `machine`: boot and process namespace, where `pid` and `started` mean a process."""

    id: str
    host: str
    machine: str
    pid: int
    started: float
    job: str
    lease_s: float
    renewals: int = 0
    renewed_at: str = ""
    released: bool = False

    @classmethod
    def this_process(cls, lease_s: float) -> "Holder":
        """A new holder."""
        return cls(
            id=uuid.uuid4().hex,
            host=socket.gethostname(),
            machine=_machine(),
            pid=os.getpid(),
            started=psutil.Process().create_time(),
            job=_job(),
            lease_s=lease_s,
        )

    @property
    def lives_here(self) -> bool | None:
        """Whether its process is alive; None where it is not a process that this one can see."""
        if self.machine != _machine():
            return None
        try:
            return abs(psutil.Process(self.pid).create_time() - self.started) < 1.0
        except psutil.Error:
            return False

    def __str__(self) -> str:
        job = f", job {self.job}" if self.job else ""
        return f"host {self.host}, pid {self.pid}{job}, renewed at {self.renewed_at}"


class Lease:
    """The lock of the run directory at `place`, a path or a URI. `take`, then `check` before every write."""

    def __init__(self, place: str, lease_s: float) -> None:
        self._place, self._lease_s = place, lease_s
        self._store = Store(place)
        self._me = Holder.this_process(lease_s)
        self._number = 0
        self._held_since_s = 0.0
        self._taken_over = ""
        self._failure = ""
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def number(self) -> int:
        """Larger than that of every earlier holder; 0 while the lock is not held."""
        return self._number

    def take(self) -> None:
        """Hold the lock, and renew it from now on. Waits for longer than a lease where the last holder was another
        host and did not release it.

        Raises `ConfigError` while a live run holds it, `StorageError` where the store cannot keep two apart.
        """
        while not self._number:
            number, holder = self._newest()
            if number and (holder is None or not holder.released):
                self._refuse_the_living(number, holder)
            self._create(number + 1)
        self._refuse_a_store_without_exclusion()
        self._store.delete(_name(number) for number in self._numbers() if number < self._number)
        self._thread = threading.Thread(target=self._renew_on, name="sdpo-lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises `LeaseLost` if the lock is not held any more, or cannot be known to be."""
        if self._taken_over:
            raise LeaseLost(f"{self._place}: {self._taken_over}; this run must not write there any more")
        if not self._number or _now_s() - self._held_since_s > self._lease_s:
            cause = f": {self._failure}" if self._failure else ""
            raise LeaseLost(f"{self._place}: the lock was not renewed within {self._lease_s:g} s{cause}")

    def release(self) -> None:
        """Give the lock back, as far as the store answers: the next start waits for nothing then."""
        if self._thread is None:
            return
        self._ending.set()
        self._thread.join(self._lease_s)
        self._thread = None
        try:
            self.check()
            self._write(released=True)
        except (SdpoError, OSError):  # it ends by itself
            pass
        self._number = 0

    def _newest(self) -> tuple[int, Holder | None]:
        """The largest number and its holder; None where the file is not whole (yet)."""
        number = max(self._numbers(), default=0)
        return number, self._read(number) if number else None

    def _numbers(self) -> list[int]:
        stems = [name.removesuffix(".json") for name in self._store.names(FOLDER)]
        return [int(stem) for stem in stems if stem.isdecimal()]

    def _read(self, number: int) -> Holder | None:
        content = self._store.read(_name(number))
        try:
            return Holder(**json.loads(content or b""))
        except (ValueError, TypeError):
            return None

    def _refuse_the_living(self, number: int, holder: Holder | None) -> None:
        """Returns when the holder is dead. Raises `ConfigError` if it lives."""
        alive = holder.lives_here if holder is not None else None
        if alive is None:
            alive = self._is_renewed(number, holder)
        if alive:
            raise ConfigError(f"{self._place}: is in use by a live run ({holder or 'which begins just now'})")

    def _is_renewed(self, number: int, holder: Holder | None) -> bool:
        """Watch a holder that cannot be asked for longer than its lease."""
        lease_s = holder.lease_s if holder is not None else self._lease_s
        watch_s = lease_s * (1 + 1 / RENEWALS)
        began_s, last = time.monotonic(), self._store.read(_name(number))
        print(f"{self._place}: last held by {holder}; free if it does not move for {watch_s:.0f} s", flush=True)
        while time.monotonic() - began_s <= watch_s:
            time.sleep(lease_s / LOOKS)
            now = self._store.read(_name(number))
            if now != last:
                released = self._read(number)
                return released is None or not released.released
        return False

    def _create(self, number: int) -> None:
        began_s = _now_s()
        self._me = replace(self._me, renewed_at=_clock())
        created = self._store.create(_name(number), _bytes(self._me))
        if not created:
            found = self._read(number)
            created = found is not None and found.id == self._me.id
        if created:
            self._number, self._held_since_s = number, began_s

    def _refuse_a_store_without_exclusion(self) -> None:
        if self._store.create(_name(self._number), _bytes(self._me)):
            raise StorageError(f"{self._place}: the store cannot create a file exclusively, which the lock needs")

    def _renew_on(self) -> None:
        while not self._ending.wait(self._lease_s / RENEWALS):
            try:
                self.check()
                if max(self._numbers(), default=0) > self._number:
                    self._taken_over = "another run has taken the lock"
                    return
                self._write()
            except LeaseLost:
                return
            except (InfrastructureError, StorageError, OSError) as error:  # tried again until the lease is over
                self._failure = show_error(error)

    def _write(self, *, released: bool = False) -> None:
        began_s = _now_s()
        self._me = replace(self._me, renewals=self._me.renewals + 1, renewed_at=_clock(), released=released)
        self._store.write(_name(self._number), _bytes(self._me), timeout_s=self._lease_s / 2)
        self._held_since_s, self._failure = began_s, ""


def _name(number: int) -> str:
    return f"{FOLDER}/{number:06d}.json"


def _bytes(holder: Holder) -> bytes:
    return json.dumps(asdict(holder), indent=1).encode()


def _clock() -> str:
    """For people only."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _now_s() -> float:
    """Counts on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _machine() -> str:
    """Equal for processes that can see each other; a machine that does not say is like no other."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"unknown/{uuid.uuid4().hex}"


def _job() -> str:
    """The Ray job that this process drives, "" if none was submitted."""
    config = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
    return str(config.get("metadata", {}).get("job_submission_id", ""))
