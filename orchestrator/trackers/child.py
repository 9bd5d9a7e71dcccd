"""The process of one tracker: reads requests from standard input, one JSON object a line, and answers each with one.

What the library prints goes to standard error, which is RUN_DIR/trackers/KIND.log. The end of the input without a
finish means that the run was killed: the tracked run is closed as failed, within `LAST_WORDS_S`.
"""

import json
import os
import signal
import sys
from typing import Any, TextIO

from orchestrator.trackers.protocol import TrackedRun, Tracker

LAST_WORDS_S = 5


def make(kind: str) -> Tracker:
    """The tracker of a key of `record.trackers`."""
    if kind == "wandb":
        from orchestrator.trackers.to_wandb import WandbTracker

        return WandbTracker()
    if kind == "mlflow":
        from orchestrator.trackers.to_mlflow import MlflowTracker

        return MlflowTracker()
    from orchestrator.trackers.to_trackio import TrackioTracker

    return TrackioTracker()


def serve(kind: str, requests: TextIO, replies: TextIO) -> None:
    """Until `finish` was asked or the input ends."""
    tracker: Tracker | None = None
    for line in requests:
        request = json.loads(line)
        try:
            if request["do"] == "start":
                tracker = make(kind)
            assert tracker is not None
            answer = _do(tracker, request)
        except Exception as error:  # whatever the library raises is told to the run, which switches the tracker off
            print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=replies, flush=True)
            return
        print(json.dumps(answer), file=replies, flush=True)
        if request["do"] == "finish":
            return
    signal.alarm(LAST_WORDS_S)
    if tracker is not None:
        tracker.finish("failed")


def _do(tracker: Tracker, request: dict[str, Any]) -> dict[str, Any]:
    if request["do"] == "start":
        return {"id": tracker.start(TrackedRun(**request["run"]))}
    if request["do"] == "log":
        tracker.log(request["step"], request["values"])
    else:
        tracker.finish(request["outcome"])
    return {}


def main(kind: str) -> None:
    """Serve on this process's streams."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(kind, sys.stdin, replies)


if __name__ == "__main__":
    main(sys.argv[1])
