"""Sets up the logging of a run's processes: lines of `sdpo.log_line` in RUN_DIR/logs/<actor>.log and on stderr.

The driver makes the folder and names it in the environment, which every actor inherits. An actor on a node that does
not see the folder logs to stderr, which Ray keeps on that node.
"""

import logging
import os
import secrets
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from sdpo.errors import RunInterrupted
from sdpo.log_line import PACKAGES, LineFormatter
from sdpo.show import show_error

VARIABLE = "SDPO_LOGS"
"""The environment variable with `<mark>:<folder>`; the mark is what the folder's file `MARK` holds."""
MARK = ".run"
MAX_FILE_BYTES = 8 * 2**20
"""The size at which an actor's file is rotated; one older file is kept, `<actor>.log.1`."""
HARMLESS = {
    "Triton is installed, but doesn't include CPU backend": "vLLM's CPU engine needs no Triton",
    "Triton is not installed. triton-cpu is expected": "as above",
    "Model Runner V2 requires Triton": "as above; the other one does all that is asked of it",
    "The global random seed is set to": "every request brings its own seed",
    "does not officially support disabling chunked prefill": "prompts are not split on purpose: see engine_args",
    "Enforce eager set": "rollout.enforce_eager says so",
    "Inductor compilation was disabled by user settings": "as above",
    "Passing raw prompts to InputProcessor is deprecated": "the version of vLLM is pinned",
    "`torch.distributed.reduce_op` is deprecated": "vLLM looks at every attribute of torch when it is imported",
}
"""Parts of lines that are not logged, and the reason for each."""


def set_up_logging(actor: str | None) -> None:
    """Log under the name `actor` from now on: from INFO into the file, from WARNING to stderr.

    Without a folder everything goes to stderr. Only warnings and errors of libraries are kept. Without a name this
    process is not an actor's, and nothing changes.
    """
    if not actor:
        return
    folder = shared_folder()
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if folder is not None:
        handlers[0].setLevel(logging.WARNING)
        handlers.append(_File(folder / f"{actor}.log"))
    _install(actor, handlers)
    logging.getLogger(__name__).info("process %d on %s", os.getpid(), socket.gethostname())


@contextmanager
def driver_logging(folder: Path) -> Iterator[None]:
    """Inside, the driver and the actors that it makes log into `folder`.

    Warnings still go to the handlers that were there before, or to stderr if there were none. An error that ends the
    run is the last line of the driver's file, and only there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mark, before = secrets.token_hex(8), os.environ.get(VARIABLE)
    (folder / MARK).write_text(mark)
    os.environ[VARIABLE] = f"{mark}:{folder.resolve()}"
    root = logging.getLogger()
    if not root.handlers:
        logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    heard: list[logging.Handler | logging.Logger] = [*root.handlers, *map(logging.getLogger, PACKAGES)]
    levels = [(thing, thing.level) for thing in heard]
    for handler in root.handlers:
        handler.setLevel(max(handler.level, logging.WARNING))
    _let_ours_through()
    file = _File(folder / "orchestrator.log")
    file.setFormatter(LineFormatter("orchestrator"))
    file.addFilter(is_worth_a_line)
    root.addHandler(file)
    try:
        yield
    except Exception as error:
        level = logging.INFO if isinstance(error, RunInterrupted) else logging.ERROR
        message = f"the run ends: {show_error(error)}"
        file.handle(logging.LogRecord("orchestrator", level, __file__, 0, message, None, None))
        raise
    finally:
        root.removeHandler(file)
        file.close()
        for thing, level in levels:
            thing.setLevel(level)
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before


def shared_folder() -> Path | None:
    """Return the folder that the driver named, None if this machine does not see the same one."""
    mark, _, folder = os.environ.get(VARIABLE, "").partition(":")
    file = Path(folder) / MARK
    return file.parent if mark and file.is_file() and file.read_text() == mark else None


def library_config(library: str, actor: str, causes: Path) -> dict[str, Any]:
    """Return a `logging.config.dictConfig` that sends a library's warnings to this process's handlers.

    Processes that the library starts write the same lines to stderr, and the errors that end them to the file `causes`.
    """
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {
            "lines": {"()": "sdpo.logs.relay", "actor": actor},
            "causes": {"()": "sdpo.logs.CauseFile", "file": str(causes)},
        },
        "loggers": {library: {"handlers": ["lines", "causes"], "level": "WARNING", "propagate": False}},
    }


class CauseFile(logging.Handler):
    """Appends the exception of every error that is logged with one to a file, a line each."""

    def __init__(self, file: str) -> None:
        super().__init__(logging.ERROR)
        self._file = Path(file)

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            with self._file.open("a", encoding="utf-8", errors="replace") as lines:
                lines.write(f"{type(error).__name__}: {show_error(error)}\n")


def relay(actor: str) -> logging.Handler:
    """Return the handler of `library_config`."""
    if any(isinstance(handler.formatter, LineFormatter) for handler in logging.getLogger().handlers):
        return _ToRoot()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(actor))
    handler.addFilter(is_worth_a_line)
    return handler


class _ToRoot(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        logging.getLogger().handle(record)


class _File(RotatingFileHandler):
    """A file of bounded size. When it cannot be written, one line says so and the handler is removed."""

    def __init__(self, file: Path) -> None:
        super().__init__(file, maxBytes=MAX_FILE_BYTES, backupCount=1, encoding="utf-8", errors="replace", delay=True)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's name)
        logging.getLogger().removeHandler(self)
        print(f"{self.baseFilename}: no more lines here: {sys.exc_info()[1]}", file=sys.stderr)


def _install(actor: str, handlers: list[logging.Handler]) -> None:
    for handler in handlers:
        handler.setFormatter(LineFormatter(actor))
        handler.addFilter(is_worth_a_line)
        logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.WARNING)
    _let_ours_through()
    logging.captureWarnings(True)


def is_worth_a_line(record: logging.LogRecord) -> bool:
    """Return whether a record is logged: False for known harmless messages."""
    message = record.getMessage()
    return not any(part in message for part in HARMLESS)


def _let_ours_through() -> None:
    for name in PACKAGES:
        logging.getLogger(name).setLevel(logging.INFO)
