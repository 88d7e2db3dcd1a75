"""One of several processes is cut off, or dies with acknowledged pings: only silent monitors get alerts."""

from __future__ import annotations

import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import parts
from conftest import Size
from load import Load
from postgres import Postgres
from processes import Processes

SCHEDULE = {"kind": "interval", "seconds": 1}
GRACE = 2


def monitor(two: Processes, name: str) -> dict[str, str]:
    made: dict[str, str] = two.servers["b"].api(
        "POST", "/monitors", {"name": name, "schedule": SCHEDULE, "grace_seconds": GRACE}
    )
    return made


def at(two: Processes, name: str, monitors: list[dict[str, str]]) -> list[str]:
    """The ping URLs at this process."""
    return [two.servers[name].url + urlsplit(one["ping_url"]).path for one in monitors]


@pytest.mark.proof("one of two processes is cut off from the database")
@pytest.mark.parametrize("how", ["refuses", "hangs"])
def test_a_process_that_is_cut_off_alone_has_nobody_blamed(
    database: Postgres, tmp_path: Path, how: str, size: Size
) -> None:
    with Processes(database, tmp_path, {"DEADBEAT_LISTENER_PATIENCE": "300"}) as two:
        held = [monitor(two, f"held {n}") for n in range(4)]
        seen = [monitor(two, f"seen {n}") for n in range(2)]
        dead = monitor(two, "dead")
        with (
            Load(at(two, "a", held), size.connections, pause=0.005) as by_a,
            Load(at(two, "b", seen), 2, pause=0.02) as by_b,
        ):
            by_a.wait_for_more(20)
            by_b.wait_for_more(20)
            two.cut("a", how=how)
            # The monitor falls silent while a process is cut off that may hold its report.
            two.ping("b", urlsplit(dead["ping_url"]).path)
            cut_at = time.monotonic()
            long = max(size.cut_seconds, 2 * (GRACE + 1))
            parts.wait_for("the end of the cut", lambda: time.monotonic() - cut_at > long, long + 5)
            by_a.wait_for_more(20)
            by_b.wait_for_more(20)
            assert two.incidents() == []
            waits = two.readiness()
            assert waits["judging"] is False
            assert (waits["waits_for"], waits["lost_listeners"]) == ("lost_listener", 1)
            assert waits["waits_until"] is not None
            assert two.judge.metric("deadbeat_lost_listeners") == 1
            assert two.judge.metric("deadbeat_deployment_judging") == 0
            assert parts.call("GET", f"{two.judge.url}/readyz")[0] == 200, "its own work is done"

            two.heal("a")
            parts.wait_for(
                "the incident of the one that is dead",
                lambda: [one["name"] for one in two.incidents("open")] == ["dead"],
                60,
            )
            by_a.wait_for_more(20)
            by_a.end()
            by_b.end()
        two.servers["a"].drained()
        assert [(one["name"], one["cause"]) for one in two.incidents()] == [("dead", "MISSED")]
        assert not by_a.refusals()
        assert not by_b.refusals()
        by_a.check(database.url, only={one["id"] for one in held})
        parts.wait_for("judging", lambda: two.readiness()["judging"], 30)
        assert two.readiness()["lost_listeners"] == 0


@pytest.mark.proof("a process is killed with acknowledged pings in its spool")
def test_a_process_that_is_killed_with_its_spool_has_nobody_blamed_until_it_returns(
    database: Postgres, tmp_path: Path
) -> None:
    with Processes(database, tmp_path, {"DEADBEAT_LISTENER_PATIENCE": "300"}) as two:
        held = [monitor(two, f"held {n}") for n in range(10)]
        for one in held:
            two.ping("a", urlsplit(one["ping_url"]).path)
        two.cut("a", "b")
        for one in held:
            two.ping("a", urlsplit(one["ping_url"]).path)
        two.servers["a"].part.kill()
        two.lines["a"].heal()
        two.heal("b")
        # The excuse of the blind spell is over by then: judgement waits only for the lost process.
        two.ping("b", urlsplit(monitor(two, "dead")["ping_url"]).path)
        until = time.monotonic() + 3 * (GRACE + 1)
        parts.wait_for("their deadlines", lambda: time.monotonic() > until, 60)
        assert two.incidents() == []
        assert two.readiness()["waits_for"] == "lost_listener"

        two.servers["a"].again()
        two.servers["a"].drained()
        # Monitors that stay silent get alerts from now on; each reported twice before.
        parts.wait_for("the incidents", lambda: len(two.incidents("open")) == len(held) + 1, 60)
        for one in held:
            assert two.servers["a"].api("GET", f"/monitors/{one['id']}")["ping_count"] == 2


@pytest.mark.proof("a process is killed and never returns")
def test_a_process_that_never_returns_is_waited_for_up_to_the_limit(
    database: Postgres, tmp_path: Path
) -> None:
    with Processes(database, tmp_path, {"DEADBEAT_LISTENER_PATIENCE": "12"}) as two:
        dead = monitor(two, "dead")
        two.servers["a"].part.kill()
        two.ping("b", urlsplit(dead["ping_url"]).path)
        parts.wait_for("the wait", lambda: two.readiness()["waits_for"] == "lost_listener", 12)
        parts.wait_for(
            "its incident after the limit",
            lambda: [(one["name"], one["cause"]) for one in two.incidents("open")] == [("dead", "MISSED")],
            60,
        )
        assert two.readiness()["waits_for"] is None


@pytest.mark.proof("a process stops in good order")
def test_a_process_that_stops_in_good_order_is_not_waited_for(database: Postgres, tmp_path: Path) -> None:
    with Processes(database, tmp_path, {"DEADBEAT_LISTENER_PATIENCE": "3600"}) as two:
        dead = monitor(two, "dead")
        assert two.servers["a"].stop() == 0
        two.ping("b", urlsplit(dead["ping_url"]).path)
        parts.wait_for(
            "its incident",
            lambda: [one["name"] for one in two.incidents("open")] == ["dead"],
            60,
        )
        assert two.readiness()["lost_listeners"] == 0
