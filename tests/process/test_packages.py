"""Packages that programs may import: of folders in every kind of sandbox, and of the image of a container."""

import io
import json
import shutil
import site
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy
import pytest

from env_workers.environment import AssertProgram, Reply
from env_workers.runner.packages import import_folders
from env_workers.sandbox.engine import connect
from env_workers.sandbox.packages import Package, import_failure, list_packages
from env_workers.sandbox.pool import SandboxPool
from env_workers.worker import EnvWorker
from orchestrator.cli import main
from orchestrator.commands.doctor.packages import look
from sdpo.config import DockerSandbox, EnvConfig, GvisorSandbox
from sdpo.config.env import SandboxKind
from sdpo.config.load import load_run_config
from sdpo.errors import SandboxUnavailable
from sdpo.types import Task, Verdict
from tests.fixtures.run import ROOT
from tests.fixtures.sandbox import IMAGE, KINDS, SandboxedJudge, docker_engine, private_engine, sandbox_of  # noqa: F401

RUN_FILE = str(ROOT / "examples/tinycoder.yaml")
TINY = "def double(x):\n    return 2 * x\n"
USES_TINY = "import tiny\ndef f(x):\n    return tiny.double(x)\n"
USES_NUMPY = "import numpy\ndef f(x):\n    return int((numpy.full((90, 90), x) @ numpy.ones((90, 90)))[0, 0])\n"


def fill(folder: Path) -> Path:
    """A folder of packages: tiny with a version, a module named as one of the standard library, a .pth file, numpy."""
    (folder / "tiny").mkdir()
    (folder / "tiny/__init__.py").write_text(TINY)
    (folder / "tiny-1.5.dist-info").mkdir()
    (folder / "tiny-1.5.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: tiny\nVersion: 1.5\n")
    (folder / "tiny-1.5.dist-info/RECORD").write_text("tiny/__init__.py,,\ntiny-1.5.dist-info/METADATA,,\n")
    (folder / "json.py").write_text("raise RuntimeError('a package shadows the standard library')\n")
    (folder / "start.pth").write_text("import sys; sys.pth_was_read = True\n")
    (folder / "broken.py").write_text("import no_such_module\n")
    installed = Path(numpy.__file__).parents[1]
    for part in (installed / "numpy", installed / "numpy.libs"):
        shutil.copytree(part, folder / part.name, ignore=shutil.ignore_patterns("tests", "*.pyi", "*.a"))
    folder.chmod(0o777)
    (folder / "tiny/__init__.py").chmod(0o666)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("packages"))


@pytest.fixture(scope="module", params=(*KINDS, "gvisor"))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def configure(kind: str, request: pytest.FixtureRequest) -> Callable[..., SandboxKind]:
    """A sandbox config of each kind in turn, with default limits."""
    if kind == "gvisor":
        address = request.getfixturevalue("private_engine").address
        return lambda **options: GvisorSandbox(image=IMAGE, engine=address, **options)
    if kind == "docker":
        request.getfixturevalue("docker_engine")
    return lambda **options: sandbox_of(kind, **options)


@pytest.fixture(scope="module")
def judge(configure: Callable[..., SandboxKind], folder: Path) -> Iterator[SandboxedJudge]:
    judge = SandboxedJudge(configure(python_path=(str(folder),), wall_time_s=30.0))
    judge.pool.check()
    yield judge
    judge.pool.close()


def code_task(*tests: dict[str, Any]) -> Task:
    return Task(id="t", messages=(), environment="code", payload={"tests": list(tests), "time_limit_s": 20.0})


def test_programs_import_them_in_every_kind_of_test(judge: SandboxedJudge) -> None:
    functional = {"kind": "functional", "function": "f", "inputs": [3], "expected": 6}
    assert judge(USES_TINY, code_task(functional, functional)).kind == "passed"
    script = {"kind": "stdin", "input": "4\n", "expected": "8\n"}
    assert judge("import tiny\nprint(tiny.double(int(input())))", code_task(script, script)).kind == "passed"
    asserts = {"kind": "asserts", "entry_point": "f", "check": "def check(f):\n    y = f(3)\n    assert y == 6\n"}
    assert judge(USES_TINY, code_task(asserts)).kind == "passed"


