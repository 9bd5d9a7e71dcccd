"""The lock of a run directory, on a disk and in an object store: never two holders, and none for ever."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.run_dir.run_lock import RunLock
from sdpo.errors import ConfigError, LockLost, StorageError, TransferError
from sdpo.run_layout import LOCK
from sdpo.storage import Store, join_location
from tests.fixtures.s3_server import BUCKET, s3_server

LEASE_S = 3.0


@pytest.fixture(scope="module")
def stores() -> Iterator[dict[str, str]]:
    with s3_server() as server, pytest.MonkeyPatch.context() as patch:
        for key, value in server.environment.items():
            patch.setenv(key, value)
        yield {"s3": f"s3://{BUCKET}"}


@pytest.fixture(params=["disk", "s3"])
def location(request: pytest.FixtureRequest, stores: dict[str, str], tmp_path: Path) -> str:
    return join_location(str(tmp_path) if request.param == "disk" else stores["s3"], tmp_path.name, "run")


def held_elsewhere(location: str, number: int, **changes: Any) -> None:
    """The holder of `number` is a process of another host, as far as one can tell from here."""
    store, name = Store(location), f"{LOCK}/{number:06d}.json"
    holder = json.loads(store.read(name) or b"") | {"machine": "another", "lease_s": LEASE_S} | changes
    store.write(name, json.dumps(holder).encode())


def test_a_live_run_keeps_others_out_and_one_that_ended_does_not(location: str) -> None:
    first = RunLock(location, 3600)
    first.take()
    with pytest.raises(ConfigError, match=r"in use by a live run \(host .*, pid \d+, renewed at "):
        RunLock(location, 3600).take()
    first.check()
    first.release()
    with pytest.raises(LockLost):
        first.check()
    second, began_s = RunLock(location, 3600), time.monotonic()
    second.take()
    assert time.monotonic() - began_s < 60, "it does not watch what was released"
    assert (first.number, second.number) == (0, 2)
    second.release()


def test_a_holder_that_renews_outlives_its_lease(stores: dict[str, str]) -> None:
    lock = RunLock(join_location(stores["s3"], "renewed"), 2.0)
    lock.take()
    time.sleep(2.3)
    lock.check()
    lock.release()


def test_after_a_kill_the_next_start_on_the_host_waits_for_nothing(tmp_path: Path) -> None:
    location = str(tmp_path)
    code = f"from orchestrator.run_dir.run_lock import RunLock; l = RunLock({location!r}, 3600); l.take()"
    code += "; print('held', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError, match=f"pid {killed.pid}"):
            RunLock(location, 3600).take()
        killed.send_signal(signal.SIGKILL)
        killed.wait(30)
    began_s = time.monotonic()
    lock = RunLock(location, 3600)
    lock.take()
    assert time.monotonic() - began_s < 30
    assert lock.number == 2
    lock.release()


def test_another_host_takes_over_what_is_not_renewed_and_the_first_holder_knows(
    location: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two of them at one time: one gets it."""
    lost = RunLock(location, 3600)
    lost.take()
    held_elsewhere(location, 1)
    began_s, others, taken = time.monotonic(), [RunLock(location, LEASE_S) for _ in range(2)], []

    def take(lock: RunLock) -> None:
        try:
            lock.take()
            taken.append(lock)
        except ConfigError:
            pass

    threads = [threading.Thread(target=take, args=(lock,)) for lock in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [lock.number for lock in taken] == [2]
    assert time.monotonic() - began_s > LEASE_S
    assert "last held by host" in capsys.readouterr().out
    lost._lease_s = LEASE_S
    with pytest.raises(LockLost, match="the lock was not renewed within"):
        lost.check()
    lost.release()
    taken[0].check()
    assert Store(location).names(LOCK) == ["000002.json"], "who lost the lock writes nothing"
    taken[0].release()


def test_a_holder_of_another_host_that_renews_is_alive(location: str) -> None:
    first = RunLock(location, 3600)
    first.take()
    held_elsewhere(location, 1, lease_s=12.0)
    renewal = threading.Timer(0.5, held_elsewhere, (location, 1), {"renewals": 9})
    renewal.start()
    began_s = time.monotonic()
    with pytest.raises(ConfigError, match="in use by a live run"):
        RunLock(location, 3600).take()
    assert time.monotonic() - began_s < 30
    renewal.join()
    first.release()


def test_a_holder_that_was_overtaken_learns_it_with_its_next_renewal(tmp_path: Path) -> None:
    lock = RunLock(str(tmp_path), LEASE_S)
    lock.take()
    Store(str(tmp_path)).write(f"{LOCK}/000002.json", b"{}")
    deadline_s = time.monotonic() + 30
    while not lock._taken_over and time.monotonic() < deadline_s:
        time.sleep(0.05)
    with pytest.raises(LockLost, match="another run has taken the lock"):
        lock.check()
    lock.release()


def test_a_store_that_cannot_be_reached_ends_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = RunLock(str(tmp_path), LEASE_S)
    lock.take()

    def away(*_: Any, **__: Any) -> None:
        raise TransferError("s3://there: was not written: no route")

    monkeypatch.setattr(Store, "write", away)
    time.sleep(LEASE_S / 2)
    lock.check()
    time.sleep(LEASE_S)
    with pytest.raises(LockLost, match=r"not renewed within 3 s: s3://there: was not written: no route"):
        lock.check()
    lock.release()


def test_a_store_without_exclusive_creation_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "create", lambda *_: True)
    with pytest.raises(StorageError, match="cannot create a file exclusively"):
        RunLock(str(tmp_path), LEASE_S).take()
