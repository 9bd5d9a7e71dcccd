"""What looks like a secret is neither shown nor kept."""

from pathlib import Path

import pytest

from orchestrator.cli import main
from sdpo.config.load import load_run_config
from sdpo.errors import ConfigError
from sdpo.secrets import hide_secrets, holds_credentials, is_secret_name, secrets_in
from tests.fixtures.run import ROOT, RUN_FILE


@pytest.mark.parametrize("name", ["HF_TOKEN", "WANDB_API_KEY", "apiKey", "db.password", "AWS_SECRET_ACCESS_KEY"])
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["max_response_tokens", "top_k", "OMP_NUM_THREADS", "tokens_per_micro_batch", "keep"])
def test_names_of_other_things(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no s3://AK:se/cr=et@bucket/x here", "no s3://<hidden>@bucket/x here"),
        ("postgresql://me:secret@host:5432/db", "postgresql://<hidden>@host:5432/db"),
        ("https://ghp_1@github.com/x", "https://<hidden>@github.com/x"),
        ("https://h/x?X-Amz-Signature=abc&part=1", "https://h/x?X-Amz-Signature=<hidden>&part=1"),
        ("HF_TOKEN=hf_abc steps=3", "HF_TOKEN=<hidden> steps=3"),
        ('{"api_key": "abc", "b": 2}', '{"api_key": "<hidden>", "b": 2}'),
        ("file.py:3: token: expected ')'", "file.py:3: token: expected ')'"),
        ("http://host:8265/a@b max_tokens=3", "http://host:8265/a@b max_tokens=3"),
        ("gs://bucket/me@there", "gs://bucket/me@there"),
    ],
)
def test_text_is_shown_without_its_secrets(text: str, shown: str) -> None:
    assert hide_secrets(text) == shown
    assert holds_credentials(text) == ("://<hidden>@" in shown or "?X-Amz-Signature=<" in shown)


def test_secrets_are_found_by_key_and_by_value() -> None:
    data = {"a": {"api_token": "x", "max_tokens": 3, "password": None}, "b": ["ok", "redis://u:p@h"], "key": ""}
    assert list(secrets_in(data)) == ["a.api_token", "b.1"]


def test_a_run_file_holds_no_secrets(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^tasks\.train: holds a secret; allowed: ") as error:
        load_run_config(ROOT / RUN_FILE, ["tasks.train=s3://me:hush@bucket/t.jsonl"])
    assert "hush" not in str(error.value)


def test_what_is_refused_is_not_printed_either(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", str(ROOT / RUN_FILE), "trackers.wandb.api_key=hush"]) == 2
    assert main(["config", "s3://me:hush@bucket/run.yaml"]) == 2
    said = capsys.readouterr()
    assert "hush" not in said.out + said.err
    assert "<hidden>@bucket/run.yaml: no such run file" in said.err
