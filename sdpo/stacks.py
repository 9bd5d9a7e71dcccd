"""Stacks on demand: every actor calls `answer_stack_requests` when it is made."""

import faulthandler
import signal

REQUEST = signal.SIGUSR2


def answer_stack_requests() -> None:
    """From now on SIGUSR2 makes this process write the stacks of all its threads to stderr, and go on."""
    faulthandler.register(REQUEST, all_threads=True)