def test_numpy_works_within_the_default_limits(judge: SandboxedJudge) -> None:
    judge.pool.check()
    if str(judge.pool.facts["python"]).split(".")[:2] != numpy_python():
        pytest.skip("the numpy of these tests is for another version of Python")
    assert judge.record(USES_NUMPY, 2, time_limit_s=20.0) == {"status": "returned", "value": 180}
    threads = "import numpy, os\ndef f(x):\n    return len(os.listdir('/proc/self/task'))"
    assert judge.record(threads, time_limit_s=20.0)["value"] == 1


def numpy_python() -> list[str]:
    [built] = Path(numpy.__file__).parent.glob("_core/_multiarray_umath.cpython-*.so")
    tag = built.name.split("-")[1]
    return [tag[0], tag[1:]]


def test_the_standard_library_comes_first_and_pth_files_are_not_read(judge: SandboxedJudge) -> None:
    assert judge.observe("import json\ndef f(x):\n    return json.dumps([1])") == "[1]"
    assert judge.observe("import sys\ndef f(x):\n    return hasattr(sys, 'pth_was_read')") is False


def test_programs_cannot_write_to_the_folder(judge: SandboxedJudge) -> None:
    for path in ("new", "tiny/__init__.py"):
        assert "Read-only file system" in judge.observe(f"def f(x):\n    open('/run/packages/0/{path}', 'a')")


def test_the_trusted_side_of_asserts_imports_none_of_them(judge: SandboxedJudge) -> None:
    source = "try:\n    import tiny\nexcept ImportError:\n    tiny = None\n"
    test = AssertProgram(functions=("f",), source=source, groups=("assert tiny is None", "assert f(2) == 4"))
    records = judge.pool.judge_asserts(USES_TINY, test, 20.0)
    assert [record["status"] for record in records] == ["passed", "passed"]


def test_the_sandbox_lists_them(judge: SandboxedJudge) -> None:
    judge.pool.check()
    listed = list_packages(judge.pool)
    assert Package("tiny", "1.5") in listed
    assert {"broken", "numpy"} <= {package.name for package in listed}
    assert "json" not in {package.name for package in listed}
    assert import_failure(judge.pool, "tiny", 20.0) == ""
    assert "No module named 'no_such_module'" in import_failure(judge.pool, "broken", 20.0)


def test_without_folders_none_are_importable(configure: Callable[..., SandboxKind]) -> None:
    pool = SandboxPool(EnvConfig(sandbox=configure()), "test-1", "env-test")
    try:
        pool.check()
        assert not {"tiny", "numpy"} & {package.name for package in list_packages(pool)}
    finally:
        pool.close()


@pytest.mark.parametrize(
    ("name", "reasons"),
    [("missing", ("no such folder", "does not exist")), ("file", ("not a folder", "Not a directory"))],
)
def test_what_is_no_folder_is_refused_by_name(
    configure: Callable[..., SandboxKind], tmp_path: Path, name: str, reasons: tuple[str, ...]
) -> None:
    (tmp_path / "file").write_text("")
    path = str(tmp_path / name)
    pool = SandboxPool(EnvConfig(sandbox=configure(python_path=(path,))), "test-1", "env-test")
    try:
        with pytest.raises(SandboxUnavailable) as caught:
            pool.check()
    finally:
        pool.close()
    message = str(caught.value)
    assert message.startswith(f"env.sandbox.python_path={path}: ")
    assert any(reason in message for reason in reasons)
    assert "\n" not in message


