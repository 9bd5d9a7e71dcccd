"""Machines that `ray up` reaches over ssh: each has its own processes, network, mounts, home and /tmp/ray."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

# What the test's machines would download is written down instead; all else is done by this interpreter.
PYTHON = """#!/bin/bash
if [ "$1 $2" = "-m pip" ]; then shift 2; echo "$@" >>"$HOME/pip.log"; exit; fi
exec {python} "$@"
"""
SSHD = """
ListenAddress {address}
HostKey {folder}/host_key
PidFile none
AuthorizedKeysFile {folder}/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
StrictModes no
UsePAM no
SetEnv SDPO_ENV_SLOTS=2 RAY_USAGE_STATS_ENABLED=0 PYTHONPATH={home}/sdpo
"""


def call(*command: str | Path) -> str:
    """Standard output. Raises `CalledProcessError` if the command fails, `TimeoutExpired` after a minute."""
    return subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True, timeout=60).stdout


def subnet() -> str:
    """The first three numbers of a network that no interface of this machine is in."""
    taken = call("ip", "-o", "-4", "addr")
    return next(f"10.251.{n}" for n in range(os.getpid() % 200, 255) if f"10.251.{n}." not in taken)


@contextmanager
def machines(count: int, folder: Path) -> Iterator[list[str]]:
    """Addresses of `count` machines that let root in by the key `folder/key`; needs root, iproute2 and sshd.

    Nothing of them is left at the end: the death of a machine's first process is the death of all its processes.
    """
    call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key")
    Path("/run/sshd").mkdir(exist_ok=True)
    Path("/tmp/ray").mkdir(exist_ok=True)
    net, bridge = subnet(), f"sdpo{os.getpid()}"
    with ExitStack() as stack:
        call("ip", "link", "add", bridge, "type", "bridge")
        stack.callback(call, "ip", "link", "del", bridge)
        call("ip", "addr", "add", f"{net}.1/24", "dev", bridge)
        call("ip", "link", "set", bridge, "up")
        addresses = [f"{net}.{10 + n}" for n in range(count)]
        for number, address in enumerate(addresses):
            stack.enter_context(machine(f"{bridge}n{number}", address, bridge, folder))
        for address in addresses:
            wait_for_ssh(address, folder)
        yield addresses


@contextmanager
def machine(name: str, address: str, bridge: str, folder: Path) -> Iterator[None]:
    """One of them; its home is `folder/<address>/home`, the log of its sshd `folder/<address>/sshd.log`."""
    own = folder / address
    home = own / "home"
    (home / "sdpo-venv/bin").mkdir(parents=True)
    (own / "ray").mkdir()
    python = home / "sdpo-venv/bin/python"
    python.write_text(PYTHON.format(python=sys.executable))
    python.chmod(0o755)
    (home / "sdpo-venv/bin/ray").symlink_to(Path(sys.executable).parent / "ray")
    call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", own / "host_key")
    shutil.copy(folder / "key.pub", own / "authorized_keys")
    (own / "sshd_config").write_text(SSHD.format(address=address, folder=own, home=home))
    with ExitStack() as stack:
        call("ip", "netns", "add", name)
        stack.callback(call, "ip", "netns", "del", name)
        call("ip", "link", "add", f"v{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
        call("ip", "link", "set", f"v{name}", "master", bridge, "up")
        for words in (
            ["addr", "add", f"{address}/24", "dev", "eth0"],
            ["link", "set", "eth0", "up"],
            ["link", "set", "lo", "up"],
            ["route", "add", "default", "via", address.rpartition(".")[0] + ".1"],
        ):
            call("ip", "-n", name, *words)
        users = Path("/etc/passwd").read_text().splitlines()
        users = [
            re.sub(r":[^:]*(:[^:]*)$", rf":{home}\1", user) if user.startswith("root:") else user for user in users
        ]
        (own / "passwd").write_text("\n".join(users) + "\n")
        mounts = f"mount --bind {own}/ray /tmp/ray; mount --bind {own}/passwd /etc/passwd"
        inside = f"hostname {name}; {mounts}; exec /usr/sbin/sshd -D -e -f {own}/sshd_config"
        spaces = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--uts", "--ipc"]
        with (own / "sshd.log").open("w") as log:
            first = subprocess.Popen(
                ["ip", "netns", "exec", name, *spaces, "bash", "-c", inside], stdout=log, stderr=log
            )
        stack.callback(first.wait, 30)
        stack.callback(first.kill)
        yield


def shell(address: str, folder: Path, command: str) -> str:
    """What a command printed on a machine of `machines(…, folder)`; raises as `call` does."""
    options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=5"]
    return call("ssh", "-i", folder / "key", *options, f"root@{address}", command)


def wait_for_ssh(address: str, folder: Path) -> None:
    """Raises what ssh says when 30 s have passed."""
    ends_s = time.monotonic() + 30
    while True:
        try:
            shell(address, folder, "true")
            return
        except subprocess.CalledProcessError as error:
            if time.monotonic() > ends_s:
                raise RuntimeError(f"{error.stderr}\n{(folder / address / 'sshd.log').read_text()}") from error
            time.sleep(0.2)
