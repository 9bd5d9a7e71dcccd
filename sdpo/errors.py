"""The one error vocabulary.

Two families matter to callers. A `UserError` is bad input: one clear line that names the key or file, the
value and what is allowed; the command line prints it and exits with code 2. An `InfrastructureError` is a
broken part of the system: it is retried or it stops the run, and it is never a reward and never feedback.
"""


class SdpoError(Exception):
    """Base of every error that this project raises on purpose. `exit_code` is the command line's."""

    exit_code = 1


class UserError(SdpoError):
    """Bad input. The message is one line; the exit code is 2."""

    exit_code = 2


class ConfigError(UserError):
    """A run file or an override that cannot be used."""


class PlacementError(UserError):
    """A run that asks for more than its cluster has or could ever have."""


class TaskFileError(UserError):
    """A task set that is missing, empty or malformed."""


class EnvironmentFault(UserError):
    """An environment of the user's own that raised, or whose answer is no verdict. It is never made into a reward."""


class ModelError(UserError):
    """A model folder that is missing, incomplete or of an unsupported kind."""


class CheckpointError(UserError):
    """A checkpoint that is missing a part, corrupt, or of another run."""


class RecordingError(UserError):
    """Recorded rollouts that are missing, damaged, or of another model."""


class StorageError(UserError):
    """A URI that cannot be used: an unknown scheme, a package that is missing, no such bucket, no credentials."""


class SandboxUnavailable(UserError):
    """The configured sandbox cannot work on this machine; the message says how to fix that."""


class PromptTooLong(UserError):
    """A task whose prompt does not fit the model's window; never cut silently."""


class InfrastructureError(SdpoError):
    """A part of the system broke: a container, a runner, an engine, an actor."""


class OutOfMemory(InfrastructureError):
    """A role had not enough memory, which ended the run. The line names it, its plan and the keys to change."""


class StageTimeout(InfrastructureError):
    """A wait passed its deadline. Names the actor and the stage that did not answer."""

    def __init__(self, actor: str, stage: str, timeout_s: float) -> None:
        super().__init__(f"{actor} did not finish {stage} within {timeout_s:g} s")
        self.actor, self.stage, self.timeout_s = actor, stage, timeout_s

    def __reduce__(self) -> tuple[type["StageTimeout"], tuple[str, str, float]]:
        return type(self), (self.actor, self.stage, self.timeout_s)


class WeightSyncError(InfrastructureError):
    """A weight update was incomplete, corrupt, or failed its audit. The receiver must not serve."""


class LearnerDied(InfrastructureError):
    """A learner rank is gone; the gang starts again from the newest checkpoint."""


class TransferError(InfrastructureError):
    """An object store did not take a file, or did not give one, in time. What was complete in it stays."""


class LockLost(InfrastructureError):
    """The run directory's lock could not be renewed in time, or another run has it: this one must not write."""


class DiskFull(InfrastructureError):
    """The run directory cannot take more. What was complete in it stays."""


class RunInterrupted(SdpoError):
    """The run stopped on request at a batch boundary, with a checkpoint."""

    exit_code = 130


class StoppedByAlarm(SdpoError):
    """An alarm ended the run, as `health.on_alarm: stop` asks for, with a checkpoint."""

    exit_code = 3
