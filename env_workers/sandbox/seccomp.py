"""A seccomp filter (classic BPF) for what namespaces and the default filter of an engine leave open.

Denied with ENOSYS: memory that no limit counts (memfd, System V), objects that outlive their process (System V, POSIX
queues, kernel keys), other processes' memory, limits and priority, new namespaces and mounts, and the kernel's largest
attack surfaces. Sockets are of the common families only.
"""

import platform
import struct

from sdpo.errors import SandboxUnavailable

MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_DENIED = {  # name: number on x86_64, on aarch64
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
_PRLIMIT = (302, 261)  # allowed for the calling process only: PID 1 hands its own limits on to later programs
_SOCKET = (41, 198)  # allowed for these families: others reach beyond the network namespace (vsock), or need no program
_FAMILIES = (1, 2, 10, 16)  # unix, IPv4, IPv6, netlink
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER_OFFSET, _ARCHITECTURE_OFFSET, _ARGUMENT_OFFSET = 0, 4, 16
_ALLOW, _ENOSYS = 0x7FFF0000, 0x00050000 | 38
_X32_BIT = 0x40000000


def seccomp_filter(machine: str | None = None) -> bytes:
    """The compiled filter. Raises SandboxUnavailable on a machine whose system call numbers are not known here."""
    machine = machine or platform.machine()
    if machine not in MACHINES:
        raise SandboxUnavailable(f"system calls are filtered on {' and '.join(MACHINES)}; this machine is {machine}")
    architecture, column = MACHINES[machine]
    numbers = [row[column] for row in _DENIED.values()]
    tail = [
        _instruction(_EQUAL, _PRLIMIT[column], if_false=2),
        _instruction(_LOAD, _ARGUMENT_OFFSET),
        _instruction(_EQUAL, 0, if_true=len(_FAMILIES) + 2, if_false=len(_FAMILIES) + 3),
        _instruction(_EQUAL, _SOCKET[column], if_false=len(_FAMILIES) + 1),
        _instruction(_LOAD, _ARGUMENT_OFFSET),
        *(
            _instruction(_EQUAL, family, if_true=len(_FAMILIES) - 1 - i, if_false=i == len(_FAMILIES) - 1)
            for i, family in enumerate(_FAMILIES)
        ),
        _instruction(_RETURN, _ALLOW),
        _instruction(_RETURN, _ENOSYS),
    ]
    # A jump counts the instructions that it skips; the last instruction denies.
    to_end = len(numbers) + len(tail) - 1
    code = [
        _instruction(_LOAD, _ARCHITECTURE_OFFSET),
        _instruction(_EQUAL, architecture, if_false=to_end + 2),
        _instruction(_LOAD, _NUMBER_OFFSET),
        _instruction(_AT_LEAST, _X32_BIT, if_true=to_end),
        *(_instruction(_EQUAL, number, if_true=to_end - 1 - i) for i, number in enumerate(numbers)),
        *tail,
    ]
    return b"".join(code)


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
