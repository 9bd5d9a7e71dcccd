"""Check that tasks with several turns can be played with the model's chat template."""

from collections.abc import Iterable

from env_workers.environment import environment_class
from sdpo.chat import ChatTokenizer, check_turns
from sdpo.config import RunConfig
from sdpo.errors import ConfigError
from sdpo.types import Task


def check_conversations(config: RunConfig, tokenizer: ChatTokenizer, tasks: Iterable[Task]) -> None:
    """Check the environments that may take several turns.

    Raises `ModelError` if the chat template cannot show their observations, and `ConfigError` in a deterministic run.
    """
    if config.env.max_turns == 1:
        return
    kinds = {(task.environment, bool(task.tools)): task.tools for task in tasks}
    for (name, _), tools in sorted(kinds.items(), key=lambda item: item[0]):
        role = environment_class(name).observation_role
        if role is None:
            continue
        check_turns(tokenizer, role, tools=tools, enable_thinking=config.model.enable_thinking)
        if config.deterministic:
            raise ConfigError(
                f"deterministic=true, env.max_turns={config.env.max_turns}: environment {name} may take several turns, "
                f"which have no fixed order; allowed: deterministic=false, or env.max_turns=1"
            )
