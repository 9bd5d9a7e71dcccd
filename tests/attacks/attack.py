# ruff: noqa: E501 (programs stand on the lines on which they were written)
"""What an attack is, and the few lines that attacking programs share."""

from dataclasses import dataclass
from textwrap import dedent


@dataclass(frozen=True, slots=True)
class Attack:
    """`program` is asked for f(x) = 2 * x (x: 3, 10), or, as a `script`, to print the double of the number on stdin; its
    tests are functional or (`asserts`) assert-style.

    kinds: the verdicts that are right. "passed" stands where the attack is harmless or refused and the program, having
    seen so, answers honestly; a program that got through answers with what it got instead.
    before: a program of another attempt that runs first. shows: a regular expression for the feedback.
    """

    name: str
    program: str
    kinds: tuple[str, ...]
    before: str = ""
    shows: str = ""
    script: bool = False
    asserts: bool = False


HELPERS = '''
import ctypes, errno, os, signal, sys, time
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_NUMBERS = {
    'ptrace': (101, 117), 'process_vm_readv': (310, 270), 'process_vm_writev': (311, 271), 'unshare': (272, 97),
    'setns': (308, 268), 'mount': (165, 40), 'umount2': (166, 39), 'pivot_root': (155, 41), 'clone': (56, 220),
    'clone3': (435, 435), 'keyctl': (250, 219), 'add_key': (248, 217), 'request_key': (249, 218), 'bpf': (321, 280),
    'perf_event_open': (298, 241), 'userfaultfd': (323, 282), 'io_uring_setup': (425, 425), 'shmget': (29, 194),
    'msgget': (68, 186), 'semget': (64, 190), 'mq_open': (240, 180), 'memfd_create': (319, 279), 'reboot': (169, 142),
    'swapon': (167, 224), 'init_module': (175, 105), 'kexec_load': (246, 104), 'open_by_handle_at': (304, 265),
    'sethostname': (170, 161), 'syslog': (103, 116), 'acct': (163, 89), 'settimeofday': (164, 170),
    'pidfd_open': (434, 434), 'pidfd_getfd': (438, 438), 'kcmp': (312, 272), 'move_pages': (279, 239),
    'prlimit64': (302, 261), 'setpriority': (141, 140), 'ioprio_set': (251, 30), 'capset': (126, 91),
    'fsopen': (430, 430), 'open_tree': (428, 428), 'quotactl': (179, 60), 'adjtimex': (159, 171),
    'clock_settime': (227, 112), 'fanotify_init': (300, 262), 'setdomainname': (171, 162), 'chroot': (161, 51),
}
def syscall(name, *arguments):
    ctypes.set_errno(0)
    number = _NUMBERS[name][os.uname().machine == 'aarch64']
    result = _libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
    if result == -1:
        raise OSError(ctypes.get_errno(), name)
    return result
def got_through(refusals, **actions):
    """What was not refused, or was with another error than expected; None when all was well."""
    found = {}
    for name, action in actions.items():
        try:
            found[name] = repr(action())[:40]
        except OSError as error:
            code = errno.errorcode.get(error.errno, type(error).__name__)
            if code not in refusals.split():
                found[name] = code
    return found or None
'''


def program(body: str) -> str:
    """`body` with the shared lines in front."""
    return HELPERS + dedent(body)


DETACHED = """
import os
def detached(action):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            while True:
                action()
        os._exit(0)
    os.wait()
"""
