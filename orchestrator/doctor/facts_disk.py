"""The file systems that a run writes to."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sdpo.config import RunConfig
from sdpo.storage import is_uri
from sdpo.storage_cache import cache_folder

SHM = "/dev/shm"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceFacts:
    """A folder that exists (the nearest one above what is asked for), and its file system in bytes."""

    what: str
    path: str
    free: int
    total: int
    writable: bool
    executable: bool
    device: int


def gather_places(config: RunConfig | None, environ: Mapping[str, str]) -> list[PlaceFacts]:
    """Run directories, Ray's session folder, the folder for temporary files, the model hub's cache, shared memory."""
    place = config.dir if config is not None else RunConfig().dir
    home = Path(environ.get("HOME", "/"))
    hub = environ.get("HF_HOME") or str(home / ".cache/huggingface")
    places = {
        "run directories": str(cache_folder() if is_uri(place) else Path(place).absolute()),
        "Ray's sessions": str(Path(environ.get("RAY_TMPDIR") or "/tmp", "ray")),
        "temporary files": tempfile.gettempdir(),
        "Hugging Face's cache": hub,
        "shared memory": SHM,
    }
    return [_place(what, Path(path)) for what, path in places.items()]


def _place(what: str, path: Path) -> PlaceFacts:
    folder = next(p for p in (path, *path.parents) if p.is_dir())
    about = os.statvfs(folder)
    return PlaceFacts(
        what=what,
        path=str(folder),
        free=about.f_bavail * about.f_frsize,
        total=about.f_blocks * about.f_frsize,
        writable=os.access(folder, os.W_OK),
        executable=not about.f_flag & os.ST_NOEXEC,
        device=os.stat(folder).st_dev,
    )
