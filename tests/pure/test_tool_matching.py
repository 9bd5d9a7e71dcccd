"""Calls found in responses, compared, and explained without giving the expected ones away."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from env_workers.adapters.function_calling import function_calling
from env_workers.adapters.toolalpaca import toolalpaca
from env_workers.environment import Reply
from env_workers.tools.environments import ToolMatchingEnvironment
from env_workers.tools.faults import in_order, same_json
from env_workers.tools.forms import Comparison, Scalar
from env_workers.tools.notations import BadCalls, Call, json_calls, react_calls
from env_workers.tools.payload import Expected
from sdpo.errors import TaskFileError
from sdpo.types import Task, Verdict

TOOLS = [
    {
        "name": "search",
        "parameters": {
            "type": "object",
            "properties": {
                "query": {"type": "string"},
                "limit": {"type": "integer"},
                "order": {"type": "string", "enum": ["newest", "oldest"]},
                "filters": {"type": "object"},
            },
            "required": ["query"],
        },
    },
    {"name": "open", "parameters": {"type": "object", "properties": {"id": {"type": "integer"}}}},
]
NESTED = {"query": "a } b", "filters": {"tags": ["x", {"y": [1, {"z": "}"}]}], "open": {}}}


def task(*expected: dict[str, Any], **payload: Any) -> Task:
    payload = {"tools": TOOLS, "expected": list(expected), **payload}
    made = Task(id="t", messages=(), environment="tool_matching", payload=payload)
    ToolMatchingEnvironment.check(made)
    return made


def judge(of: Task, text: str, truncated: bool = False) -> Verdict:
    return ToolMatchingEnvironment(None).judge(of, Reply(text=text, truncated=truncated))  # type: ignore[arg-type]


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


def tagged(*calls: dict[str, Any]) -> str:
    return "\n".join(f"<tool_call>\n{json.dumps(item)}\n</tool_call>" for item in calls)


def react(*calls: dict[str, Any]) -> str:
    return "\n".join(
        f"Thought: hm\nAction: {c['name']}\nAction Input: {json.dumps(c['arguments'], indent=1)}" for c in calls
    )


@pytest.mark.parametrize("write", [tagged, react, lambda *c: f"Here:\n```json\n{json.dumps(list(c))}\n```"])
def test_nested_arguments_and_equal_keys_survive(write: Any) -> None:
    """Two calls with the same keys are two calls; braces in strings and objects in objects do not end the JSON."""
    wanted = [call("search", **NESTED), call("search", query="second", limit=2)]
    read = react_calls if write is react else json_calls
    assert read(write(*wanted)) == [Call(name=c["name"], arguments=c["arguments"]) for c in wanted]
    of = task(*wanted, notation="react" if write is react else "json")
    assert judge(of, write(*reversed(wanted))).success
    assert not judge(of, write(wanted[1], wanted[1])).success
    assert judge(of, "<think>" + write(wanted[0]) + "</think>" + write(*wanted)).success


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('<tool_call>{"name": "open", "arguments": {"id": 1,}}</tool_call>', "not valid JSON"),
        ('<tool_call>{"name": "open", "arguments": {"id": 1, "id": 2}}</tool_call>', "the key 'id' more than once"),
        ('<tool_call>{"name": "open", "arguments": {"id": NaN}}</tool_call>', "NaN is not JSON"),
        ('<tool_call>{"name": "open", "arguments": {"id": 1e999}}</tool_call>', "too large"),
        ('<tool_call>{"name": "open", "arguments": {"id": ' + "9" * 9999 + "}}</tool_call>", "too long"),
        ("<tool_call>" + "[" * 100_000, "nested too deeply"),
        ("<tool_call>" + '{"a":' * 60 + "1" + "}" * 60, "nested too deeply"),
        ('<tool_call>{"name": "open", "arguments": {}}', "is not closed"),
        ('<tool_call>{"arguments": {}}</tool_call>', "has no name"),
        ('<tool_call>{"name": "open"}</tool_call>', "arguments are not a JSON object"),
        (tagged(*[call("open")] * 33), "more than 32 calls"),
        ("nothing", "No call was found"),
    ],
)
def test_what_is_no_call_is_told(text: str, told: str) -> None:
    verdict = judge(task(call("open", id=1)), text)
    assert (verdict.kind, verdict.reward) == ("wrong_format", 0.0)
    assert told in verdict.feedback
    assert judge(task(call("open", id=1)), text, truncated=True).kind == "truncated"


def test_an_action_needs_its_input() -> None:
    with pytest.raises(BadCalls, match="not followed by a line Action Input"):
        react_calls('Action: open\nObservation: none\nAction Input: {"id": 1}')


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (2, 2.0, True),
        (0.1 + 0.2, 0.3, True),
        (2**60 + 1, 2**60, False),
        (10**400, 1.0, False),
        (True, 1, False),
        ("1", 1, False),
        (None, False, False),
        ([1, 2], [2, 1], False),
        ({"a": 1, "b": [{}]}, {"b": [{}], "a": 1.0}, True),
    ],
)
def test_values_are_compared_as_json(one: Any, other: Any, same: bool) -> None:
    assert same_json(one, other) is same is same_json(other, one)


@pytest.mark.parametrize(
    ("reply", "faults", "told"),
    [
        (tagged(call("find", query="q", limit=3)), ["unknown_tool", "too_few_calls"], "there is no tool of this name"),
        (tagged(call("open", id=1)), ["wrong_tool", "too_few_calls"], "not needed here"),
        (tagged(call("search", query="q")), ["missing_argument"], "'limit' is missing"),
        (tagged(call("search", query="q", limit=3, page=1)), ["extra_argument"], "'page' does not exist"),
        (tagged(call("search", query="q", limit=3, order="newest")), ["extra_argument"], "'order' should not be given"),
        (tagged(call("search", query="q", limit="3")), ["wrong_type"], "must be an integer, not a string"),
        (tagged(call("search", query="x", limit=4)), ["wrong_value", "wrong_value"], "'limit' has a wrong value"),
        (tagged(*[call("search", query="q", limit=3)] * 2), ["too_many_calls"], "more often than needed"),
    ],
)
def test_feedback_names_what_is_wrong(reply: str, faults: list[str], told: str) -> None:
    verdict = judge(task(call("search", query="q", limit=3)), reply)
    assert (verdict.kind, verdict.details["faults"]) == ("wrong_answer", faults)
    assert told in verdict.feedback


def test_differences_are_found_inside_an_argument() -> None:
    of = task(call("search", query="q", filters={"tags": ["x", {"y": 1}]}))
    told = judge(of, tagged(call("search", query="q", filters={"tags": ["x", {"y": 2}]}))).feedback
    assert "the argument 'filters.tags[1].y' has a wrong value" in told
    assert "too few items" in judge(of, tagged(call("search", query="q", filters={"tags": ["x"]}))).feedback


def test_order_counts_only_where_the_payload_says_so() -> None:
    first, second = call("open", id=1), call("open", id=2)
    assert judge(task(first, second), tagged(second, first)).success
    ordered = task(first, second, ordered=True)
    assert judge(ordered, tagged(first, second)).success
    assert judge(ordered, tagged(second, first)).details["faults"] == ["wrong_order"]
    one = Expected(name="open", arguments={"id": Scalar(1)})
    maybe = Expected(name="open", arguments={"id": Scalar(1)}, optional=True)
    assert in_order([Call(name="open", arguments={"id": 1})], [maybe, one], Comparison())


def test_optional_calls_may_be_left_out_and_no_call_may_be_right() -> None:
    of = task(call("open", id=1), {**call("open", id=2), "optional": True})
    assert judge(of, tagged(call("open", id=1))).success
    assert judge(of, tagged(call("open", id=2), call("open", id=1))).success
    assert not judge(of, tagged(call("open", id=2))).success
    assert judge(task(), "None of the tools helps.").success
    assert not judge(task(), tagged(call("open", id=1))).success


_SECRETS = st.text("QXZJ", min_size=6, max_size=9) | st.integers(10**7, 10**9)
_VALUES = st.recursive(
    _SECRETS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("kl"), inner, max_size=2)
)
_ARGUMENTS = st.dictionaries(st.sampled_from(["query", "limit", "order", "filters", "page"]), _VALUES, max_size=4)
_CALLS = st.lists(
    st.builds(lambda n, a: call(n, **a), st.sampled_from(["search", "open", "x"]), _ARGUMENTS), max_size=3
)


def leaves(value: Any) -> list[str]:
    if isinstance(value, dict | list):
        return [leaf for item in (value.values() if isinstance(value, dict) else value) for leaf in leaves(item)]
    return [str(value)]


@settings(max_examples=60, deadline=None)
@given(expected=_CALLS, written=_CALLS, mixed=st.booleans())
def test_expected_values_never_appear_unless_the_model_wrote_them(
    expected: list[dict[str, Any]], written: list[dict[str, Any]], mixed: bool
) -> None:
    reply = tagged(*written, *(expected[:1] if mixed else []))
    feedback = judge(task(*expected), reply).feedback
    for secret in leaves([wanted["arguments"] for wanted in expected]):
        assert secret not in feedback or secret in reply


TOOLALPACA_PROMPT = """You have access to the following tools:
Name: Post
Documentation:
send: Send a letter.
Parameters: {"to": "Required. string. Who.", "speed": "string. One of: [slow, fast].", "pages": "Array[string]. Text."}
Output: done
price: What a letter costs.
Parameters: {"grams": "integer. Weight."}
Output: a number

