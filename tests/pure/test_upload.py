"""What a job's working directory is, as Ray itself packs it."""

import logging
import shutil
from pathlib import Path
from zipfile import ZipFile

from ray._private.runtime_env.packaging import create_package

from tests.fixtures.run import ROOT

LEFT_BEHIND = (
    "runs/demo/checkpoints/step-000001/rank0.safetensors",
    "elsewhere/checkpoints/step-000001/state.json",
    "runs/demo/report.html",
    "wandb/run-1/files/config.yaml",
    "mlruns/0/meta.yaml",
    ".venv/lib/python3.11/site-packages/torch/__init__.py",
    "venv/bin/python",
    ".mypy_cache/3.11/cache.json",
    "sdpo/__pycache__/types.cpython-311.pyc",
    "sdpo.egg-info/PKG-INFO",
    "docs/pictures/report.png",
    "picture.png",
    "report.html",
    "tests/pure/test_upload.py",
    "benchmarks/figures.json",
    "old.pt",
    ".env",
    "cluster.pem",
    ".git/config",
)
TAKEN_ALONG = (
    "my_environment.py",
    "env/world.py",
    "orchestrator/commands/report/page.html",
    "orchestrator/run_dir/model_card.md.jinja",
    "examples/tinycoder/model/model.safetensors",
    "examples/tinycoder/tasks/train.jsonl",
    "runs.yaml",
)


def packed(folder: Path, package: Path) -> dict[str, int]:
    """Name and bytes of every file that Ray uploads for `folder`."""
    create_package(str(folder), package, include_gitignore=True, logger=logging.getLogger("packing"))
    with ZipFile(package) as archive:
        return {entry.filename: entry.file_size for entry in archive.infolist()}


def test_what_runs_leave_is_not_uploaded_and_what_runs_need_is(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    for name in (*LEFT_BEHIND, *TAKEN_ALONG):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    for name in (".rayignore", ".gitignore"):
        shutil.copy(ROOT / name, folder)
    names = {name for name in packed(folder, tmp_path / "package.zip") if not name.endswith("/")}
    assert names - {".rayignore", ".gitignore"} == set(TAKEN_ALONG)


def test_the_repository_is_a_small_upload(tmp_path: Path) -> None:
    package = tmp_path / "package.zip"
    sizes = packed(ROOT, package)
    assert {"orchestrator/__main__.py", "sdpo/config/run.py", "examples/tinycoder.yaml", "deploy/submit.py"} <= {*sizes}
    assert package.stat().st_size < 8 * 2**20, sorted(sizes.items(), key=lambda item: -item[1])[:10]
    print(f"{len(sizes)} files, {package.stat().st_size / 2**20:.1f} MiB")
