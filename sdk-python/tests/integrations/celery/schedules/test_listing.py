"""Schedules in the server's form, and lists that a database holds."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery import Celery
from celery.schedules import BaseSchedule, crontab, schedule, solar
from dateutil.rrule import FR, MO
from django_celery_beat.clockedschedule import clocked
from redbeat.schedules import rrule

from conftest import PROJECT
from deadbeat.config import Settings
from deadbeat.integrations.celery.schedules import listing
from deadbeat.integrations.celery.schedules import wire as celery_schedule
from deadbeat.integrations.celery.schedules.wire import next_due, wire_schedule, zone_name

app = Celery("proj", broker="memory://")
app.conf.timezone = "America/New_York"


class Weekdays(schedule):
    """A schedule with its own rules: its fields do not show when it is due."""

    def is_due(self, last_run_at: datetime) -> Any:
        return False, 60


class TzAwareCrontab(crontab):
    """As in django-celery-beat."""

    def __init__(self, *args: Any, tz: Any, **kwargs: Any) -> None:
        self.tz = tz
        super().__init__(*args, **kwargs)

    def is_due(self, last_run_at: datetime) -> Any:
        return super().is_due(last_run_at.astimezone(self.tz))


class Holidays(TzAwareCrontab):
    def is_due(self, last_run_at: datetime) -> Any:
        return False, 3600


class Horizon(solar):
    """A class that overrides no method, and computes otherwise."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cal.horizon = "-3"


class Never(schedule):
    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        return timedelta.max


class Vault(BaseSchedule):
    """A class of the user's own, whose `repr` must not be sent."""

    def __init__(self) -> None:
        super().__init__(app=app)
        self.password = "hunter2"

    def __repr__(self) -> str:
        return f"<Vault {self.password}>"

    __str__ = __repr__

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        return last_run_at + timedelta(minutes=5) - self.now()

    def is_due(self, last_run_at: datetime) -> Any:
        return self.remaining_estimate(last_run_at) <= timedelta(0), 1


def in_tokyo() -> datetime:
    return datetime.now(ZoneInfo("Asia/Tokyo"))


def naive_utc() -> datetime:
    return datetime.now(timezone.utc).replace(tzinfo=None)


def nameless_zone() -> ZoneInfo:
    """A zone object as Celery makes it on a machine that does not name its zone."""
    for folder in ("/usr/share/zoneinfo", "/usr/lib/zoneinfo"):
        path = Path(folder, "Europe/Berlin")
        if path.exists():
            return ZoneInfo.from_file(io.BytesIO(path.read_bytes()), key="local")
    pytest.skip("no zone files here")


