"""The process of one tracker: takes requests from the run over a connection and answers each of them.

Run as `python -m orchestrator.trackers.child KIND FD` by `orchestrator.trackers.process`. What the library prints is in
RUN_DIR/trackers/KIND.log. A connection that ends without `finish` means that the run was killed: the tracked run is
closed as failed, within `CLOSE_S`.
"""

import importlib
import signal
import sys
from multiprocessing.connection import Connection
from typing import Any

from orchestrator.trackers.protocol import Tracker

CLOSE_S = 5


def load(kind: str) -> Tracker:
    """Return the tracker of a key of `record.trackers`: `RunTracker` of the module `to_<key>`."""
    tracker: Tracker = importlib.import_module(f"orchestrator.trackers.to_{kind}").RunTracker()
    return tracker


def serve(kind: str, connection: "Connection[Any, Any]") -> None:
    """Call the tracker's methods as asked, until `finish` was called, the library raised an error or the run is gone.

    A request is the name of a method of `Tracker` and its arguments; an answer is what it raised ("" for nothing) and
    what it returned.
    """
    tracker: Tracker | None = None
    method = ""
    while method != "finish":
        try:
            request = connection.recv()
        except EOFError:
            signal.alarm(CLOSE_S)
            if tracker is not None:
                tracker.finish("failed")
            return
        method, arguments = request[0], request[1:]
        try:
            tracker = tracker or load(kind)
            connection.send(("", getattr(tracker, method)(*arguments)))
        except Exception as error:  # the run switches the tracker off and shows the text
            connection.send((f"{type(error).__name__}: {error}", None))
            return


if __name__ == "__main__":
    serve(sys.argv[1], Connection(int(sys.argv[2])))
