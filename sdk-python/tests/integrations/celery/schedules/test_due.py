"""When sent entries are due next, as Beat reports it: real schedulers, ticked by hand."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.beat import BeatLazyFunc, PersistentScheduler, ScheduleEntry, Scheduler
from celery.schedules import BaseSchedule, crontab, schedstate, schedule

from conftest import PROJECT
from deadbeat.config import Settings
from deadbeat.integrations.celery import beat as beat_module
from deadbeat.integrations.celery.beat import BeatReporter
from deadbeat.integrations.celery.runs.reporter import RunReporter
from deadbeat.integrations.celery.schedules import due as due_module
from deadbeat.integrations.celery.schedules.due import ENTRY_LIMIT, DueHints

SETTINGS = Settings(url="http://127.0.0.1", key="k", canary=False)
LONG_AGO = datetime(2020, 1, 1, tzinfo=timezone.utc)


class Recorder:
    """Stands in for the transport: keeps the events."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def put(self, event: dict[str, Any], **lane: Any) -> None:
        self.events.append(event)

    def every(self, period: float, act: Any) -> None:
        """Ignore periodic duties."""

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]

    def dues(self) -> list[dict[str, str | None]]:
        """The entries of each beat_due: name → next due."""
        return [{e["name"]: e["next_due_at"] for e in event["entries"]} for event in self.of("beat_due")]


class OwnPlan(BaseSchedule):
    """A user's class that reads its due time elsewhere."""

    due_at = LONG_AGO

    def remaining_estimate(self, last_run_at: datetime) -> timedelta | None:
        return None if self.due_at <= last_run_at else self.due_at - self.now()

    def is_due(self, last_run_at: datetime) -> Any:
        left = self.remaining_estimate(last_run_at)
        return schedstate(left is not None and left <= timedelta(0), 5.0)


class Broken(schedule):
    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        raise RuntimeError("not today")

    def is_due(self, last_run_at: datetime) -> Any:
        return schedstate(last_run_at == LONG_AGO, 5.0)


@pytest.fixture
def app(broker: str) -> Iterator[Celery]:
    app = Celery("shop", broker=broker, set_as_current=False)
    app.conf.timezone = "Europe/Berlin"
    yield app
    app.close()


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def overdue(plan: Any, **more: Any) -> dict[str, Any]:
    return {"task": "t", "schedule": plan, "last_run_at": LONG_AGO, **more}


def wrapped(scheduler: Scheduler, app: Celery, recorder: Recorder) -> Scheduler:
    BeatReporter(RunReporter(app, SETTINGS, recorder)).wrap(scheduler)
    return scheduler


def scheduler_of(app: Celery, recorder: Recorder, **entries: dict[str, Any]) -> Scheduler:
    app.conf.beat_schedule = entries
    return wrapped(Scheduler(app=app), app, recorder)


def tick_until_idle(scheduler: Scheduler) -> float:
    """How long Beat would sleep then."""
    while (interval := scheduler.tick()) <= 0:
        pass
    return interval


def instant(text: str | None) -> float:
    assert text is not None
    assert text.endswith("Z")
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def test_those_due_together_make_one_report_right_after_the_last_one(app: Celery, recorder: Recorder) -> None:
    entries = {f"n{number}": overdue(schedule(3600 + number)) for number in range(30)}
    scheduler = scheduler_of(app, recorder, **entries, later=overdue(crontab(0, 4)))
    scheduler.schedule["later"].last_run_at = datetime.now(timezone.utc)

    sent_at = time.time()
    tick_until_idle(scheduler)

    (event,) = recorder.of("beat_due")
    assert set(event) == {"id", "type", "at", "beat", "entries"}
    assert event["beat"] == "shop"
    assert abs(instant(event["at"]) - time.time()) < 5
    (dues,) = recorder.dues()
    assert set(dues) == set(entries)
    for number in range(30):
        assert instant(dues[f"n{number}"]) == pytest.approx(sent_at + 3600 + number, abs=5)


def test_one_report_a_second_at_most(app: Celery, recorder: Recorder) -> None:
    scheduler = scheduler_of(app, recorder, often=overdue(schedule(0.05)), nightly=overdue(crontab(0, 4)))
    deadline = time.monotonic() + 20

    while len(recorder.dues()) < 3 and time.monotonic() < deadline:
        time.sleep(min(tick_until_idle(scheduler), 0.05))

    first, second, third = (instant(event["at"]) for event in recorder.of("beat_due"))
    assert second - first >= 0.99
    assert third - second >= 0.99
    assert [set(dues) for dues in recorder.dues()] == [{"often", "nightly"}, {"often"}, {"often"}]


