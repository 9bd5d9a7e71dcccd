"""The seccomp builder: what its filters decide about a call, by an interpreter of classic BPF."""

import errno
import os
import struct
from typing import Any

import pytest

from env_workers.sandbox.seccomp import MACHINES, Condition, compile_filter, seccomp_filter
from env_workers.verifier import seal
from sdpo.errors import SandboxUnavailable

ALLOW, FAIL = 0x7FFF0000, 0x00050000
X86_64, AARCH64 = MACHINES["x86_64"][0], MACHINES["aarch64"][0]


def decide(code: bytes, number: int, *arguments: int, architecture: int = X86_64) -> int:
    """The filter's return value for one call."""
    data = struct.pack("=IIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    position = accumulator = 0
    while True:
        operation, if_true, if_false, value = struct.unpack_from("=HBBI", code, 8 * position)
        position += 1
        if operation == 0x06:
            return int(value)
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, value)
            continue
        holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[operation]
        position += if_true if holds else if_false


def test_sandboxed_programs_are_denied_the_list_and_nothing_else() -> None:
    code = seccomp_filter("x86_64")
    denied = FAIL | errno.ENOSYS
    assert decide(code, 0) == ALLOW  # read
    assert decide(code, 101) == denied  # ptrace
    assert decide(code, 302, 0) == ALLOW  # prlimit of the process itself
    assert decide(code, 302, 1) == denied  # prlimit of PID 1
    assert [decide(code, 41, family) for family in (1, 2, 10, 16)] == [ALLOW] * 4
    assert [decide(code, 41, family) for family in (0, 3, 40)] == [denied] * 3
    assert decide(code, 0x40000000) == denied  # the x32 ABI has other numbers
    assert decide(code, 0, architecture=AARCH64) == denied
    other = seccomp_filter("aarch64")
    assert decide(other, 117, architecture=AARCH64) == denied  # ptrace
    assert decide(other, 101, architecture=AARCH64) == ALLOW


@pytest.mark.parametrize("machine", MACHINES)
def test_the_verifiers_helper_has_what_is_listed_and_may_open_only_for_reading(machine: str) -> None:
    architecture, column = MACHINES[machine]
    read_only = Condition(numbers=seal._OPENAT, argument=2, forbidden_bits=seal._WRITING)
    code = compile_filter(
        seal._ALLOWED.values(), [read_only], error_number=errno.EPERM, allow_listed=True, machine=machine
    )
    allowed = {row[column] for row in seal._ALLOWED.values()}
    opened = seal._OPENAT[column]

    def call(number: int, *arguments: Any) -> int:
        return decide(code, number, *arguments, architecture=architecture)

    for number in set(range(600)) - {opened}:
        assert call(number) == (ALLOW if number in allowed else FAIL | errno.EPERM), number
    assert call(opened, 0, 0, os.O_RDONLY | os.O_CLOEXEC) == ALLOW
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC, os.O_APPEND):
        assert call(opened, 0, 0, flags) == FAIL | errno.EPERM


def test_an_unknown_machine_has_no_filter() -> None:
    with pytest.raises(SandboxUnavailable, match="this machine is vax"):
        seccomp_filter("vax")
