"""Tool use as matching: the model writes calls, nothing runs; they must be the expected ones."""

from env_workers.calling.notations import NOTATIONS, BadCalls
from env_workers.environment import Reply, SingleTurnEnvironment
from env_workers.tool_matching.explain import complaints, lines_of
from env_workers.tool_matching.payload import parse_matching
from sdpo.types import Task, Verdict

_HOW = {
    "json": 'Write each call as <tool_call>{"name": ..., "arguments": {...}}</tool_call>.',
    "react": "Write each call as a line Action: and a line Action Input: with a JSON object.",
}


class ToolMatchingEnvironment(SingleTurnEnvironment):
    """Payload: see `env_workers.tool_matching.payload`. Reward 1 when the calls are the expected ones, as a multiset.

    Kinds: passed, wrong_answer, wrong_format, truncated. `details["faults"]` lists what was wrong: unknown_tool,
    wrong_tool, missing_argument, extra_argument, wrong_type, wrong_value, too_many_calls, too_few_calls, wrong_order.
    """

    @classmethod
    def check(cls, task: Task) -> None:
        """The payload must be one that `parse_matching` reads."""
        parse_matching(task)

    def judge(self, task: Task, reply: Reply) -> Verdict:
        """See `SingleTurnEnvironment.judge`."""
        matching = parse_matching(task)
        try:
            calls = NOTATIONS[matching.notation](reply.text)
        except BadCalls as error:
            return _format(matching.notation, str(error), reply.truncated)
        found = complaints(calls, matching)
        if not found and (calls or not reply.truncated):
            return Verdict(reward=1.0, success=True, kind="passed", details={"num_calls": len(calls)})
        if reply.truncated:
            return _format(matching.notation, "", True)
        if not calls:
            return _format(matching.notation, "No call was found.", False)
        details = {"num_calls": len(calls), "faults": [complaint.kind for complaint in found]}
        feedback = f"Wrong Answer\n{lines_of(found)}"
        return Verdict(reward=0.0, success=False, kind="wrong_answer", feedback=feedback, details=details)


def _format(notation: str, what: str, truncated: bool) -> Verdict:
    if truncated:
        what = "The response was cut at the length limit. Write a shorter response."
    feedback = f"Wrong Format\n{what}" + ("" if truncated else f"\n{_HOW[notation]}")
    kind = "truncated" if truncated else "wrong_format"
    return Verdict(reward=0.0, success=False, kind=kind, feedback=feedback)
