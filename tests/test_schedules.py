"""Slots of schedules agree with those of other programs. `scripts/schedule-diff` is the full size."""

from __future__ import annotations

from pathlib import Path

import pytest

from schedules import celery, clocks, driver

#: The same cases each time: what fails here fails everywhere.
SEED = 20_260_329
#: Cases of each comparison; a few seconds each.
COUNTS = {"cron": 1_500, "celery": 2_000, "relative": 2_000, "solar": 400, "oncalendar": 400}


@pytest.fixture(scope="module")
def slots() -> Path:
    program = driver.build(release=False)
    driver.check_release(program)
    return program


@pytest.mark.parametrize("kind", COUNTS)
def test_slots_are_those_of_the_program_whose_manner_is_followed(kind: str, slots: Path) -> None:
    there, _missing = driver.oracles([kind])
    assert there, f"nothing on this machine can be compared with {kind}"

    for oracle in there:
        result = driver.compare_all(oracle, slots, COUNTS[kind], SEED)

        bad = result.undocumented()
        assert not bad, f"against {oracle.against}: {bad}\n" + driver.examples_of(result, bad)
        assert result.agree > 0.9 * result.cases, "nearly everything differs on purpose: look at the classes"
        assert result.refused < 0.2 * result.cases, "both refuse nearly everything: look at the cases"


def test_celery_is_asked_as_its_own_beat_asks_it() -> None:
    for case in celery.cases(SEED, 60):
        answer = celery.expected(case)
        if isinstance(answer, celery.Dispatches) and not answer.without_end:
            assert celery.dispatched_by_scheduler(case) == answer.slots, case


def test_python_reads_the_zones_of_its_package_and_not_those_of_the_machine() -> None:
    assert clocks.zoneinfo.TZPATH == ()
