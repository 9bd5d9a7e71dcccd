"""Run files: what loads, what is refused and with which line."""

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdpo.config import BatchConfig, EmaTeacher, FrozenTeacher, GrpoObjective, ModelConfig, RunConfig, SdpoObjective
from sdpo.config.keys import allowed_values, walk_keys
from sdpo.config.load import dump_run_config, load_run_config
from sdpo.config.plain_yaml import dump_yaml, parse_yaml
from sdpo.errors import ConfigError
from sdpo.paths import expanded
from sdpo.section import IsPath

RUN = """\
# a small run
name: small
objective:
  kind: sdpo
  top_k: 4
learner:
  optimizer: {learning_rate: 1e-3}
"""
SECTIONS = ", ".join(RunConfig.model_fields)


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(RUN)
    return path


def error_of(path: Path, *overrides: str) -> str:
    """The line that the loader refuses with; never more than one."""
    with pytest.raises(ConfigError) as caught:
        load_run_config(path, overrides)
    line = str(caught.value)
    assert "\n" not in line
    assert "pydantic" not in line
    return line


def test_file_and_overrides(run_file: Path) -> None:
    config = load_run_config(run_file, ["batch.tasks=2", "batch.tasks=3", "env.sandbox.wall_time_s=2", "dir=out=1"])
    assert config.name == "small"
    assert config.objective == SdpoObjective(kind="sdpo", top_k=4)
    assert config.learner.optimizer.learning_rate == 1e-3
    assert (config.batch.tasks, config.env.sandbox.wall_time_s, config.dir) == (3, 2.0, "out=1")


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}", "---\n"])
def test_an_empty_file_is_the_defaults(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    assert load_run_config(path) == RunConfig()


def test_numbers_none_and_words(run_file: Path) -> None:
    config = load_run_config(
        run_file,
        [
            "learner.optimizer.eps=1e-3",
            "objective.is_clip=none",
            "tasks.heldout=null",
            "rollout.kv_cache_gib=~",
            "name=on",
        ],
    )
    assert config.learner.optimizer.eps == 0.001
    assert isinstance(config.objective, SdpoObjective)
    assert (config.objective.is_clip, config.tasks.heldout, config.rollout.kv_cache_gib) == (None, None, None)
    assert config.name == "on"
    assert load_run_config(run_file, ["name='123'", "seed=010", "weights.bucket_bytes=1_000"]).seed == 10


@pytest.mark.parametrize(
    "text", ["20251128", "1_1_1", "1e5", "null", "none", "on", "true", "010", "2025-11-28", "0x10", "1.50", "123"]
)
def test_an_override_of_text_is_taken_as_it_is_written(run_file: Path, text: str) -> None:
    config = load_run_config(
        run_file,
        [f"name={text}", f"dir={text}", f"placement.env.label_selector.zone={text}"],
    )
    assert (config.name, config.dir, config.placement.env.label_selector) == (text, text, {"zone": text})
    assert load_run_config(run_file, [f"name='{text}'"]).name == text


@pytest.mark.parametrize("text", ["/a b #1", "a: b", "{x}", "[1]", "*x", "&y", "!t", "50%", "@z", "a\\b", "it's", "ü"])
def test_an_override_of_a_path_is_no_yaml(run_file: Path, text: str) -> None:
    config = load_run_config(run_file, [f"dir={text}", f"tasks.heldout={text}"])
    assert (config.dir, config.tasks.heldout) == (text, text)


@pytest.mark.parametrize("text", ["20251128", "1_1_1", "1e5", "true"])
def test_a_number_under_a_key_of_text_in_a_file_says_that_quotes_are_missing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(f"name: {text}\n")
    assert "numbers, true and false are text in quotes only; allowed: a string" in error_of(path)
    path.write_text(f'name: "{text}"\n')
    assert load_run_config(path).name == text


def path_keys() -> list[str]:
    return [key.name for key in walk_keys(RunConfig) if any(isinstance(rule, IsPath) for rule in key.field.metadata)]


def test_every_key_that_names_a_path_follows_the_rule_of_paths() -> None:
    assert {"dir", "model.path", "tasks.train", "tasks.heldout", "rollout.recorded", "env.code"} <= set(path_keys())
    for key in walk_keys(RunConfig):
        is_text = key.field.annotation in (str, str | None, tuple[str, ...])
        words = (key.field.description or "").lower()
        if is_text and any(word in words.split() for word in ("folder", "file", "files", "path")):
            assert key.name in path_keys(), words


@pytest.mark.parametrize(("text", "path"), [("~", "{home}"), ("~/x", "{home}/x"), ("~{user}/x", "{theirs}/x")])
def test_a_tilde_is_a_home_folder_in_every_key_of_a_path(
    run_file: Path, monkeypatch: pytest.MonkeyPatch, text: str, path: str
) -> None:
    user = pwd.getpwuid(os.getuid())
    monkeypatch.setenv("HOME", "/a/home")
    values = {"user": user.pw_name, "home": "/a/home", "theirs": user.pw_dir}
    text, path = text.format(**values), path.format(**values)
    config = load_run_config(
        run_file, [f"dir={text}", f"model.path={text}", f"tasks.train={text}", f"env.code=['{text}']"]
    )
    assert (config.dir, config.model.path, config.tasks.train, config.env.code) == (path, path, path, (path,))
    kept = load_run_config(run_file, ["dir=./~/x", "model.path=s3://a/~/b", "tasks.train=a~"])
    assert (kept.dir, kept.model.path, kept.tasks.train) == ("./~/x", "s3://a/~/b", "a~")


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("dir=~nobody-has-this-name/x", "no home folder of ~nobody-has-this-name is known"),
        ("model.path=a\nb", "a path with a control character"),
        ("tasks.train=a\tb", "a path with a control character"),
        ("dir=a\x00b", "a path with a control character"),
    ],
)
def test_paths_that_cannot_be_used_are_refused(run_file: Path, override: str, line: str) -> None:
    error = error_of(run_file, override)
    assert error.startswith(override.partition("=")[0] + "=")
    assert line in error