@pytest.mark.parametrize(
    ("plan", "wire"),
    [
        (schedule(1000), {"kind": "interval", "seconds": 1000.0}),
        # Too short and too long for the server, which refuses these entries by name.
        (schedule(timedelta(milliseconds=250)), {"kind": "interval", "seconds": 0.25}),
        (schedule(timedelta(days=400)), {"kind": "interval", "seconds": 34_560_000.0}),
        (
            schedule(90, relative=True),
            {"kind": "interval", "seconds": 90.0, "relative": True, "timezone": "America/New_York"},
        ),
        (
            schedule(90, relative=True, nowfun=in_tokyo),
            {"kind": "interval", "seconds": 90.0, "relative": True, "timezone": "Asia/Tokyo"},
        ),
        (
            schedule(90, relative=True, nowfun=naive_utc),
            {"kind": "interval", "seconds": 90.0, "relative": True, "timezone": "America/New_York"},
        ),
        (
            solar("dawn_civil", 1, -2.5),
            {"kind": "solar", "event": "dawn_civil", "latitude": 1.0, "longitude": -2.5},
        ),
        # As django-celery-beat reads it from its database.
        (
            solar("sunset", Decimal("52.500000"), Decimal("13.4")),
            {"kind": "solar", "event": "sunset", "latitude": 52.5, "longitude": 13.4},
        ),
        (Weekdays(60), {"kind": "hint", "class": "Weekdays"}),
        (Holidays("0", "9", tz=ZoneInfo("Asia/Tokyo")), {"kind": "hint", "class": "Holidays"}),
        (Horizon("sunset", 1, 2), {"kind": "hint", "class": "Horizon"}),
        (Vault(), {"kind": "hint", "class": "Vault"}),
        (None, {"kind": "hint", "class": "NoneType"}),
        (
            clocked(datetime(2026, 12, 1, 9, 30, tzinfo=ZoneInfo("Europe/Berlin"))),
            {"kind": "hint", "class": "clocked", "text": "2026-12-01T08:30:00Z"},
        ),
    ],
)  # fmt: skip
def test_schedule_in_native_form(plan: Any, wire: dict[str, Any]) -> None:
    assert wire_schedule(plan, app) == wire


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ({"freq": "DAILY", "count": 3}, "FREQ=DAILY;COUNT=3"),
        ({"freq": 6}, "FREQ=SECONDLY"),
        (
            {"freq": "WEEKLY", "interval": 2, "byweekday": (0, FR), "byhour": 9, "byminute": [0, 30]},
            "FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,FR;BYHOUR=9;BYMINUTE=0,30",
        ),
        (
            {
                "freq": "MONTHLY",
                "until": datetime(2027, 1, 31, 12, tzinfo=timezone(timedelta(hours=2))),
                "byweekday": MO(-1),
                "bysetpos": -1,
                "wkst": MO,
            },
            "FREQ=MONTHLY;UNTIL=20270131T100000Z;WKST=MO;BYSETPOS=-1;BYDAY=-1MO",
        ),
    ],
)
def test_rule_of_redbeat_as_text(rule: dict[str, Any], text: str) -> None:
    assert wire_schedule(rrule(**rule, app=app), app) == {"kind": "hint", "class": "rrule", "text": text}


def test_hint_is_short_and_plain_whatever_a_class_is_called() -> None:
    odd = type("Night\n\x1bly" + "x" * 300, (Vault,), {})
    same_name = type("rrule", (Vault,), {"freq": "secret", "interval": "secret"})
    everything = rrule("YEARLY", byyearday=list(range(1, 366)), app=app)

    assert wire_schedule(odd(), app) == {"kind": "hint", "class": "Night  ly" + "x" * 191}
    assert wire_schedule(type("\n", (Vault,), {})(), app) == {"kind": "hint", "class": "unknown"}
    assert wire_schedule(same_name(), app) == {"kind": "hint", "class": "rrule"}
    assert len(wire_schedule(everything, app)["text"]) == 200


def test_zone_without_a_name_makes_it_a_hint() -> None:
    nepal = timezone(timedelta(hours=5, minutes=45))
    plan = TzAwareCrontab("*/15", "9-17", "mon-fri", {13, 1}, tz=nepal)
    elsewhere = Celery("elsewhere", broker="memory://", set_as_current=False)
    elsewhere.conf.timezone = nameless_zone()

    assert wire_schedule(plan, app) == {
        "kind": "hint",
        "class": "TzAwareCrontab",
        "text": "*/15 9-17 1,13 * mon-fri",
    }
    assert wire_schedule(crontab(0, 9), elsewhere) == {
        "kind": "hint",
        "class": "crontab",
        "text": "0 9 * * *",
    }
    assert wire_schedule(schedule(3600, relative=True), elsewhere)["kind"] == "hint"
    assert wire_schedule(schedule(3600), elsewhere)["kind"] == "interval"


