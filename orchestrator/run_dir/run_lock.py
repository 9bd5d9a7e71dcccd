"""The run lock: two live runs never write in one run directory, also on two hosts, on any file system or store.

It is a leased lock: a holder must renew it within `lease_s`, or it is a holder no more. lease/000007.json says who
holds it and how often it was renewed. Only exclusive creation is asked of the store: whichever run creates number
n + 1 holds the lock, and the holder of n has lost it. The number grows with every holder; what a holder writes in a
store carries it, so that a holder that lost the lock never writes over what a later one wrote.

A holder renews its file every sixth of `lease_s`. It holds the lock until `lease_s` after the beginning of its last
renewal that succeeded, by its own clock. A run on another host takes over when it has seen the same content for longer
than that, by its own clock: no two clocks are ever compared, so that they may differ by any amount. On the holder's
host its process is looked at: after a kill the next start need not wait.
"""

import json
import os
import socket
import threading
import time
import uuid
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import psutil

from sdpo.errors import ConfigError, InfrastructureError, LockLost, SdpoError, StorageError
from sdpo.run_layout import LOCK
from sdpo.show import show_error
from sdpo.storage import Store

RENEWALS = 6
"""How often a holder renews the lock within `lease_s`."""
LOOKS = 30
"""How often another host's file is read within `lease_s` while it is watched."""


def _machine() -> str:
    """Return a text that is equal for processes that can see each other, and unique where that cannot be known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"unknown/{uuid.uuid4().hex}"


def _job() -> str:
    """Return the submission id of the Ray job whose driver this process is, "" for a process outside a job."""
    config = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
    return str(config.get("metadata", {}).get("job_submission_id", ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The content of a lock file, by default with this process as the holder.

    `machine`: boot and process namespace, where `pid` and `started` name a process.
    """

    id: str
    lease_s: float
    host: str = field(default_factory=socket.gethostname)
    machine: str = field(default_factory=_machine)
    pid: int = field(default_factory=os.getpid)
    started: float = field(default_factory=lambda: psutil.Process().create_time())
    job: str = field(default_factory=_job)
    renewals: int = 0
    renewed_at: str = ""
    released: bool = False

    @property
    def lives_here(self) -> bool | None:
        """Whether the holder's process is alive; None where it is not a process that this one can see."""
        if self.machine != _machine():
            return None
        try:
            return abs(psutil.Process(self.pid).create_time() - self.started) < 1.0
        except psutil.Error:
            return False

    def __str__(self) -> str:
        job = f", job {self.job}" if self.job else ""
        return f"host {self.host}, pid {self.pid}{job}, renewed at {self.renewed_at}"


class RunLock:
    """The lock of the run directory at `location`, a path or a URI. Call `take`, then `check` before every write."""

    def __init__(self, location: str, lease_s: float) -> None:
        self._location, self._lease_s = location, lease_s
        self._store = Store(location)
        self._me = Holder(id=uuid.uuid4().hex, lease_s=lease_s)
        self._number = 0
        self._held_since_s = 0.0
        self._taken_over = ""
        self._failure = ""
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def number(self) -> int:
        """The number of this holder, larger than that of every earlier one; 0 while the lock is not held."""
        return self._number

    def take(self) -> None:
        """Take the lock, and renew it from now on. Waits for longer than `lease_s` where the last holder ran on another
        host and did not release the lock.

        Raises `ConfigError` while a live run holds it, `StorageError` where the store cannot keep two apart.
        """
        while not self._number:
            number = max(self._numbers(), default=0)
            holder = self._read(number)
            if number and (holder is None or not holder.released):
                self._require_dead(number, holder)
            self._create(number + 1)
        if self._store.create(_name(self._number), _bytes(self._me)):
            raise StorageError(f"{self._location}: the store cannot create a file exclusively, which the lock needs")
        self._store.delete(_name(number) for number in self._numbers() if number < self._number)
        self._thread = threading.Thread(target=self._renew_on, name="sdpo-run-lock", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises `LockLost` if this run no longer holds the lock, or cannot know that it does."""
        if self._taken_over:
            raise LockLost(f"{self._location}: {self._taken_over}; this run must not write there any more")
        if not self._number or _now_s() - self._held_since_s > self._lease_s:
            cause = f": {self._failure}" if self._failure else ""
            raise LockLost(f"{self._location}: the lock was not renewed within {self._lease_s:g} s{cause}")

    def release(self) -> None:
        """Release the lock, so that the next start need not wait. A store that does not answer is no error."""
        if self._thread is None:
            return
        self._ending.set()
        self._thread.join(self._lease_s)
        self._thread = None
        try:
            self.check()
            self._write(released=True)
        except (SdpoError, OSError):  # the lock expires by itself
            pass
        self._number = 0

    def _numbers(self) -> list[int]:
        stems = [name.removesuffix(".json") for name in self._store.names(LOCK)]
        return [int(stem) for stem in stems if stem.isdecimal()]

    def _read(self, number: int) -> Holder | None:
        """Return the holder with a number, None where its file is missing or not complete (yet)."""
        content = self._store.read(_name(number))
        try:
            return Holder(**json.loads(content or b""))
        except (ValueError, TypeError):
            return None

    def _require_dead(self, number: int, holder: Holder | None) -> None:
        """Return when the holder is known to be dead. Raises `ConfigError` if it is alive."""
        alive = holder.lives_here if holder is not None else None
        if alive is None:
            alive = self._is_renewed(number, holder)
        if alive:
            raise ConfigError(f"{self._location}: is in use by a live run ({holder or 'which begins just now'})")

    def _is_renewed(self, number: int, holder: Holder | None) -> bool:
        """Watch the file of a holder on another host for longer than its `lease_s`; return whether it was renewed."""
        lease_s = holder.lease_s if holder is not None else self._lease_s
        watch_s = lease_s * (1 + 1 / RENEWALS)
        began_s, last = time.monotonic(), self._store.read(_name(number))
        print(f"{self._location}: last held by {holder}; free if it does not move for {watch_s:.0f} s", flush=True)
        while time.monotonic() - began_s <= watch_s:
            time.sleep(lease_s / LOOKS)
            now = self._store.read(_name(number))
            if now != last:
                holder = self._read(number)
                return holder is None or not holder.released
        return False

    def _create(self, number: int) -> None:
        began_s = _now_s()
        self._me = replace(self._me, renewed_at=_clock())
        created = self._store.create(_name(number), _bytes(self._me))
        if not created:
            holder = self._read(number)
            created = holder is not None and holder.id == self._me.id
        if created:
            self._number, self._held_since_s = number, began_s

    def _renew_on(self) -> None:
        while not self._ending.wait(self._lease_s / RENEWALS):
            try:
                self.check()
                if max(self._numbers(), default=0) > self._number:
                    self._taken_over = "another run has taken the lock"
                    return
                self._write()
            except LockLost:
                return
            except (InfrastructureError, StorageError, OSError) as error:  # tried again until `lease_s` is over
                self._failure = show_error(error)

    def _write(self, *, released: bool = False) -> None:
        began_s = _now_s()
        self._me = replace(self._me, renewals=self._me.renewals + 1, renewed_at=_clock(), released=released)
        self._store.write(_name(self._number), _bytes(self._me), timeout_s=self._lease_s / 2)
        self._held_since_s, self._failure = began_s, ""


def _name(number: int) -> str:
    return f"{LOCK}/{number:06d}.json"


def _bytes(holder: Holder) -> bytes:
    return json.dumps(asdict(holder), indent=1).encode()


def _clock() -> str:
    """Return the time of day, which only people read."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _now_s() -> float:
    """Return a time in seconds that goes on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
