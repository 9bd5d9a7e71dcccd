"""The boards of one run: Run, Actors, Sandboxes."""

from panels import Board, Panel, Query, Row, quantiles, rate, series, signal

ROLES = ("rollout", "env", "teacher", "learner")


def _one(title: str, what: str, expr: str, legend: str = "", unit: str = "short", **more: float) -> Panel:
    return Panel(title, what, (Query(expr, legend),), unit, top=more.get("top"))


def _number(title: str, what: str, expr: str, unit: str = "short") -> Panel:
    return Panel(title, what, (Query(expr),), unit, "number")


NOW = Row(
    "Now",
    (
        _number("Steps done", "Rollout batches that were trained on.", f"max({series('sdpo_step')})"),
        _number("Steps planned", "After which the run ends.", f"max({series('sdpo_steps_planned')})"),
        _number(
            "Pass rate, held out",
            "pass@1 of the last evaluation.",
            f"max({series('sdpo_pass_rate', split='heldout')})",
            "percentunit",
        ),
        _number(
            "Since the last progress",
            "Since a stage began or an attempt was sampled, judged or scored.",
            f"time() - max({series('sdpo_last_progress_timestamp_seconds')})",
            "s",
        ),
        _number("Alarms that are on", "Of the health monitor.", f"sum({series('sdpo_alarm')})"),
        _number("Runs that go on", "Incarnations that are active.", f"sum({series('sdpo_run_active')})"),
    ),
)
LEARNING = Row(
    "Learning",
    (
        _one("Pass rate", "Is it learning?", series("sdpo_pass_rate"), "{{run}} {{split}}", "percentunit", top=1),
        Panel(
            "Reward",
            "Mean and best of the last step's attempts; mean of the last held-out evaluation.",
            (
                Query(series("sdpo_reward"), "{{run}}"),
                Query(series("sdpo_reward_best"), "{{run}} best"),
                Query(series("sdpo_heldout_reward"), "{{run}} heldout"),
            ),
        ),
        signal("Loss", "Of the last step.", ["train/loss"]),
        signal(
            "Entropy",
            "Of the student and of the teacher; a fall without a better pass rate is collapse.",
            ["train/entropy", "train/teacher_entropy"],
        ),
        signal("Student and teacher", "How far the teacher pulls.", ["train/teacher_gap", "train/teacher_kl"]),
        signal(
            "Attempts and tokens that teach",
            "Shares with a signal.",
            ["signal/samples_fraction", "signal/tokens_fraction"],
            "percentunit",
        ),
        signal(
            "What the teacher was shown",
            "Shares of attempts with a demonstration, with feedback.",
            ["hindsight/with_demo_fraction", "hindsight/with_feedback_fraction"],
            "percentunit",
        ),
        signal(
            "Groups without contrast",
            "All attempts passed, or none.",
            ["groups/all_passed_fraction", "groups/none_passed_fraction"],
            "percentunit",
        ),
        Panel(
            "Response length", "Tokens that the model wrote in an attempt.", quantiles("sdpo_response_length_tokens")
        ),
        signal("Cut off", "Share of responses that hit the limit.", ["rollout/truncated_fraction"], "percentunit"),
    ),
)
HEALTH = Row(
    "Health",
    (
        _one("Alarms", "1 while one is on.", series("sdpo_alarm"), "{{alarm}}"),
        _one("Alarms that began", "Episodes.", f"sum by (alarm) ({series('sdpo_alarms_total')})", "{{alarm}}"),
        signal(
            "Engine and learner disagree",
            "Mean and 99th percentile of the log-probability gap.",
            ["train/engine_gap_mean", "train/engine_gap_p99"],
        ),
        signal("Gradient norm", "Mean and largest of the step.", ["train/grad_norm", "train/grad_norm_max"]),
        _one("Attempts by outcome", "A minute.", rate("sdpo_attempts_total", "outcome") + " * 60", "{{outcome}}"),
        signal(
            "Dropped attempts", "Share that was lost to infrastructure.", ["attempts/dropped_fraction"], "percentunit"
        ),
    ),
)
SPEED = Row(
    "Speed",
    (
        Panel("Step time", "A whole step.", quantiles("sdpo_step_seconds"), "s"),
        _one("Tokens", "A second, by work.", rate("sdpo_tokens_total", "work"), "{{work}}"),
        _one("Attempts trained", "A minute.", rate("sdpo_attempts_trained_total", "run") + " * 60", "{{run}}"),
        _one("Steps", "Of every run that is chosen.", series("sdpo_step"), "{{run}}"),
    ),
)
KEPT = Row(
    "Checkpoints and disk",
    (
        Panel("Checkpoint time", "One checkpoint.", quantiles("sdpo_checkpoint_seconds"), "s"),
        _one(
            "Steps since the checkpoint",
            "What a crash would cost.",
            f"max by (run) ({series('sdpo_step')}) - max by (run) ({series('sdpo_checkpoint_step')})",
            "{{run}}",
        ),
        _one(
            "Disk of the run directory that is free",
            "Share.",
            f"max by (run) ({series('sdpo_run_dir_free_bytes')}) / max by (run) ({series('sdpo_run_dir_size_bytes')})",
            "{{run}}",
            "percentunit",
            top=1,
        ),
        _one(
            "Run time",
            "Since this incarnation began.",
            f"time() - max by (run) ({series('sdpo_run_start_timestamp_seconds')})",
            "{{run}}",
            "s",
        ),
    ),
)
RUN = Board("run", "sdpo: Run", "Does it learn, and is it healthy?", ("run",), (NOW, LEARNING, HEALTH, SPEED, KEPT))