def test_a_worker_without_the_folder_does_not_start_and_gives_no_verdict(folder: Path, tmp_path: Path) -> None:
    moved = tmp_path / "packages"
    moved.symlink_to(folder)
    worker = EnvWorker(EnvConfig(sandbox=sandbox_of("bubblewrap", python_path=(str(moved),))), "env-0", "test-1")
    case = code_task({"kind": "functional", "function": "f", "inputs": [3], "expected": 6})
    try:
        moved.unlink()
        with pytest.raises(SandboxUnavailable, match="no such folder on "):
            worker.ready()
        lost = worker.step("a", case, (), Reply(text=f"```python\n{USES_TINY}```"))
        assert isinstance(lost, Verdict)
        assert lost.reward is None
        assert "no such folder" in str(lost.infrastructure_error)
        moved.symlink_to(folder)
        found = worker.step("b", case, (), Reply(text=f"```python\n{USES_TINY}```"))
        assert isinstance(found, Verdict)
        assert found.kind == "passed"
    finally:
        worker.close()


def test_a_folder_that_the_user_of_a_container_cannot_read_is_refused(docker_engine: str, tmp_path: Path) -> None:  # noqa: F811
    tmp_path.chmod(0o700)
    pool = SandboxPool(EnvConfig(sandbox=sandbox_of("docker", python_path=(str(tmp_path),))), "test-1", "env-test")
    try:
        with pytest.raises(SandboxUnavailable, match=r"cannot be listed inside the sandbox, .*Permission denied"):
            pool.check()
    finally:
        pool.close()


@pytest.fixture
def derived_image(docker_engine: str) -> Iterator[str]:  # noqa: F811
    """An image with a package in the folder from which its own Python imports."""
    plain = SandboxPool(EnvConfig(sandbox=DockerSandbox(image=docker_engine)), "test-1", "env-test")
    try:
        plain.check()
        own = plain.facts["import_folders"][0]
    finally:
        plain.close()
    files = {"Dockerfile": f"FROM {docker_engine}\nCOPY tiny.py {own}/tiny.py\n", "tiny.py": TINY}
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text.encode()), 0o644
            archive.addfile(entry, io.BytesIO(text.encode()))
    context.seek(0)
    name = "sdpo-env-with-tiny:test"
    with closing(connect(DockerSandbox())) as engine:
        list(engine.build(fileobj=context, custom_context=True, tag=name, rm=True, decode=True))
        yield name
        engine.remove_image(name, force=True)


def test_packages_of_an_image_are_imported(derived_image: str) -> None:
    judge = SandboxedJudge(DockerSandbox(image=derived_image))
    try:
        assert judge.record(USES_TINY, 21)["value"] == 42
        assert Package("tiny") in list_packages(judge.pool)
    finally:
        judge.pool.close()


@pytest.mark.parametrize("with_system", [False, True])
def test_the_folders_of_a_virtual_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_system: bool
) -> None:
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    own = tmp_path / "lib" / version / "site-packages"
    own.mkdir(parents=True)
    (tmp_path / "pyvenv.cfg").write_text(
        f"home = /usr/bin\ninclude-system-site-packages = {str(with_system).lower()}\n"
    )
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin/python3"))
    monkeypatch.setattr(site, "getsitepackages", lambda: ["/usr", "/no/such/folder"])
    found = import_folders(["/run/packages/0"], of_image=True)
    assert found == ["/run/packages/0", str(own), *(["/usr"] if with_system else [])]


def test_doctor_and_preview_list_them_and_refuse_a_folder_that_is_missing(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = f"env.sandbox.python_path=[{folder}]"
    config = load_run_config(RUN_FILE, [path, "env.sandbox.wall_time_s=30", "env.time_limit_s=20"])
    listed, warned = look(config.env)
    assert "tiny 1.5" in listed.message
    assert "numpy" in listed.message
    assert "broken (ModuleNotFoundError No module named 'no_such_module')" in warned.message
    assert main(["preview", RUN_FILE, "--plain", "--json", path]) == 0
    assert {"numpy", "tiny 1.5"} <= set(json.loads(capfd.readouterr().out)["packages"])
    for command in (["preview", RUN_FILE, "--plain"], ["train", RUN_FILE, f"dir={tmp_path}/runs"]):
        assert main([*command, "env.sandbox.python_path=[/no/such/folder]"]) == 2
        (line,) = [text for text in capfd.readouterr().err.splitlines() if "python_path" in text]
        assert line.startswith("sdpo: env.sandbox.python_path=/no/such/folder: no such folder on ")
    assert not (tmp_path / "runs").exists()
