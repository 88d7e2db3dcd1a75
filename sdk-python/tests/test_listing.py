"""Schedules in native form, and the lists kept in a database."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery import Celery
from celery.schedules import crontab, schedule, solar

from conftest import PROJECT
from deadbeat.celery_schedule import next_due, wire_schedule, zone_name

app = Celery("proj", broker="memory://")
app.conf.timezone = "America/New_York"


class Weekdays(schedule):
    """A schedule with rules of its own: its fields do not tell when it is due."""

    def is_due(self, last_run_at: datetime) -> Any:
        return False, 60


class TzAwareCrontab(crontab):
    """As in django-celery-beat."""

    def __init__(self, *args: Any, tz: Any, **kwargs: Any) -> None:
        self.tz = tz
        super().__init__(*args, **kwargs)

    def is_due(self, last_run_at: datetime) -> Any:
        return super().is_due(last_run_at.astimezone(self.tz))


@pytest.mark.parametrize(
    ("plan", "wire"),
    [
        (schedule(1000), {"kind": "interval", "seconds": 1000.0}),
        (schedule(timedelta(milliseconds=250)), {"kind": "interval", "seconds": 0.25}),
        (schedule(90, relative=True), {"kind": "interval", "seconds": 90.0, "relative": True}),
        (Weekdays(60), {"kind": "unsupported", "class": "Weekdays"}),
        (solar("dawn_civil", 1, 2), {"kind": "unsupported", "class": "solar"}),
        (None, {"kind": "unsupported", "class": "NoneType"}),
    ],
)
def test_schedule_in_native_form(plan: Any, wire: dict[str, Any]) -> None:
    assert wire_schedule(plan, app) == wire


@pytest.mark.parametrize(
    ("plan", "fields"),
    [
        (crontab(), "* * * * *"),
        (crontab("0", "0-23", "0-6", "1-31", "1-12"), "0 * * * *"),
        (
            crontab("*/45", "22-2", "5-1", "*/10", "11-2"),
            "0,45 0,1,2,22,23 0,1,5,6 1,11,21,31 1,2,11,12",
        ),
        (crontab({50, 5}, [3, 1], "sun", 13, 6), "5,50 1,3 0 13 6"),
    ],
)
def test_crontab_as_expanded_sets(plan: crontab, fields: str) -> None:
    wire = wire_schedule(plan, app)

    names = ("minute", "hour", "day_of_week", "day_of_month", "month_of_year")
    assert " ".join(wire[name] for name in names) == fields
    assert (wire["kind"], wire["timezone"]) == ("celery", "America/New_York")


def test_zone_of_the_schedule_wins_over_the_apps() -> None:
    plan = TzAwareCrontab("0", "9", tz=ZoneInfo("Asia/Tokyo"))

    assert wire_schedule(plan, app)["timezone"] == "Asia/Tokyo"
    due = next_due(plan, datetime.now(timezone.utc))
    assert due is not None
    assert datetime.fromtimestamp(due, ZoneInfo("Asia/Tokyo")).strftime("%H:%M") == "09:00"


@pytest.mark.parametrize(
    ("zone", "name"),
    [
        (timezone.utc, "UTC"),
        (ZoneInfo("Europe/Berlin"), "Europe/Berlin"),
        (timezone(timedelta(hours=2)), "Etc/GMT-2"),
        (timezone(timedelta(hours=-5)), "Etc/GMT+5"),
        (type("PytzLike", (), {"zone": "Asia/Kathmandu"})(), "Asia/Kathmandu"),
    ],
)
def test_zone_name(zone: Any, name: str) -> None:
    assert zone_name(zone) == name


def test_next_due_is_after_the_last_run_and_never_in_the_past() -> None:
    now = datetime.now(timezone.utc)

    fresh = next_due(schedule(3600, app=app), now - timedelta(minutes=10))
    overdue = next_due(schedule(3600, app=app), now - timedelta(days=10))

    assert fresh == pytest.approx((now + timedelta(minutes=50)).timestamp(), abs=5)
    assert overdue == pytest.approx(now.timestamp(), abs=5)


DATABASE = """
import json, os
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
from deadbeat.config import Settings
from deadbeat.listing import list_entries
app = Celery("proj", broker="memory://")
app.conf.timezone = "UTC"
minute = IntervalSchedule.objects.create(every=1, period="minutes")
# Hours away from now, as this scheduler hides it; four o'clock UTC it always shows. Tokyo is 9 h ahead.
away = 9 if (now().hour + 9) % 24 != 4 else 12
far = (now() + timedelta(hours=away + 9)).hour
tokyo = CrontabSchedule.objects.create(minute="30", hour=str(far), timezone="Asia/Tokyo")
clocked = ClockedSchedule.objects.create(clocked_time=now() + timedelta(days=9))
PeriodicTask.objects.create(name="every minute", task="t", interval=minute, queue="q")
PeriodicTask.objects.create(name="disabled", task="t", interval=minute, enabled=False)
over = PeriodicTask(name="run once already", task="t", interval=minute, one_off=True, total_run_count=1)
over.save()
PeriodicTask.objects.create(name="expired", task="t", interval=minute, expires=now() - timedelta(days=1))
PeriodicTask.objects.create(name="tokyo", task="t", crontab=tokyo)
PeriodicTask.objects.create(name="once", task="t", clocked=clocked, one_off=True)
scheduler = DatabaseScheduler(app=app)
before = list(PeriodicTask.objects.order_by("pk").values())
entries = list_entries(scheduler, app, Settings(url="http://127.0.0.1", key="k"))
assert list(PeriodicTask.objects.order_by("pk").values()) == before, "listing has written"
print(json.dumps({"far": far, "shown": sorted(scheduler.schedule), "entries": entries}))
"""


def test_django_celery_beat_is_listed_whole_and_nothing_is_written(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DATABASE],
        cwd=PROJECT,
        env={"PATH": "/usr/bin:/bin", "DATABASE_FILE": str(tmp_path / "db.sqlite3")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)
    entries = {entry["name"]: entry for entry in listed["entries"]}

    assert "tokyo" not in listed["shown"], "the scheduler itself hides it, which is why the rows are read"
    enabled = {name for name, entry in entries.items() if entry["enabled"]}
    assert enabled - {"celery.backend_cleanup"} == {"every minute", "tokyo", "once"}
    assert set(entries) >= {"disabled", "run once already", "expired"}
    assert entries["every minute"]["schedule"] == {"kind": "interval", "seconds": 60.0}
    assert entries["every minute"]["queue"] == "q"
    assert entries["tokyo"]["schedule"]["timezone"] == "Asia/Tokyo"
    assert entries["tokyo"]["schedule"]["hour"] == str(listed["far"])
    due = datetime.fromisoformat(entries["tokyo"]["next_due_at"].replace("Z", "+00:00"))
    assert due.astimezone(ZoneInfo("Asia/Tokyo")).strftime("%H:%M") == f"{listed['far']:02}:30"
    assert entries["once"]["schedule"] == {"kind": "unsupported", "class": "clocked"}
    assert entries["once"]["next_due_at"].endswith("Z")