def test_text_that_is_no_utf8_is_refused(run_file: Path) -> None:
    assert error_of(run_file, "dir=a\udcffb") == "override 'dir=a\\udcffb': not UTF-8 text; allowed: UTF-8 text"
    with pytest.raises(ValueError, match="not UTF-8 text"):
        expanded("a\udcffb")


def test_a_new_kind_starts_its_section_anew(run_file: Path) -> None:
    assert load_run_config(run_file, ["objective.kind=grpo"]).objective == GrpoObjective(kind="grpo")
    config = load_run_config(run_file, ["objective.clip_low=0.1", "objective.kind=grpo"])
    assert config.objective == GrpoObjective(kind="grpo", clip_low=0.1)
    assert load_run_config(run_file, ["objective.kind=sdpo"]).objective == SdpoObjective(kind="sdpo", top_k=4)


def test_a_union_without_kind_is_the_default_kind(run_file: Path) -> None:
    assert load_run_config(run_file, ["teacher.regularisation.rate=0.5"]).teacher.regularisation == EmaTeacher(
        kind="ema", rate=0.5
    )
    frozen = load_run_config(run_file, ["teacher.regularisation={kind: frozen}"])
    assert frozen.teacher.regularisation == FrozenTeacher(kind="frozen")


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("objective.topk=3", "objective.topk=3: unknown key; nearest known key: objective.top_k"),
        ("learning_rate=1", "learning_rate=1: unknown key; nearest known key: learner.optimizer.learning_rate"),
        ("teacher.rate=.1", "teacher.rate=0.1: unknown key; nearest known key: teacher.regularisation.rate"),
        ("batch.task=1", "batch.task=1: unknown key; nearest known key: batch.tasks"),
        ("modle={path: x}", 'modle={"path": "x"}: unknown key; nearest known key: model'),
        ("zzzqqq=1", f"zzzqqq=1: unknown key; allowed: {SECTIONS}"),
        (
            "teacher.regularisation={kind: frozen, rate: 0.1}",
            "teacher.regularisation.rate=0.1: unknown key for this kind; allowed: kind",
        ),
        ("objective.kind=ppo", "objective.kind=ppo: allowed: sdpo, grpo"),
        ("objective.divergence=tv", "objective.divergence=tv: allowed: forward_kl, reverse_kl, js"),
        *(
            (
                f"env.sandbox.python_path=[{path}]",
                f'env.sandbox.python_path=["{path}"]: allowed: '
                "a list of absolute paths of folders that hold packages alone",
            )
            for path in ("packages", "/", "/..")
        ),
        ("env.sandbox.kind=none", "env.sandbox.kind=none: allowed: bubblewrap, docker, gvisor"),
        ("objective.top_k=-1", "objective.top_k=-1: allowed: an integer at least 0 and at most 1000000"),
        (
            "objective.top_k=0",
            "objective.top_k=0: allowed with estimator=support, support=rollout: 1 and more",
        ),
        ("objective.js_teacher_weight=1", "objective.js_teacher_weight=1: allowed: a number above 0 and below 1"),
        (
            "objective.is_clip=-1",
            "objective.is_clip=-1: allowed: a number above 0 and at most 1000000000, or none",
        ),
        ("objective.tail=1", "objective.tail=1: allowed: true or false"),
        ("objective.tail=yes", "objective.tail=yes: allowed: true or false"),
        ("steps=1.0", "steps=1.0: allowed: an integer at least 0 and at most 1000000000"),
        ("steps=true", "steps=true: allowed: an integer at least 0 and at most 1000000000"),
        ("steps=ten", "steps=ten: allowed: an integer at least 0 and at most 1000000000"),
        ("steps=", "steps=none: allowed: an integer at least 0 and at most 1000000000"),
        ("env.code=[3]", "env.code.0=3: numbers, true and false are text in quotes only; allowed: a string"),
        (
            "rollout.sampling.temperature=0.009",
            "rollout.sampling.temperature=0.009: allowed: a number at least 0.01 and at most 100",
        ),
        ("evaluation.temperature=0.009", "evaluation.temperature=0.009: allowed: 0, or at least 0.01"),
        ('name=""', 'name="": allowed: a string that matches ^[A-Za-z0-9][A-Za-z0-9._-]*$'),
        ("name=a b", "name=a b: allowed: a string that matches ^[A-Za-z0-9][A-Za-z0-9._-]*$"),
        ("model=big", f"model=big: allowed: a mapping with the keys {', '.join(ModelConfig.model_fields)}"),
        (
            "batch=[1]",
            f"batch=[1]: allowed: a mapping with the keys {', '.join(BatchConfig.model_fields)}",
        ),
        (
            "objective.top_k.x=1",
            "objective.top_k.x=1: objective.top_k=4 is not a mapping of keys",
        ),
        ("steps", "'steps': allowed: a dotted key, an equals sign and a value, for example batch.tasks=8"),
        (
            "batch..tasks=1",
            "'batch..tasks=1': allowed: a dotted key, an equals sign and a value, for example batch.tasks=8",
        ),
        ("=1", "'=1': allowed: a dotted key, an equals sign and a value, for example batch.tasks=8"),
        (
            "learner.optimizer.eps=1e999",
            "learner.optimizer.eps=Infinity: allowed: a number above 0 and at most 1",
        ),
        (
            "batch={tasks: 1, tasks: 2}",
            "override 'batch={tasks: 1, tasks: 2}': line 1, column 12: key 'tasks' was already given on line 1",
        ),
    ],
)
def test_refused_overrides(run_file: Path, override: str, line: str) -> None:
    assert error_of(run_file, override) == line


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["rollout.sampling.top_p=0.5"],
            "rollout.sampling.top_p=0.5: training rollouts need the whole distribution; allowed: 1.0",
        ),
        (
            ["objective.top_k=30", "rollout.max_logprobs=20"],
            "objective.top_k=30: allowed: at most rollout.max_logprobs=20",
        ),
        (
            [
                "hindsight.max_prompt_tokens=1000",
                "model.max_model_len_tokens=1024",
                "rollout.sampling.max_response_tokens=128",
            ],
            "hindsight.max_prompt_tokens=1000: allowed: at most 896 "
            "(model.max_model_len_tokens - rollout.sampling.max_response_tokens)",
        ),
        (
            ["model.max_model_len_tokens=100", "rollout.sampling.max_response_tokens=128"],
            "rollout.sampling.max_response_tokens=128: allowed: below model.max_model_len_tokens=100",
        ),
        (
            ["batch.min_group_size=9", "batch.samples_per_task=8"],
            "batch.min_group_size=9: allowed: at most batch.samples_per_task=8",
        ),
        (
            ["weights.backend=nccl", "placement.rollout.num_gpus=1"],
            "placement.learner.num_gpus=0 with weights.backend=nccl: allowed: at least 1, or weights.backend=ray",
        ),
        (
            ["weights.backend=nccl", "placement.learner.num_gpus=1"],
            "placement.rollout.num_gpus=0 with weights.backend=nccl: allowed: at least 1, or weights.backend=ray",
        ),
        (
            ["weights.backend=ipc", "placement.rollout.num_gpus=0.5", "placement.learner.num_gpus=1"],
            "placement.learner.num_gpus=1 with weights.backend=ipc: allowed: between 0 and 1 (a shared GPU), "
            "or weights.backend=ray",
        ),
        (
            ["weights.backend=ipc", "placement.rollout.num_gpus=0.5", "placement.learner.num_gpus=0.4"],
            "placement.mode=separate with weights.backend=ipc: allowed: colocated (both on one GPU), "
            "or weights.backend=ray",
        ),
        (
            ["placement.rollout.tensor_parallel=2", "placement.rollout.num_gpus=1"],
            "placement.rollout.num_gpus=1: allowed with placement.rollout.tensor_parallel=2: 2",
        ),
        (
            ["placement.learner.num_gpus=2"],
            "placement.learner.num_gpus=2: allowed: at most 1, which is what one learner actor uses",
        ),
        (
            [
                "placement.mode=colocated",
                "placement.learner.num_gpus=0.4",
                "placement.learner.ranks=2",
                "placement.rollout.num_gpus=0.2",
                "placement.rollout.workers=3",
                "placement.teacher.num_gpus=0.3",
            ],
            "placement.learner.num_gpus=0.4 + 2 x placement.rollout.num_gpus=0.2 + placement.teacher.num_gpus=0.3 on "
            "one rank is 1.1: allowed with placement.mode=colocated: at most 1 GPU a rank (smaller shares, fewer "
            "workers, or more ranks)",
        ),
        (
            ["placement.mode=colocated", "placement.rollout.tensor_parallel=2", "placement.rollout.num_gpus=2"],
            "placement.rollout.tensor_parallel=2: allowed with placement.mode=colocated: 1",
        ),
        (
            ["placement.mode=colocated", "placement.teacher.label_selector.zone=a"],
            "placement.teacher.label_selector={'zone': 'a'}: allowed with placement.mode=colocated: none; it lives "
            "where placement.learner does",
        ),
    ],
)
def test_combinations_that_cannot_work(run_file: Path, overrides: list[str], line: str) -> None:
    assert error_of(run_file, *overrides) == line


