"""Signals of one monitor lie in two spools: their times decide, in whatever order the spools are replayed."""

from __future__ import annotations

import uuid
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import parts
from postgres import Postgres
from processes import Processes

# Two signals, in the order of their times, and the monitor's status after them.
RID = uuid.uuid4()
PAIRS = {
    "success, fail": (["", "/fail"], "down"),
    "fail, success": (["/fail", ""], "up"),
    "start, success": (["/start", ""], "up"),
    "start, success with rid": ([f"/start?rid={RID}", f"?rid={RID}"], "up"),
}
GRACE = 3


@pytest.mark.proof("two spools, replayed in either order")
def test_the_order_of_replay_changes_no_verdict(database: Postgres, tmp_path: Path) -> None:
    with Processes(database, tmp_path) as two:
        # No report is due: only the pings decide. A run may take as long as the grace.
        schedule = {"kind": "interval", "seconds": 3_600}
        monitors = {
            (pair, first): two.servers["a"].api(
                "POST",
                "/monitors",
                {
                    "name": f"{pair}, {first} replays first",
                    "schedule": schedule,
                    "grace_seconds": GRACE,
                },
            )
            for pair in PAIRS
            for first in ("its first", "its last")
        }
        paths = {case: urlsplit(monitor["ping_url"]).path for case, monitor in monitors.items()}
        # Nobody judges before both are replayed.
        two.judge.stop()
        two.cut("a", "b")
        for turn in (0, 1):
            for (pair, first), path in paths.items():
                # `a` is replayed first.
                holder = "ab"[turn] if first == "its first" else "ba"[turn]
                two.ping(holder, path + PAIRS[pair][0][turn])
        two.heal("a")
        two.heal("b")
        two.judge.again()

        def seen(monitor: dict[str, str]) -> dict[str, object]:
            found: dict[str, object] = two.servers["a"].api("GET", f"/monitors/{monitor['id']}")
            return found

        for monitor in monitors.values():
            assert seen(monitor)["ping_count"] == 2, "each was heard once"
        # Judgement comes after the replay: a run that is still open would open an incident.
        last = two.servers["a"].api(
            "POST",
            "/monitors",
            {
                "name": "the last one",
                "schedule": {"kind": "interval", "seconds": 1},
                "grace_seconds": 2 * GRACE,
            },
        )
        two.ping("a", urlsplit(last["ping_url"]).path)
        parts.wait_for(
            "the incident of the last one",
            lambda: any(one["name"] == "the last one" for one in two.incidents("open")),
            60,
        )

        wrong = {
            f"{pair}, {first} replays first": seen(monitor)["status"]
            for (pair, first), monitor in monitors.items()
            if seen(monitor)["status"] != PAIRS[pair][1]
        }
        assert not wrong
        alerted = sorted((one["name"], one["cause"]) for one in two.incidents("open"))
        failed = [(f"success, fail, {first} replays first", "FAILED") for first in ("its first", "its last")]
        assert alerted == sorted([*failed, ("the last one", "MISSED")])
        causes = {one["cause"] for one in two.incidents()}
        assert causes == {"FAILED", "MISSED"}, "no false OVERRUN"