@pytest.mark.parametrize(
    ("release", "clock", "zone"),
    [
        ("5.6.3", in_tokyo, "Asia/Tokyo"),
        # Treated as UTC, but matched in the app's zone all the same.
        ("5.6.3", naive_utc, "America/New_York"),
        ("5.7.0", in_tokyo, "America/New_York"),
    ],
)
def test_zone_of_a_crontab_with_a_clock_of_its_own(
    release: str, clock: Any, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(celery_schedule, "celery_version", release)

    assert wire_schedule(crontab(0, 9, nowfun=clock), app)["timezone"] == zone


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
        (timezone(timedelta(hours=14)), "Etc/GMT-14"),
        (timezone(timedelta(hours=15)), None),
        (timezone(timedelta(hours=5, minutes=45)), None),
        (type("PytzLike", (), {"zone": "Asia/Kathmandu"})(), "Asia/Kathmandu"),
        (type("Local", (), {"key": "local"})(), None),
        (type("File", (), {"key": "/etc/localtime"})(), None),
        (object(), None),
    ],
)
def test_zone_name(zone: Any, name: str | None) -> None:
    assert zone_name(zone) == name


def test_next_due_is_after_the_last_run_and_never_in_the_past() -> None:
    now = datetime.now(timezone.utc)

    fresh = next_due(schedule(3600, app=app), now - timedelta(minutes=10))
    overdue = next_due(schedule(3600, app=app), now - timedelta(days=10))
    overdue_crontab = next_due(crontab(app=app), now - timedelta(days=10))

    assert fresh == pytest.approx((now + timedelta(minutes=50)).timestamp(), abs=5)
    assert overdue == pytest.approx(now.timestamp(), abs=5)
    assert overdue_crontab is not None
    assert overdue_crontab <= datetime.now(timezone.utc).timestamp(), "not rounded into the future"


@pytest.mark.parametrize("clock", [in_tokyo, naive_utc, None])
def test_next_due_of_a_crontab_is_on_the_clock_that_is_reported(clock: Any) -> None:
    plan = crontab(0, 9, nowfun=clock, app=app)

    due = next_due(plan, datetime.now(timezone.utc))

    assert due is not None
    zone = ZoneInfo(wire_schedule(plan, app)["timezone"])
    assert datetime.fromtimestamp(due, zone).strftime("%H:%M:%S") == "09:00:00"


def test_next_due_of_a_relative_interval_is_round_on_its_own_clock() -> None:
    def in_nepal() -> datetime:
        return datetime.now(ZoneInfo("Asia/Kathmandu"))

    hourly = next_due(schedule(3600, relative=True, nowfun=in_nepal, app=app), in_nepal())
    daily = next_due(schedule(86_400, relative=True, app=app), datetime.now(timezone.utc))

    assert hourly is not None
    assert datetime.fromtimestamp(hourly, ZoneInfo("Asia/Kathmandu")).strftime("%M:%S.%f") == "00:00.000000"
    assert daily is not None
    assert datetime.fromtimestamp(daily, ZoneInfo("America/New_York")).strftime("%H:%M:%S") == "00:00:00"


@pytest.mark.parametrize(
    "plan",
    [
        # The class decides in is_due alone: its inherited estimate ignores that.
        Weekdays(60, app=app),
        Holidays("0", "9", tz=ZoneInfo("Asia/Tokyo")),
        BaseSchedule(app=app),
        Never(60, app=app),
        rrule("DAILY", dtstart=datetime(2020, 1, 1), count=3, app=app),
        None,
    ],
)
def test_next_due_is_none_when_never_or_unknown(plan: Any) -> None:
    assert next_due(plan, datetime.now(timezone.utc)) is None