@pytest.mark.parametrize(
    ("backend", "rollout_gpus", "learner_gpus", "path"),
    [
        ("auto", 0, 0, "ray"),
        ("auto", 1, 0, "ray"),
        ("auto", 0, 1, "ray"),
        ("auto", 0.5, 0.5, "ray"),
        ("auto", 1, 1, "nccl"),
        ("ray", 1, 1, "ray"),
        ("nccl", 1, 1, "nccl"),
        ("ipc", 0.5, 0.4, "ipc"),
    ],
)
def test_the_path_of_the_weights(backend: str, rollout_gpus: float, learner_gpus: float, path: str) -> None:
    mode = "colocated" if backend == "ipc" else "separate"
    roles = {"rollout": {"num_gpus": rollout_gpus}, "learner": {"num_gpus": learner_gpus}}
    sections: dict[str, Any] = {"placement": {"mode": mode, **roles}}
    assert RunConfig.model_validate(sections | {"weights": {"backend": backend}}).weights_backend == path


def test_several_errors_are_counted(run_file: Path) -> None:
    line = error_of(run_file, "steps=-1", "seed=-1", "objective.topk=3")
    assert line == "seed=-1: allowed: an integer at least 0 and at most 4294967295 (and 2 more)"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("name: a\nname: b\n", "{path}: line 2, column 1: key 'name' was already given on line 1"),
        ("batch:\n  tasks: 1\n  tasks: 2\n", "{path}: line 3, column 3: key 'tasks' was already given on line 2"),
        ("name: [a\nsteps: 1\n", "{path}: line 2, column 6: expected ',' or ']', but got ':'"),
        ("a: b: c\n", "{path}: line 1, column 5: mapping values are not allowed here"),
        ("- 1\n", "{path}: [1]: allowed: a mapping with the keys " + SECTIONS),
        ("hello\n", "{path}: hello: allowed: a mapping with the keys " + SECTIONS),
        ("a: 1\n---\nb: 2\n", "{path}: line 2, column 1: but found another document"),
        ("name: !!python/object:x.y {}\n", None),
        ("name: !!binary aGk=\n", None),
        ("a: &x [*x]\n", None),
        ("a: " + "[" * 1000, None),
    ],
)
def test_refused_files(tmp_path: Path, text: str, line: str | None) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    got = error_of(path)
    assert got.startswith(f"{path}: ")
    assert line is None or got == line.replace("{path}", str(path))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert error_of(tmp_path / "none.yaml") == f"{tmp_path}/none.yaml: no such run file"
    assert error_of(tmp_path) == f"{tmp_path}: cannot be read: Is a directory"
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    assert (
        error_of(tmp_path / "latin.yaml")
        == f"{tmp_path}/latin.yaml: not UTF-8 text: 0xe9 at byte 10 (Latin-1?); allowed: UTF-8"
    )


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["objective.kind=grpo", "teacher.regularisation.kind=live", "tasks.heldout=none"],
        ["name='1e5'", "dir='none'", "tasks.train='010'", "learner.optimizer.learning_rate=1e-7"],
    ],
)
def test_what_is_dumped_loads_equal(run_file: Path, tmp_path: Path, overrides: list[str]) -> None:
    config = load_run_config(run_file, overrides)
    dumped = tmp_path / "resolved.yaml"
    dumped.write_text(dump_run_config(config))
    assert load_run_config(dumped) == config
    assert dump_run_config(load_run_config(dumped)) == dump_run_config(config)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@settings(deadline=None, max_examples=300)
