"""Runs one program on the inputs of its tests: in the current process (trusted programs only), or in a sandbox.

An outcome is a JSON mapping with a `status`: returned (value), printed (text), returned_other (type), raised (type,
message, frames), syntax_error (type, message, line, source), memory_limit, output_limit, process_limit, file_limit,
disk_limit, file_size_limit; and, only from a sandbox: timeout, cpu_limit, exited (code), killed (code), garbled,
not_run.
"""

from env_workers.runner.codec import TooLargeError, UnsupportedError, decode, encode
from env_workers.runner.program import Outcome, run_program
from env_workers.runner.stdio import Stdio

__all__ = ["Outcome", "Stdio", "TooLargeError", "UnsupportedError", "decode", "encode", "run_program"]