def test_beat_does_not_sleep_through_a_report_that_waits_for_its_second(
    app: Celery, recorder: Recorder
) -> None:
    scheduler = scheduler_of(app, recorder, first=overdue(schedule(3600)), second=overdue(schedule(3600)))
    soon = datetime.now(timezone.utc) + timedelta(seconds=0.3)
    scheduler.schedule["second"].last_run_at = soon - timedelta(hours=1)

    time.sleep(tick_until_idle(scheduler))
    assert [set(dues) for dues in recorder.dues()] == [{"first"}]
    nap = tick_until_idle(scheduler)
    assert 0 < nap <= 1
    assert len(recorder.dues()) == 1
    time.sleep(nap)
    tick_until_idle(scheduler)

    assert [set(dues) for dues in recorder.dues()] == [{"first"}, {"second"}]


def test_what_could_not_be_sent_has_had_its_turn_all_the_same(app: Celery, recorder: Recorder) -> None:
    def fails() -> None:
        raise RuntimeError("the application's own")

    entry = overdue(schedule(60), args=[BeatLazyFunc(fails)])
    scheduler = scheduler_of(app, recorder, faulty=entry)

    tick_until_idle(scheduler)

    assert [set(dues) for dues in recorder.dues()] == [{"faulty"}]


def test_fault_in_a_schedule_neither_stops_the_sending_nor_the_other_reports(
    app: Celery, recorder: Recorder, redis_port: int
) -> None:
    scheduler = scheduler_of(app, recorder, broken=overdue(Broken(60)), fine=overdue(schedule(60)))

    tick_until_idle(scheduler)

    with app.connection_for_read() as connection:
        assert connection.default_channel._size("celery") == 2
    # Unknown is not the same as never.
    assert [set(dues) for dues in recorder.dues()] == [{"fine"}]
    assert {e["name"]: e["next_due_at"] for e in recorder.of("beat_schedule")[0]["entries"]}["broken"] is None


def test_entry_that_only_beat_can_compute(
    app: Celery, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beat_module, "RELIST_SECONDS", 0.0)
    plan = OwnPlan(app=app)
    plan.due_at = datetime.now(timezone.utc) - timedelta(seconds=1)
    scheduler = scheduler_of(app, recorder, own=overdue(plan), other=overdue(schedule(3600)))

    # Sent, and over.
    tick_until_idle(scheduler)
    (snapshot,) = recorder.of("beat_schedule")
    listed = {entry["name"]: entry for entry in snapshot["entries"]}
    assert listed["own"]["schedule"] == {"kind": "hint", "class": "OwnPlan"}
    assert instant(listed["own"]["next_due_at"]) == pytest.approx(time.time(), abs=5)
    assert recorder.dues()[0]["own"] is None

    # Its due time comes from elsewhere: it is due again without a sending. Beat reports that once.
    plan.due_at = datetime.now(timezone.utc) + timedelta(hours=1)
    recorder.events.clear()
    for _ in range(3):
        tick_until_idle(scheduler)
    (moved,) = recorder.dues()
    assert set(moved) == {"own"}
    assert instant(moved["own"]) == pytest.approx(plan.due_at.timestamp(), abs=0.5)
    assert recorder.of("beat_schedule") == []


def test_after_a_restart_the_first_schedule_says_when_all_are_due(
    app: Celery, recorder: Recorder, tmp_path: Path
) -> None:
    app.conf.beat_schedule = {"hourly": {"task": "t", "schedule": 3600.0}, "night": overdue(crontab(0, 4))}
    first = PersistentScheduler(app=app, schedule_filename=str(tmp_path / "schedule"))
    first.schedule["hourly"].last_run_at = datetime.now(timezone.utc) - timedelta(minutes=50)
    tick_until_idle(wrapped(first, app, Recorder()))
    first.close()

    second = PersistentScheduler(app=app, schedule_filename=str(tmp_path / "schedule"))
    tick_until_idle(wrapped(second, app, recorder))
    second.close()

    (snapshot,) = recorder.of("beat_schedule")
    dues = {entry["name"]: instant(entry["next_due_at"]) for entry in snapshot["entries"]}
    assert dues["hourly"] == pytest.approx(time.time() + 600, abs=5)
    assert dues["night"] > time.time(), "sent by the first one"
    assert recorder.of("beat_due") == []