@given(st.dictionaries(st.text(), SCALARS | st.lists(SCALARS), max_size=5))
def test_yaml_round_trip(value: dict[str, Any]) -> None:
    back = parse_yaml(dump_yaml(value))
    assert back == value
    assert json.dumps(back) == json.dumps(value)


def test_every_key_is_described_and_says_what_it_allows() -> None:
    keys = list(walk_keys(RunConfig))
    assert len(keys) > 80
    assert [k.name for k in keys if not (k.field.description or "").strip()] == []
    assert [k.name for k in keys if "<class" in allowed_values(k.field) or "typing" in allowed_values(k.field)] == []


def test_every_known_key_at_its_default_is_accepted(run_file: Path, tmp_path: Path) -> None:
    """The schema walk and the models agree: each plain key can be given by itself."""
    empty = tmp_path / "empty.yaml"
    empty.write_text("")
    default = RunConfig().model_dump(mode="json")
    for key in walk_keys(RunConfig):
        value: Any = default
        for part in key.name.split("."):
            value = value.get(part, ...) if isinstance(value, dict) else ...
        if value is not ...:
            assert load_run_config(empty, [f"{key.name}={json.dumps(value)}"]) == RunConfig(), key.name


def test_config_and_types_import_nothing_heavy() -> None:
    code = (
        "import sys, sdpo.config.load, sdpo.types, sdpo.taskfile, sdpo.errors, sdpo.weights\n"
        "print([m for m in ('torch', 'ray', 'transformers', 'vllm', 'docker') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
