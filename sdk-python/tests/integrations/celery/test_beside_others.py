"""The real instrumentation of other vendors beside the SDK, in a real Beat and a real worker.

Other vendors put a dict of their own into each message's headers (`headers["headers"]`), and Celery
republishes only that dict on a retry.
"""

from __future__ import annotations

from typing import Any

import pytest

from conftest import StartCelery, reporting_to
from sink import Sink

# The environment that keeps ddtrace from searching its agent and from sending telemetry.
QUIET = {
    "DD_TRACE_AGENT_URL": "http://127.0.0.1:1",
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
    "DD_REMOTE_CONFIGURATION_ENABLED": "false",
    "DD_CRASHTRACKING_ENABLED": "false",
}
# Entry → how its first run ends: outcome and the exception's class.
ENDS = {
    "good": ("success", None),
    "flaky": ("success", None),
    "hopeless": ("retries_exhausted", "ValueError"),
    "auto": ("retries_exhausted", "ValueError"),
    "replaced": ("success", None),
    "replaced_badly": ("failure", "KeyError"),
    "chained": ("success", None),
    "chained_badly": ("failure", "KeyError"),
}
# How many retries and parts came before the part that ended.
STAGES = {"good": 0, "chained": 4, "chained_badly": 2}


@pytest.mark.parametrize("first", ["deadbeat", "other"])
@pytest.mark.parametrize(
    "other", ["nobody", "sentry", "sentry_crons", "ddtrace", "opentelemetry", "everybody"]
)
def test_every_run_is_reported_to_its_end_beside_other_instrumentation(
    other: str, first: str, sink: Sink, start_celery: StartCelery
) -> None:
    environment = {"BESIDE": other, "FIRST": first, **QUIET, **reporting_to(sink.url)}
    worker = start_celery("worker", project="beside", **environment)
    start_celery("beat", project="beside", **environment)

    for entry, (outcome, error) in ENDS.items():
        end: dict[str, Any] = sink.wait_for(lambda entry=entry: sink.of("run_finished", entry=entry))[0]
        assert (entry, end["outcome"], end["error"]) == (entry, outcome, error)
        # One run from its publishing by Beat to its end, with its retries.
        kinds = {"run_published", "run_received", "run_started", "run_finished"}
        if entry != "good":
            kinds.add("run_retried")
        sink.wait_for(
            lambda end=end, kinds=kinds: (
                kinds <= {e["type"] for e in sink.events if e.get("run_id") == end["run_id"]}
            )
        )
        reported = [event for event in sink.events if event.get("run_id") == end["run_id"]]
        assert {event["entry"] for event in reported} == {entry}
        assert {event["beat"] for event in reported} == {"beside"}
        assert end["retries"] == STAGES.get(entry, 1)
    assert "the application is not affected" not in worker.output()
