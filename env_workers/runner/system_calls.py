"""The runner's own filter of system calls, on top of what the engine has. Standard library only."""

import ctypes
import platform

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_INSTRUCTION_BYTES = 8


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]


def enter_filter(programs: dict[str, str]) -> None:
    """Applies the filter of this machine to this process and all that it forks, for good. Raises OSError.

    `programs`: classic BPF in hex by machine (`uname -m`). Needs no-new-privileges.
    """
    code = bytes.fromhex(programs[platform.machine()])
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // _INSTRUCTION_BYTES, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the filter of system calls was refused")
