"""The Ray namespace of a run is composed and taken apart by one pair of functions."""

import pytest

from orchestrator.cluster.namespace import parse_namespace, run_namespace


@pytest.mark.parametrize("name", ["demo", "demo-1", "a-b-c"])
def test_a_namespace_is_taken_apart_as_it_was_composed(name: str) -> None:
    assert parse_namespace(run_namespace(name, 12)) == (name, 12)


@pytest.mark.parametrize(
    "namespace", ["demo", "demo-x", "-3", "demo-generate-", "5f1c0d2e-9a77-4c3b-8d8f-0123456789ab"]
)
def test_other_namespaces_belong_to_no_run(namespace: str) -> None:
    assert parse_namespace(namespace) is None