def test_class_that_decides_in_is_due_alone_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    listing._warned_classes.clear()

    with caplog.at_level(logging.WARNING, logger="deadbeat"):
        for _ in range(3):
            assert listing._due(Weekdays(60, app=app), None) is None

    assert [record.getMessage().split(" overrides")[0] for record in caplog.records] == [
        "Deadbeat: the schedule class Weekdays"
    ]


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
from django_celery_beat.models import (
    ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask, SolarSchedule
)
from django_celery_beat.schedulers import DatabaseScheduler
from deadbeat.config import Settings
from deadbeat.integrations.celery.schedules.listing import list_entries
app = Celery("proj", broker="memory://")
app.conf.timezone = "UTC"
minute = IntervalSchedule.objects.create(every=1, period="minutes")
# Hours away from now, as this scheduler hides it; four o'clock UTC it always shows. Tokyo is 9 h ahead.
away = 9 if (now().hour + 9) % 24 != 4 else 12
far = (now() + timedelta(hours=away + 9)).hour
tokyo = CrontabSchedule.objects.create(minute="30", hour=str(far), timezone="Asia/Tokyo")
clocked = ClockedSchedule.objects.create(clocked_time=(now() + timedelta(days=9)).replace(microsecond=0))
dusk = SolarSchedule.objects.create(event="sunset", latitude="52.5", longitude="13.4")
PeriodicTask.objects.create(name="every minute", task="t", interval=minute, queue="q")
PeriodicTask.objects.create(name="disabled", task="t", interval=minute, enabled=False)
over = PeriodicTask(name="run once already", task="t", interval=minute, one_off=True, total_run_count=1)
over.save()
PeriodicTask.objects.create(name="expired", task="t", interval=minute, expires=now() - timedelta(days=1))
PeriodicTask.objects.create(name="tokyo", task="t", crontab=tokyo)
PeriodicTask.objects.create(name="once", task="t", clocked=clocked, one_off=True)
PeriodicTask.objects.create(name="dusk", task="t", solar=dusk)
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
    assert enabled - {"celery.backend_cleanup"} == {"every minute", "tokyo", "once", "dusk"}
    assert set(entries) >= {"disabled", "run once already", "expired"}
    assert entries["every minute"]["schedule"] == {"kind": "interval", "seconds": 60.0}
    assert entries["every minute"]["queue"] == "q"
    assert entries["tokyo"]["schedule"]["timezone"] == "Asia/Tokyo"
    assert entries["tokyo"]["schedule"]["hour"] == str(listed["far"])
    due = datetime.fromisoformat(entries["tokyo"]["next_due_at"].replace("Z", "+00:00"))
    assert due.astimezone(ZoneInfo("Asia/Tokyo")).strftime("%H:%M") == f"{listed['far']:02}:30"
    at = entries["once"]["schedule"].pop("text")
    assert entries["once"]["schedule"] == {"kind": "hint", "class": "clocked"}
    due = datetime.fromisoformat(entries["once"]["next_due_at"].replace("Z", "+00:00"))
    assert abs(due - datetime.fromisoformat(at.replace("Z", "+00:00"))) < timedelta(seconds=0.5)
    assert entries["dusk"]["schedule"] == {
        "kind": "solar",
        "event": "sunset",
        "latitude": 52.5,
        "longitude": 13.4,
    }


@pytest.mark.parametrize(
    ("options", "delay"),
    [
        ({}, None),
        ({"countdown": 8}, 8),
        ({"countdown": 0.5, "eta": datetime(2030, 1, 1, tzinfo=timezone.utc)}, 0.5),
        ({"countdown": -3}, None),
        ({"countdown": "8"}, None),
        ({"countdown": 1e12}, 366 * 86_400),
        # Ten minutes after it is due; in the past, it delays nothing.
        ({"eta": datetime(2030, 1, 1, 0, 10, tzinfo=timezone.utc)}, 600),
        ({"eta": datetime(2030, 1, 1, 0, 10)}, 600),
        ({"eta": datetime(2029, 1, 1, tzinfo=timezone.utc)}, None),
        # Beat may send late: an `expires` before the end of the grace does not shorten the grace.
        ({"expires": 1}, None),
    ],
)
def test_entry_says_how_long_after_its_slot_a_run_may_begin(
    options: dict[str, Any], delay: float | None
) -> None:
    due = datetime(2030, 1, 1, tzinfo=timezone.utc).timestamp()
    found = listing._Found("spread", "tasks.job", schedule(60), options, due=due)

    entry = listing._wire_entry(found, app, Settings(url="http://127.0.0.1", key="k"))

    assert entry.get("delay_seconds") == delay
