"""Which messages belong to the run of the task that publishes them: retries, replacements, chains and chords.

A message with the running task's own id is a retry or a replacement. Other parts of a workflow have ids of
their own, and carry the run's id. There are two kinds of parts:

* One part alone carries the run on: a replacement, the next step of a chain, the body of a chord. It reports
  its own start and end, and the run succeeds only with the last one.
* A member works beside others: the header of a chord. It reports only a failure, which fails the run.

The first workflow that a task starts is followed, later ones are not. A plain `delay()` and a group without a
chord have no common end: they are not followed.
"""

from __future__ import annotations

from typing import Any

UNLOCK = "celery.chord_unlock"

# The headers that identify a run: Beat's process sets them, and each part passes them on.
RUN_HEADERS = (
    "deadbeat_beat",
    "deadbeat_entry",
    "deadbeat_slot",
    "deadbeat_first",
    # The task id of the run's first part; only later parts have it.
    "deadbeat_run",
    # The number of parts and retries before this part.
    "deadbeat_stage",
    # True: this part is one of several at the same time.
    "deadbeat_member",
)


def is_member(request: Any) -> bool:
    """Whether a part can only fail its run."""
    return bool(request.get("deadbeat_member"))


def stage_of(request: Any) -> int:
    """The number of parts and retries of its run before this attempt."""
    before = request.get("deadbeat_stage")
    return (before if isinstance(before, int) else 0) + int(request.get("retries") or 0)


def carried(request: Any, attempt: Any, headers: dict[str, Any], body: Any) -> dict[str, Any]:
    """The run headers of a message that a running task publishes; empty if it is not part of its run.

    `attempt` is the running task's state in this process; the function marks it when the run goes on.
    """
    ours = {name: value for name in RUN_HEADERS if (value := request.get(name)) is not None}
    if not ours.get("deadbeat_entry"):
        return {}
    if headers.get("id") == request.id:
        if int(headers.get("retries") or 0) > int(request.get("retries") or 0):
            return ours
        role: bool | None = is_member(request)
    else:
        role = _role(request, attempt, headers, body)
    if role is None:
        return {}
    if attempt is not None:
        attempt.goes_on = True
    ours.update(deadbeat_run=request.get("deadbeat_run") or request.id, deadbeat_stage=stage_of(request) + 1)
    ours.pop("deadbeat_member", None)
    if role:
        ours["deadbeat_member"] = True
    return ours


def _role(request: Any, attempt: Any, headers: dict[str, Any], body: Any) -> bool | None:
    """True: a member; false: it carries the run on; None: no part of the run."""
    embed = body[2] if isinstance(body, (tuple, list)) and len(body) == 3 else None
    embed = embed if isinstance(embed, dict) else {}
    task_id = headers.get("id")
    if task_id in _ids(_chord_of(request)):
        # The body of a chord inside another chord's header is a member of that chord.
        return bool(embed.get("chord"))
    chain = request.get("chain")
    if chain and task_id in _ids(chain[-1]):
        return is_member(request) or bool(embed.get("chord"))
    if is_member(request):
        return None
    if headers.get("task") == UNLOCK:
        workflow, role = _second(body[0] if body else None), True
    elif embed.get("chord"):
        workflow, role = embed["chord"], True
    elif embed.get("chain"):
        workflow, role = embed["chain"][0], False
    else:
        return None
    return role if _is_first(attempt, _outermost(workflow)) else None


def _chord_of(request: Any) -> Any:
    """The body that waits for this task."""
    if request.get("task") == UNLOCK:
        return _second(request.get("args"))
    return request.get("chord")


def _second(arguments: Any) -> Any:
    """The second argument of `celery.chord_unlock`: the body."""
    return arguments[1] if isinstance(arguments, (tuple, list)) and len(arguments) > 1 else None


def _outermost(signature: Any) -> str | None:
    while isinstance(outer := _options(signature).get("chord"), dict):
        signature = outer
    return _options(signature).get("task_id")


def _is_first(attempt: Any, workflow: str | None) -> bool:
    if attempt is None:
        return False
    if attempt.workflow is None:
        attempt.workflow = workflow
    return bool(attempt.workflow == workflow)


def _ids(signature: Any) -> set[str]:
    """The task ids under which a signature is published."""
    if not isinstance(signature, dict):
        return set()
    tasks = (signature.get("kwargs") or {}).get("tasks") if signature.get("subtask_type") == "chain" else None
    parts = [signature, *(tasks or ())]
    return {task_id for part in parts if (task_id := _options(part).get("task_id")) is not None}


def _options(signature: Any) -> dict[str, Any]:
    options = signature.get("options") if isinstance(signature, dict) else None
    return options if isinstance(options, dict) else {}
