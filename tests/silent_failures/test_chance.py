"""Faults and healthy events at random, from a seed: `make silent-failures-random` plays a hundred."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

import parts
from silent_failures import chance
from silent_failures.stage import CANARY, Open, Project

# Seeds that once failed, and the first seed, which shows that the generator works.
KEPT = (1, 5, 12, 14, 56)

PATIENT = ("DEADBEAT_GRACE_SECONDS", "DEADBEAT_BEAT_GRACE_SECONDS", "DEADBEAT_CANARY_GRACE_SECONDS")


def seeds() -> list[int]:
    """`SILENT_FAILURES_SEEDS`: one number, or the first and the last of a row (`1-100`)."""
    first, _, last = os.environ.get("SILENT_FAILURES_SEEDS", "").partition("-")
    return list(range(int(first), int(last or first) + 1)) if first else list(KEPT)


@pytest.mark.long
@pytest.mark.parametrize("seed", seeds())
def test_whatever_happens_each_fault_is_reported_once_and_nothing_else(
    open_stage: Open, redis: parts.Redis, tmp_path: Path, seed: int
) -> None:
    seconds = float(os.environ.get("SILENT_FAILURES_SECONDS", "120"))
    server = parts.Server(tmp_path).ready()
    try:
        stage = open_stage(
            redis.url,
            chance.SCHEDULE,
            project=Project(server.url, server.keys["API key"], server.keys["ping key"]),
            env=dict.fromkeys(PATIENT, f"{chance.PATIENCE:g}"),
        )
        workers = {name: stage.worker(name, queues=chance.QUEUES) for name in ("one", "two")}
        beat = stage.beat()
        stage.healthy(*chance.SCHEDULE, CANARY, workers=("one@shop", "two@shop"))
        world = chance.World(stage, redis, server, random.Random(seed), beat, workers)
        try:
            chance.play(world, seconds)
            chance.quiet(world)
        except AssertionError as fault:
            diary = "\n".join(world.diary)
            raise AssertionError(f"seed {seed}: {fault}\n{diary}") from fault
        finally:
            print(f"seed {seed}:", *world.diary, sep="\n")
    finally:
        server.stop()
