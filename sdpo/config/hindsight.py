"""The hindsight prompt."""

from typing import Literal, Self

from pydantic import model_validator

from sdpo.bounds import Reward, Tokens
from sdpo.section import Section


class HindsightConfig(Section):
    """The prompt that the teacher reads (paper, section 3 and Table 2)."""

    max_prompt_tokens: Tokens = 512
    """Longest hindsight prompt; demonstration, feedback and attempt are cut to fit (head and tail kept), never the
    question."""
    success_threshold: Reward = 0.5
    """An attempt whose environment leaves `success` out of the verdict is a success from this reward on."""
    exclude_own_success: bool = True
    """A successful attempt is never its own demonstration."""
    include_demo: bool = True
    """Show the successful attempt of the group with the highest reward, to attempts whose reward is not higher."""
    include_feedback: bool = True
    """Show the environment's feedback."""
    feedback_only_without_demo: bool = True
    """Feedback is shown only to attempts without a demonstration (paper, Table 2)."""
    include_own_attempt: bool = False
    """Repeat the attempt itself beside its feedback or demonstration (paper, Table 6: it hurts). Alone it is no
    signal."""
    remove_thinking: bool = True
    """Cut <think> blocks out of demonstrations and repeated attempts."""
    template_version: Literal["1"] = "1"
    """Wording of the template; models that were made for one record it."""

    @model_validator(mode="after")
    def _something_to_show(self) -> Self:
        if not (self.include_demo or self.include_feedback):
            raise ValueError(
                "hindsight.include_feedback=false: allowed with hindsight.include_demo=false: true (without either no "
                "attempt carries a signal)"
            )
        return self
