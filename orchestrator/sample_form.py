"""The form in which single attempts are recorded: one JSON object an attempt and a line.

    form           FORM; a record of another form is refused by its readers
    step, task, sample   training step that it belongs to (as in the file's name), task id, place in the group
    messages       the question: [{role, content}]
    response       in words; finish_reason, versions: of the weights that sampled
    verdict        {reward, success, kind, details}; feedback: text, blank if the environment said nothing
    advantage      group-relative
    token_ids, tokens, authors   one a token: id, text (see `orchestrator.token_pieces`), "model" or "environment"
    log_p          one a token: of the sampled token in the engine; null where the environment wrote
    hindsight      null for objectives without a teacher, else {prompt, shown, demo, used_feedback, demo_chars_cut,
                   feedback_chars_cut, attempt_chars_cut}. `shown` is False when there was nothing to show; `demo` is
                   null or {sample, text} of the attempt that was the demonstration, uncut
    teacher        null for attempts without scores, else {version, log_p, log_q, entropy, credit}, one value a token
                   and null where the environment wrote. `log_p` is the student's that the credit is made with: the
                   learner's before the batch's first step where it was asked, else the engine's; credit is
                   log_q - log_p in nats

Numbers are rounded to 5 digits after the point.
"""

FORM = 1
