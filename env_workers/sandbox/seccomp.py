"""The one builder of seccomp filters (classic BPF), and the list of what sandboxed programs are denied.

Sandboxed programs are denied, with ENOSYS, what namespaces and an engine's default filter leave open: memory that no
limit counts (memfd, System V), objects that outlive their process (System V, POSIX queues, kernel keys), other
processes' memory, limits and priority, new namespaces and mounts, and the kernel's largest attack surfaces. Sockets are
of the common families only. The verifier's helper process has a list of what is allowed (`env_workers.verifier.seal`).
"""

import errno
import platform
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from sdpo.errors import SandboxUnavailable

Numbers = tuple[int, int]
"""The number of a system call on x86_64 and on aarch64; -1 where the machine does not have the call."""
MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_DENIED: dict[str, Numbers] = {
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "open_by_handle_at": (304, 265),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setattr": (314, 274),
    "sched_setaffinity": (203, 122),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "migrate_pages": (256, 238),
    "move_pages": (317, 239),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
}
_FAMILIES = (1, 2, 10, 16)  # unix, IPv4, IPv6, netlink: others reach beyond the network namespace (vsock)
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_OFFSET, _ARCHITECTURE_OFFSET, _FIRST_ARGUMENT_OFFSET, _ARGUMENT_BYTES = 0, 4, 16, 8
_ALLOW, _FAIL_WITH = 0x7FFF0000, 0x00050000
_X32_BIT = 0x40000000


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A system call that is allowed only for some values of one argument, whatever the list says.

    The lower 32 bits of the argument must equal one of `values`, or, where there are none, have no bit of
    `forbidden_bits`.
    """

    numbers: Numbers
    argument: int
    values: tuple[int, ...] = ()
    forbidden_bits: int = 0

    def instructions(self, column: int, deny: int) -> list[bytes]:
        """Return the code that decides about this call and leaves every other call to the code after it."""
        body = [_instruction(_LOAD, _FIRST_ARGUMENT_OFFSET + _ARGUMENT_BYTES * self.argument)]
        if self.values:
            for value in self.values:
                body += _return_if(_EQUAL, value, _ALLOW)
            body.append(_instruction(_RETURN, deny))
        else:
            body += [*_return_if(_ANY_BIT, self.forbidden_bits, deny), _instruction(_RETURN, _ALLOW)]
        return [_instruction(_EQUAL, self.numbers[column], if_false=len(body)), *body]


_CONDITIONS = (
    Condition(numbers=(302, 261), argument=0, values=(0,)),  # prlimit of itself: programs inherit PID 1's
    Condition(numbers=(41, 198), argument=0, values=_FAMILIES),  # socket
)


def seccomp_filter(machine: str | None = None) -> bytes:
    """Return the compiled filter of sandboxed programs. Raises SandboxUnavailable on an unknown kind of machine."""
    return compile_filter(_DENIED.values(), _CONDITIONS, error_number=errno.ENOSYS, machine=machine)


def compile_filter(
    listed: Iterable[Numbers],
    conditions: Iterable[Condition],
    *,
    error_number: int,
    allow_listed: bool = False,
    machine: str | None = None,
) -> bytes:
    """Return a filter as classic BPF for `machine` (`uname -m`; default: this one).

    It denies the listed calls and allows all others, or with `allow_listed` the other way round; `conditions` come
    first. A denied call fails with `error_number`; so does every call of another architecture and of the x32 ABI.
    Raises SandboxUnavailable on a kind of machine whose system call numbers are not known here.
    """
    machine = machine or platform.machine()
    if machine not in MACHINES:
        raise SandboxUnavailable(f"system calls are filtered on {' and '.join(MACHINES)}; this machine is {machine}")
    architecture, column = MACHINES[machine]
    deny = _FAIL_WITH | error_number
    code = [
        _instruction(_LOAD, _ARCHITECTURE_OFFSET),
        _instruction(_EQUAL, architecture, if_true=1),
        _instruction(_RETURN, deny),
    ]
    for condition in conditions:
        code += [_instruction(_LOAD, _NUMBER_OFFSET), *condition.instructions(column, deny)]
    code += [_instruction(_LOAD, _NUMBER_OFFSET), *_return_if(_AT_LEAST, _X32_BIT, deny)]
    for numbers in listed:
        if numbers[column] >= 0:
            code += _return_if(_EQUAL, numbers[column], _ALLOW if allow_listed else deny)
    return b"".join([*code, _instruction(_RETURN, deny if allow_listed else _ALLOW)])


def _return_if(test: int, value: int, action: int) -> list[bytes]:
    return [_instruction(test, value, if_false=1), _instruction(_RETURN, action)]


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """Encode one instruction; a jump counts the instructions that it skips."""
    return struct.pack("=HBBI", code, if_true, if_false, value)