def _waits(role: str) -> Panel:
    """Seconds of the role's actors by activity, per second; their sum is the number of actors."""
    spent = f"sum by (state) (rate({series('sdpo_actor_seconds_total', per_actor=True, role=role)}[$__rate_interval]))"
    return Panel(
        f"{role}: busy, or waiting for", "Actor-seconds a second.", (Query(spent, "{{state}}"),), shape="stack"
    )


_SPENT = series("sdpo_actor_seconds_total", per_actor=True)
_BUSY = series("sdpo_actor_seconds_total", per_actor=True, state="busy")
_ENGINE = '{run=~"$run",actor=~"$actor"}'


def _engine(title: str, what: str, name: str, legend: str = "{{actor}}", unit: str = "short", **more: float) -> Panel:
    """Show a metric of vLLM's own, of each engine; a `name` that ends in _total or _sum as its growth per second."""
    selector = f"ray_vllm_{name}{_ENGINE}"
    is_counter = name.endswith(("_total", "_sum"))
    return _one(title, what, f"rate({selector}[$__rate_interval])" if is_counter else selector, legend, unit, **more)


ENGINES = Row(
    "vLLM's engines",
    (
        _engine("Running requests", "Of each engine.", "num_requests_running"),
        _engine("Waiting requests", "Inside the engine; more than a few: it is full.", "num_requests_waiting"),
        _engine("KV cache in use", "1: requests are preempted.", "kv_cache_usage_perc", unit="percentunit", top=1),
        _engine("Preempted requests", "A second; they are computed again.", "request_num_preemptions_sum"),
        _engine("Generated tokens", "A second.", "generation_tokens_total"),
        _engine("Prompt tokens", "A second.", "prompt_tokens_total"),
    ),
)
ACTORS = Board(
    "actors",
    "sdpo: Actors",
    "Who waits for whom?",
    ("run", "actor"),
    (
        Row("Who waits for whom", tuple(_waits(role) for role in ROLES)),
        Row(
            "Busy",
            (
                _one(
                    "Busy share by role",
                    "1: never idle.",
                    f"sum by (role) (rate({_BUSY}[$__rate_interval])) / "
                    f"sum by (role) (rate({_SPENT}[$__rate_interval]))",
                    "{{role}}",
                    "percentunit",
                    top=1,
                ),
                Panel(
                    "Busy share by actor",
                    "Of the chosen actors, now.",
                    (
                        Query(
                            f"sum by (actor) (rate({_BUSY}[$__rate_interval])) / "
                            f"sum by (actor) (rate({_SPENT}[$__rate_interval]))",
                            "{{actor}}",
                        ),
                    ),
                    "percentunit",
                    "bars",
                    1,
                ),
                _one("Stages under way", "Calls of actors.", series("sdpo_stage_running"), "{{stage}}"),
                _one(
                    "Time by stage",
                    "Share of the time in which a stage was under way anywhere.",
                    rate("sdpo_stage_seconds_total", "stage"),
                    "{{stage}}",
                    "percentunit",
                ),
            ),
        ),
        Row(
            "Queues",
            (
                _one(
                    "Waiting",
                    "For a free actor of the role; learner: finished groups.",
                    series("sdpo_queue_length"),
                    "{{role}}",
                ),
                Panel("Wait", "For a free actor of the role.", quantiles("sdpo_queue_wait_seconds", "role"), "s"),
            ),
        ),
        Row(
            "Actors",
            (
                _one("Actors by state", "Of every role.", series("sdpo_actors"), "{{role}} {{pool}}"),
                _one(
                    "Restarts",
                    "By what had failed.",
                    f"sum by (role, failure) ({series('sdpo_restarts_total')})",
                    "{{role}} {{failure}}",
                ),
                _one(
                    "Memory",
                    "Resident, with the processes under an actor.",
                    series("sdpo_actor_memory_bytes", per_actor=True),
                    "{{actor}}",
                    "bytes",
                ),
            ),
        ),
        Row(
            "Weights",
            (
                _one(
                    "Weight version",
                    "Batch whose weights an actor holds.",
                    series("sdpo_weight_version", per_actor=True),
                    "{{actor}} {{stream}}",
                ),
                Panel("Staleness", "Batches between sampling and training.", quantiles("sdpo_staleness_batches")),
                Panel("Publication time", "By stream.", quantiles("sdpo_sync_seconds", "stream"), "s"),
                _one("Published", "Bytes a second.", rate("sdpo_sync_bytes_total", "stream"), "{{stream}}", "Bps"),
                _one(
                    "Failed receivers",
                    "Of publications.",
                    f"sum by (stream) ({series('sdpo_sync_failures_total')})",
                    "{{stream}}",
                ),
            ),
        ),
        ENGINES,
    ),
)
_ENV_BUSY = series("sdpo_actor_seconds_total", per_actor=True, role="env", state="busy")
_ENV_SPENT = series("sdpo_actor_seconds_total", per_actor=True, role="env")
SANDBOXES = Board(
    "sandboxes",
    "sdpo: Sandboxes",
    "Do the environments keep up, and what breaks in them?",
    ("run", "actor"),
    (
        Row(
            "Work",
            (
                _one(
                    "Answers",
                    "A second, by env worker.",
                    "sum by (actor) (rate("
                    f"{series('sdpo_env_execution_seconds', per_actor=True, suffix='_count')}[$__rate_interval]))",
                    "{{actor}}",
                ),
                Panel(
                    "Time of an answer",
                    "One turn of an attempt.",
                    quantiles("sdpo_env_execution_seconds", per_actor=True),
                    "s",
                ),
                Panel(
                    "Time of an answer, spread",
                    "How many a second fell where.",
                    (
                        Query(
                            "sum by (le) (rate("
                            f"{series('sdpo_env_execution_seconds', per_actor=True, suffix='_bucket')}"
                            "[$__rate_interval]))",
                            "{{le}}",
                        ),
                    ),
                    "s",
                    "heatmap",
                ),
                _one(
                    "Verdicts",
                    "A minute.",
                    rate("sdpo_env_judged_total", "verdict", per_actor=True) + " * 60",
                    "{{verdict}}",
                ),
            ),
        ),
        Row(
            "Pool",
            (
                _one("Env workers", "By state.", series("sdpo_actors", role="env"), "{{pool}}"),
                _one("Waiting attempts", "For an env worker.", series("sdpo_queue_length", role="env"), "{{run}}"),
                Panel(
                    "Wait for an env worker", "Of an attempt.", quantiles("sdpo_queue_wait_seconds", role="env"), "s"
                ),
                _one(
                    "Busy share",
                    "1: the pool is the bottleneck.",
                    f"sum by (run) (rate({_ENV_BUSY}[$__rate_interval])) / "
                    f"sum by (run) (rate({_ENV_SPENT}[$__rate_interval]))",
                    "{{run}}",
                    "percentunit",
                    top=1,
                ),
                _one(
                    "Memory",
                    "Resident, with the processes under an env worker.",
                    series("sdpo_actor_memory_bytes", per_actor=True, role="env"),
                    "{{actor}}",
                    "bytes",
                ),
            ),
        ),
        Row(
            "Faults",
            (
                _one(
                    "Infrastructure errors",
                    "By class.",
                    f"sum by (error) ({series('sdpo_infrastructure_errors_total', per_actor=True)})",
                    "{{error}}",
                ),
                _one(
                    "Infrastructure errors by env worker",
                    "Since it began.",
                    f"sum by (actor) ({series('sdpo_infrastructure_errors_total', per_actor=True)})",
                    "{{actor}}",
                ),
                _one(
                    "Sandboxes thrown away",
                    "A minute, by reason.",
                    rate("sdpo_env_sandboxes_recycled_total", "reason", per_actor=True) + " * 60",
                    "{{reason}}",
                ),
                _one(
                    "Env workers replaced",
                    "By what had failed.",
                    f"sum by (failure) ({series('sdpo_restarts_total', role='env')})",
                    "{{failure}}",
                ),
            ),
        ),
    ),
)
