"""The reports of a real Beat, with each of the three common schedulers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Callable
from uuid import UUID

from redis import Redis

from conftest import PROJECT, StartCelery, reporting_to
from deadbeat import __version__
from sink import Sink


def newest_schedule(sink: Sink) -> dict[str, dict[str, Any]]:
    schedules = sink.wait_for(lambda: sink.of("beat_schedule"))
    return {entry["name"]: entry for entry in schedules[-1]["entries"]}


def test_beat_reports_its_whole_schedule_itself_and_a_canary(
    sink: Sink, start_celery: StartCelery, send: Callable[..., Any], broker: str
) -> None:
    beat = start_celery("beat", **reporting_to(sink.url))

    # The schedule: every entry in the server's form, the canary marked as such.
    entries = newest_schedule(sink)
    assert set(entries) == {
        "often", "nightly", "yearly", "hourly", "dusk", "celery.backend_cleanup", "deadbeat.canary",
    } - ({"celery.backend_cleanup"} - set(entries))  # fmt: skip  # Redis expires results by itself
    assert entries["often"]["schedule"] == {"kind": "interval", "seconds": 3600.0}
    assert entries["hourly"]["schedule"] == {
        "kind": "interval",
        "seconds": 3600.5,
        "relative": True,
        "timezone": "Europe/Berlin",
    }
    assert entries["nightly"]["schedule"] == {
        "kind": "celery",
        "minute": "0,20,40",
        "hour": "1,2,4",
        "day_of_week": "1,2,3,4,5",
        "day_of_month": "*",
        "month_of_year": "*",
        "timezone": "Europe/Berlin",
    }
    assert entries["dusk"]["schedule"] == {
        "kind": "solar",
        "event": "sunset",
        "latitude": 52.5,
        "longitude": 13.4,
    }
    assert (entries["nightly"]["queue"], entries["often"]["queue"]) == ("night", None)
    assert (entries["often"]["task"], entries["often"]["enabled"]) == ("watched.ok", True)
    assert (entries["often"]["grace_seconds"], entries["often"]["longest_run_seconds"]) == (60, 86400)
    assert entries["yearly"]["longest_run_seconds"] == 61
    assert all(entries[name]["next_due_at"].endswith("Z") for name in ("often", "nightly", "dusk"))
    assert entries["deadbeat.canary"] == {
        "name": "deadbeat.canary",
        "task": "deadbeat.canary",
        "canary": True,
        "schedule": {"kind": "interval", "seconds": 1.0},
        "enabled": True,
        "grace_seconds": 60,
        "longest_run_seconds": 2,
        "longest_run_is_a_guess": False,
        "queue": None,
        "next_due_at": None,
    }

    # Beat sleeps up to 300 s, and sends heartbeats all the same.
    alive = sink.wait_for(lambda: len(sink.of("beat_alive")) >= 3 and sink.of("beat_alive"))[0]
    assert (alive["beat"], alive["period_seconds"], alive["grace_seconds"]) == ("watched", 1, 60)
    assert (alive["host"], alive["pid"]) == (socket.gethostname(), beat.process.pid)
    # The same boot id as the workers of its host report, so that a lost host is one incident.
    assert alive["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert len(sink.of("beat_schedule")) == 1
    # All reports name this start of this process.
    named = {
        (one["boot"], one["host"], one["pid"], one["started_at"])
        for one in (*sink.of("beat_alive"), *sink.of("beat_schedule"))
    }
    assert len(named) == 1
    assert alive["boot"] == str(UUID(alive["boot"]))
    assert datetime.fromisoformat(alive["started_at"][:-1]) <= datetime.fromisoformat(alive["at"][:-1])

    # The canary waits in the broker until a worker runs it; the SDK reports none that is too old by then.
    assert sink.of("run_started") == []
    start_celery("worker", **reporting_to(sink.url))
    end = sink.wait_for(lambda: sink.of("run_finished", entry="deadbeat.canary"))[0]
    assert (end["task"], end["outcome"], end["beat"]) == ("deadbeat.canary", "success", "watched")
    assert sink.of("run_started", run_id=end["run_id"])

    # The canary is in no schedule: neither the app's, nor the one that Beat keeps.
    assert send("entries_of_conf", entry=None).get(timeout=30) in ([], ["celery.backend_cleanup"])
    assert beat.stop() < 5
    kept = subprocess.run(
        [sys.executable, "-c", f"import shelve; print(*shelve.open({beat_file(beat)!r})['entries'])"],
        cwd=PROJECT,
        env={**os.environ, "CELERY_BROKER_URL": broker},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert "nightly" in kept
    assert "deadbeat.canary" not in kept
    assert all(batch.body["sdk"]["version"] == __version__ for batch in sink.batches)


def beat_file(beat: Any) -> str:
    return str(beat.log.parent / "schedule")


def test_run_started_by_beat_carries_its_entry_to_the_worker(sink: Sink, start_celery: StartCelery) -> None:
    start_celery("worker", **reporting_to(sink.url, DEADBEAT_CANARY="0", DEADBEAT_NAME="second"))
    start_celery(
        "beat", OFTEN_SECONDS="0.5", **reporting_to(sink.url, DEADBEAT_CANARY="0", DEADBEAT_NAME="second")
    )

    sink.wait_for(lambda: len(sink.of("run_finished", entry="often", outcome="success")) >= 3)

    started = sink.of("run_started")
    assert {(e["entry"], e["beat"], e["task"]) for e in started} == {("often", "second", "watched.ok")}
    assert len({e["run_id"] for e in started}) == len(started)
    assert "deadbeat.canary" not in newest_schedule(sink)


def dues_of(sink: Sink, name: str) -> list[str | None]:
    """The reported due times of an entry after its runs, in order of arrival."""
    entries = [entry for event in sink.of("beat_due") for entry in event["entries"]]
    return [entry["next_due_at"] for entry in entries if entry["name"] == name]


def test_beat_says_when_what_it_sent_is_due_next(sink: Sink, start_celery: StartCelery) -> None:
    start_celery("beat", OFTEN_SECONDS="2", **reporting_to(sink.url))

    sink.wait_for(lambda: len(dues_of(sink, "often")) >= 3)

    sent_first, again = sink.of("beat_due")[:2]
    assert sent_first["beat"] == "watched"
    assert [entry["name"] for entry in sent_first["entries"]] == ["often"], "neither what was not sent"
    assert dues_of(sink, "deadbeat.canary") == [], "nor what is not in the schedule"
    due = datetime.fromisoformat(sent_first["entries"][0]["next_due_at"].replace("Z", "+00:00"))
    said = datetime.fromisoformat(again["at"].replace("Z", "+00:00"))
    assert abs((said - due).total_seconds()) < 1.5, "it was sent again when Beat had said"


def test_beat_is_neither_stopped_nor_held_up_by_a_hanging_server(
    sink: Sink, start_celery: StartCelery, broker: str
) -> None:
    sink.answer = "hang"
    beat = start_celery("beat", OFTEN_SECONDS="0.2", **reporting_to(sink.url, DEADBEAT_CANARY="0"))
    queue = Redis.from_url(broker)

    sink.wait_for(lambda: sink.batches)
    deadline = time.monotonic() + 20
    while queue.llen("celery") < 10 and time.monotonic() < deadline:
        time.sleep(0.02)

    assert queue.llen("celery") >= 10
    # Read the log before the end: Celery logs a traceback if SIGTERM comes while it publishes.
    assert "Traceback" not in beat.output()
    assert beat.stop() < 5


def test_beat_lives_audibly_while_its_broker_is_frozen(
    sink: Sink, start_celery: StartCelery, redis_port: int, broker: str
) -> None:
    start_celery("beat", **reporting_to(sink.url))
    sink.wait_for(lambda: sink.of("beat_alive"))
    redis_pid = Redis.from_url(broker).info("server")["process_id"]

    os.kill(redis_pid, signal.SIGSTOP)
    try:
        before = len(sink.of("beat_alive"))
        sink.wait_for(lambda: len(sink.of("beat_alive")) >= before + 4)
    finally:
        os.kill(redis_pid, signal.SIGCONT)

    # The canaries go on afterwards.
    queue = Redis.from_url(broker)
    waiting = queue.llen("celery")
    sink.wait_for(lambda: queue.llen("celery") >= waiting + 2)


def test_redbeat_is_listed_whole(sink: Sink, start_celery: StartCelery) -> None:
    beat = start_celery("beat", "--scheduler", "redbeat.RedBeatScheduler", **reporting_to(sink.url))

    entries = newest_schedule(sink)

    assert {"often", "nightly", "yearly", "hourly", "deadbeat.canary"} <= set(entries)
    assert entries["nightly"]["schedule"]["hour"] == "1,2,4"
    assert entries["nightly"]["schedule"]["timezone"] == "Europe/Berlin"
    assert entries["nightly"]["next_due_at"].endswith("Z")
    assert entries["often"]["schedule"] == {"kind": "interval", "seconds": 3600.0}
    sink.wait_for(lambda: len(sink.of("beat_alive")) >= 2)
    assert "Traceback" not in beat.output()


def rule_in(seconds: float, count: int) -> dict[str, str]:
    start = datetime.now(timezone.utc) + timedelta(seconds=seconds)
    return {"RULE_START": start.isoformat(timespec="seconds"), "RULE_COUNT": str(count)}


def test_rule_of_redbeat_is_followed_to_its_end(sink: Sink, start_celery: StartCelery) -> None:
    start_celery(
        "beat", "--scheduler", "redbeat.RedBeatScheduler", **rule_in(2, count=3), **reporting_to(sink.url)
    )

    entry = newest_schedule(sink)["rule"]
    assert entry["schedule"] == {"kind": "hint", "class": "rrule", "text": "FREQ=SECONDLY;INTERVAL=2;COUNT=3"}
    assert entry["next_due_at"].endswith("Z")
    sink.wait_for(lambda: None in dues_of(sink, "rule"))

    dues = dues_of(sink, "rule")
    assert dues[-1] is None
    reported = [entry["next_due_at"], *dues[:-1]]
    assert reported == sorted(set(reported)), "each one later than the one before"


def test_redbeat_that_takes_over_says_when_all_are_due(sink: Sink, start_celery: StartCelery) -> None:
    first = Sink()
    redbeat = ("--scheduler", "redbeat.RedBeatScheduler", "--max-interval", "1")
    rule = rule_in(2, count=100)
    try:
        acting = start_celery("beat", *redbeat, **rule, **reporting_to(first.url))
        first.wait_for(lambda: dues_of(first, "rule"))
        standby = start_celery("beat", *redbeat, **rule, **reporting_to(sink.url))
        standby.wait_for_output("beat: Starting")
        assert sink.batches == []
        acting.stop()

        entries = newest_schedule(sink)
        assert entries["rule"]["schedule"]["kind"] == "hint"
        assert all(entries[name]["next_due_at"] for name in ("rule", "often", "nightly"))
        reported = dues_of(first, "rule")
        sink.wait_for(lambda: dues_of(sink, "rule"))
        assert dues_of(sink, "rule")[0] > max(reported)
    finally:
        first.close()


def test_standby_redbeat_does_not_seem_alive(sink: Sink, start_celery: StartCelery, broker: str) -> None:
    first = Sink()
    try:
        start_celery("beat", "--scheduler", "redbeat.RedBeatScheduler", **reporting_to(first.url))
        first.wait_for(lambda: first.of("beat_alive"))
        standby = start_celery("beat", "--scheduler", "redbeat.RedBeatScheduler", **reporting_to(sink.url))
        standby.wait_for_output("beat: Starting")
        seen = len(first.of("beat_alive"))
        first.wait_for(lambda: len(first.of("beat_alive")) >= seen + 2)

        assert sink.batches == []
    finally:
        first.close()


def test_more_entries_than_the_server_takes_are_left_out_and_said(
    sink: Sink, start_celery: StartCelery
) -> None:
    beat = start_celery("beat", MORE_ENTRIES="5003", **reporting_to(sink.url))

    entries = newest_schedule(sink)

    assert len(entries) == 5_000
    assert "deadbeat.canary" in entries
    assert "many-00000" in entries
    beat.wait_for_output("entries are not watched, beyond the limit of 5000: ")
    (line,) = (line for line in beat.output().splitlines() if "are not watched" in line)
    left_out = int(line.split("Deadbeat: ")[1].split(" ")[0])
    # In order of their names; "nightly" and some others come after the many generated ones.
    assert left_out == 5003 + 5 + ("celery.backend_cleanup" in entries) - 4_999
    assert "yearly" in line
    assert "many-00000" not in line