def test_entry_added_while_running_is_listed_when_it_is_sent(
    app: Celery, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beat_module, "EARLY_RELIST_SECONDS", 0.0)
    scheduler = scheduler_of(app, recorder, old=overdue(schedule(3600)))
    tick_until_idle(scheduler)

    scheduler.add(name="new", **overdue(schedule(1800)))
    tick_until_idle(scheduler)

    assert [len(event["entries"]) for event in recorder.of("beat_schedule")] == [1, 2]
    new = recorder.of("beat_schedule")[1]["entries"][0]
    assert instant(new["next_due_at"]) == pytest.approx(time.time() + 1800, abs=5)


def entry_of(name: str, plan: Any, **attributes: Any) -> ScheduleEntry:
    entry = ScheduleEntry(name=name, task="t", schedule=plan)
    vars(entry).update(attributes)
    return entry


def test_only_the_last_sending_counts_and_only_of_what_is_in_the_schedule() -> None:
    hints = DueHints()
    now = time.time()

    for ago in (500, 400, 300):
        hints.note_sent(entry_of("a", schedule(3600)), now - ago)
    hints.note_sent(entry_of("stranger", schedule(3600)), now)

    (hint,) = hints.take(idle=True, known={"a", "b"})
    assert hint["name"] == "a"
    assert instant(hint["next_due_at"]) == pytest.approx(now + 3300, abs=1)
    assert hints.round_due is None


def test_a_one_off_is_never_due_again() -> None:
    hints = DueHints()
    row = type("Row", (), {"one_off": True})()

    hints.note_sent(entry_of("once", schedule(3600), model=row), time.time())

    assert hints.take(idle=True, known=None) == [{"name": "once", "next_due_at": None}]


def test_busy_beat_gathers_for_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(due_module, "ROUND_SECONDS", 0.2)
    hints = DueHints()

    hints.note_sent(entry_of("a", schedule(3600)), time.time())
    assert hints.take(idle=False, known=None) == []
    time.sleep(0.2)
    hints.note_sent(entry_of("b", schedule(3600)), time.time())

    assert [hint["name"] for hint in hints.take(idle=False, known=None)] == ["a", "b"]


def test_slow_arithmetic_gets_a_twentieth_of_beats_time() -> None:
    class Slow(schedule):
        def remaining_estimate(self, last_run_at: datetime) -> timedelta:
            time.sleep(0.03)
            return timedelta(hours=1)

    hints = DueHints()
    for number in range(10):
        hints.note_sent(entry_of(f"n{number}", Slow(60)), time.time())

    started = time.monotonic()
    first = hints.take(idle=True, known=None)
    spent = time.monotonic() - started
    # An entry that is sent again before its turn does not move to the end.
    hints.note_sent(entry_of("n2", Slow(60)), time.time())

    assert [hint["name"] for hint in first] == ["n0", "n1"]
    assert hints.round_due == pytest.approx(started + 20 * spent, abs=0.1)
    assert hints.take(idle=True, known=None) == []
    hints._not_before = 0.0
    assert hints.take(idle=True, known=None)[0]["name"] == "n2"


def test_what_waits_is_bounded() -> None:
    hints = DueHints()
    plan = schedule(3600)

    for number in range(ENTRY_LIMIT + 10):
        hints.note_sent(entry_of(f"n{number}", plan), time.time())

    assert len(hints._sent) == ENTRY_LIMIT
    assert "n9" not in hints._sent