Use the following format:
Begin!
Question: Send it to Ann."""


def test_toolalpaca_records(tmp_path: Any) -> None:
    answer = [
        {"Action": "send", "Action_Input": json.dumps({"to": "Ann", "pages": ["a", "b"]})},
        {"Action": "[Optional]price", "Action_Input": '{"grams": 20}'},
    ]
    path = tmp_path / "test.json"
    path.write_text(json.dumps({"prompt": TOOLALPACA_PROMPT, "answer": json.dumps(answer), "system": None}) + "\n")
    (made,) = toolalpaca(str(path), "train", {})
    assert [message.role for message in made.messages] == ["user"]
    right = react(call("send", to="Ann", pages=["a", "b"]))
    assert judge(made, right).success
    assert judge(made, right + "\n" + react(call("price", grams=20))).success
    wrong = judge(made, react(call("send", to="Ann", pages=["a", "b"], speed="soon"))).feedback
    assert "'speed' should not be given here" in wrong
    assert "must be an array, not a string" in judge(made, react(call("send", to="Ann", pages="a"))).feedback
    path.write_text(json.dumps({"prompt": TOOLALPACA_PROMPT, "answer": '[{"Action": "send"}]'}))
    with pytest.raises(TaskFileError, match="answer="):
        list(toolalpaca(str(path), "train", {}))


def test_function_calling_records(tmp_path: Any) -> None:
    path = tmp_path / "calls.jsonl"
    tools = [{"type": "function", "function": {**TOOLS[1], "description": "Opens."}}]
    path.write_text(json.dumps({"question": "Open 3.", "tools": json.dumps(tools), "calls": [call("open", id=3)]}))
    (made,) = function_calling(str(path), "train", {})
    assert '"name": "open"' in made.messages[0].content
    assert made.messages[1].content == "Open 3."
    assert judge(made, tagged(call("open", id=3.0))).success


@pytest.mark.parametrize(
    ("payload", "line"),
    [
        ({"tools": []}, "payload.tools is []; allowed: a list of at least one item"),
        ({"notation": "xml"}, "payload.notation is xml; allowed: json, react"),
        ({"expected": [{"name": "open"}]}, "payload.expected\\[0\\].arguments is none"),
        ({"tools": [{"name": "f", "parameters": {"type": "int"}}]}, "a JSON schema of type object"),
        ({"tools": [{"name": "f", "parameters": {"$ref": "http://x"}}]}, "references are"),
        ({"gold": 1}, "unknown key gold"),
    ],
)
def test_payloads_that_cannot_be_used(payload: dict[str, Any], line: str) -> None:
    with pytest.raises(TaskFileError, match=line.replace("[]", "\\[\\]")):
        task(**payload) if "expected" in payload else task(call("open", id=1), **payload)


def test_more_expected_calls_than_a_reply_may_make_are_refused() -> None:
    many = [call("open", id=number) for number in range(33)]
    assert judge(task(*many[:32]), tagged(*many[:32])).success
    with pytest.raises(TaskFileError, match=r"payload\.expected is 33 calls; allowed: at most 32"):
        task(*many)