DATABASE = """
import json, os, time
os.environ["DJANGO_SETTINGS_MODULE"] = "dcb_settings"
import django
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
from datetime import timedelta
from django.utils.timezone import now
from celery import Celery
from django_celery_beat.models import ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask
from django_celery_beat.schedulers import DatabaseScheduler
from deadbeat.integrations.celery import beat
from deadbeat.config import Settings
from deadbeat.integrations.celery.runs.reporter import RunReporter

beat.RELIST_SECONDS = beat.EARLY_RELIST_SECONDS = beat.RESEND_SECONDS = 0.0
beat.LAST_SHOT_SECONDS = -1.0
told = []

class Recorder:
    def put(self, event, **lane):
        told.append(event)

    def every(self, period, act):
        pass

def tick(seconds=0.0, until=lambda: False):
    end = time.monotonic() + seconds
    while True:
        if scheduler.tick() > 0 and (time.monotonic() >= end or until()):
            return
        time.sleep(0.02)

def snapshot():
    event = [event for event in told if event["type"] == "beat_schedule"][-1]
    return {e["name"]: [e["enabled"], e["next_due_at"], e["schedule"]] for e in event["entries"]}

def dues():
    events = [event for event in told if event["type"] == "beat_due"]
    return {e["name"]: e["next_due_at"] for event in events for e in event["entries"]}

app = Celery("proj", broker="memory://")
app.conf.timezone = "Europe/Berlin"
ahead = now() + timedelta(seconds=2)
clocked = ClockedSchedule.objects.create(clocked_time=ahead)
tokyo = CrontabSchedule.objects.create(minute="*", hour="*", timezone="Asia/Tokyo")
minute = IntervalSchedule.objects.create(every=1, period="minutes")
ago = now() - timedelta(hours=1)
PeriodicTask.objects.create(name="once", task="t", clocked=clocked, one_off=True)
PeriodicTask.objects.create(name="tokyo", task="t", crontab=tokyo, last_run_at=ago)
PeriodicTask.objects.create(name="interval", task="t", interval=minute, last_run_at=ago)
PeriodicTask.objects.create(name="one interval", task="t", interval=minute, last_run_at=ago, one_off=True)
scheduler = DatabaseScheduler(app=app)
settings = Settings(url="http://127.0.0.1", key="k", canary=False, grace=6.0, beat_period=2.0)
beat.BeatReporter(RunReporter(app, settings, Recorder())).wrap(scheduler)
out = {"ahead": ahead.timestamp()}

tick()
out["before"] = snapshot()
tick(10, until=lambda: "once" in dues())
out["dues"], out["sent_at"] = dues(), time.time()
tick()
# The row does not say so yet.
out["row"] = list(PeriodicTask.objects.filter(name="once").values("enabled", "total_run_count"))
out["sent"] = snapshot()
# django-celery-beat comes across it and disables it.
PeriodicTask.objects.filter(name="tokyo").update(description="changed")
from django_celery_beat.models import PeriodicTasks
PeriodicTasks.update_changed()
time.sleep(0.1)
tick(0.5)
out["row_disabled"] = list(PeriodicTask.objects.filter(name="once").values("enabled", "total_run_count"))
out["waiting"] = snapshot()
tick(30, until=lambda: not snapshot()["once"][0])
out["over"], out["over_at"] = snapshot(), time.time()
# And somebody enables it anew, for another time.
again = now() + timedelta(minutes=5)
ClockedSchedule.objects.filter(pk=clocked.pk).update(clocked_time=again)
row = PeriodicTask.objects.get(name="once")
row.enabled = True
row.save()
tick()
out["again"], out["again_at"] = snapshot(), again.timestamp()
print(json.dumps(out))
"""


def test_django_celery_beat_and_its_one_offs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DATABASE],
        cwd=PROJECT,
        env={"PATH": "/usr/bin:/bin", "DATABASE_FILE": str(tmp_path / "db.sqlite3")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "failed; the application" not in done.stderr
    out = json.loads(done.stdout)

    # Before: only Beat can say when it is due.
    enabled, due, wire = out["before"]["once"]
    assert (enabled, wire["kind"], wire["class"]) == (True, "hint", "clocked")
    assert instant(wire["text"]) == int(out["ahead"])
    assert instant(due) == pytest.approx(out["ahead"], abs=0.5)
    assert out["before"]["tokyo"][2]["timezone"] == "Asia/Tokyo"

    # Sent: never again; the others at their next time.
    assert out["dues"]["once"] is None
    assert out["dues"]["one interval"] is None
    assert instant(out["dues"]["interval"]) == pytest.approx(out["sent_at"] + 60, abs=15)
    assert instant(out["dues"]["tokyo"]) % 60 == 0
    assert 0 <= instant(out["dues"]["tokyo"]) - out["sent_at"] + 15 < 75

    # The database row lags behind; the reported list does not.
    assert out["row"] == [{"enabled": True, "total_run_count": 0}]
    assert out["sent"]["once"][:2] == [True, None]
    assert instant(out["sent"]["interval"][1]) == pytest.approx(out["sent_at"] + 60, abs=15)

    # Its scheduler disables it at once, but the server waits for its run until its grace is over.
    assert out["row_disabled"] == [{"enabled": False, "total_run_count": 0}]
    assert out["waiting"]["once"][:2] == [True, None]
    assert out["over"]["once"][:2] == [False, None]
    assert out["over_at"] >= out["ahead"] + 5

    # Enabled anew: listed with its new time.
    enabled, due, wire = out["again"]["once"]
    assert enabled
    assert instant(due) == pytest.approx(out["again_at"], abs=0.5)
    assert instant(wire["text"]) == int(out["again_at"])
