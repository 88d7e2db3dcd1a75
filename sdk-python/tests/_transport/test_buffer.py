"""The bounded event buffer: which events it keeps, which it drops, and in which order."""

from __future__ import annotations

from typing import Any

from deadbeat._transport.buffer import EventBuffer
from deadbeat.integrations.celery.schedules.due import ENTRY_LIMIT, merge_due


def event(number: int) -> dict[str, int]:
    return {"id": number}


def ids(taken: list) -> list[int]:
    return [queued.event["id"] for queued in taken]


def due_event(number: int, **dues: str | None) -> dict[str, Any]:
    entries = [{"name": name, "next_due_at": due} for name, due in dues.items()]
    return {"id": number, "beat": "shop", "entries": entries}


def dues(event: dict[str, Any]) -> dict[str, str | None]:
    return {entry["name"]: entry["next_due_at"] for entry in event["entries"]}


def test_full_lane_drops_its_oldest_and_counts() -> None:
    buffer = EventBuffer(ordinary_limit=3)

    for number in range(5):
        buffer.put(event(number))

    assert ids(buffer.take(10)) == [2, 3, 4]
    assert buffer.dropped == 2


def test_vital_event_survives_a_flood_of_ordinary_ones() -> None:
    buffer = EventBuffer(ordinary_limit=100)

    buffer.put(event(-1), vital=True)
    for number in range(10_000):
        buffer.put(event(number))

    assert ids(buffer.take(1)) == [-1]
    assert buffer.dropped == 9_900


def test_what_somebody_expects_survives_a_flood_of_history() -> None:
    buffer = EventBuffer(ordinary_limit=10)

    for number in range(4):
        buffer.put(event(number))
    for number in range(4, 100):
        buffer.put(event(number), history=True)
    buffer.put(event(100))

    assert ids(buffer.take(10)) == [0, 1, 2, 3, 95, 96, 97, 98, 99, 100]
    assert (buffer.dropped, buffer.dropped_history) == (91, 91)
    for number in range(20):
        buffer.put(event(number))
    buffer.put(event(20), history=True)
    assert ids(buffer.take(20)) == list(range(10, 20)), (
        "the last of the history goes before the first of these"
    )
    assert (buffer.dropped, buffer.dropped_history) == (102, 92)


def test_only_the_newest_of_a_latest_lane_is_kept() -> None:
    buffer = EventBuffer()

    for number in range(50):
        buffer.put(event(number), latest="beat_alive")

    assert ids(buffer.take(10)) == [49]
    assert buffer.dropped == 0


def test_a_batch_is_in_order_of_arrival_across_parts() -> None:
    buffer = EventBuffer()

    buffer.put(event(0))
    buffer.put(event(1), vital=True)
    buffer.put(event(2))
    buffer.put(event(3), latest="beat_alive")

    assert ids(buffer.take(10)) == [0, 1, 2, 3]


def test_an_event_that_merges_takes_in_the_one_that_waits() -> None:
    buffer = EventBuffer()
    first = due_event(1, nightly="01:00", hourly="02:00")

    buffer.put(first, latest="beat_due", merge=merge_due)
    buffer.put(event(2), latest="beat_alive")
    buffer.put(due_event(3, hourly="03:00", once=None), latest="beat_due", merge=merge_due)

    taken = buffer.take(10)
    assert ids(taken) == [2, 3]
    assert dues(taken[1].event) == {"nightly": "01:00", "hourly": "03:00", "once": None}
    assert dues(first) == {"nightly": "01:00", "hourly": "02:00"}, "what may be on its way is never changed"


def test_unanswered_event_that_merges_is_not_superseded_but_taken_in() -> None:
    buffer = EventBuffer()
    buffer.put(due_event(1, nightly="01:00", hourly="02:00"), latest="beat_due", merge=merge_due)
    buffer.put(event(2), latest="beat_alive")
    unanswered = buffer.take(10)

    buffer.put(event(3), latest="beat_alive")
    buffer.put(due_event(4, hourly="03:00"), latest="beat_due", merge=merge_due)
    kept = [queued for queued in unanswered if not buffer.is_superseded(queued)]
    batch = buffer.merged(kept + buffer.take(10))

    assert ids(kept) == [1]
    assert ids(batch) == [3, 4], "with the id that has not been sent yet"
    assert dues(batch[1].event) == {"nightly": "01:00", "hourly": "03:00"}


def test_merging_is_bounded_and_keeps_the_newest() -> None:
    older = due_event(1, **{f"entry {number}": "01:00" for number in range(ENTRY_LIMIT)})
    newer = due_event(2, **{"entry 1": "02:00", "one more": "02:00"})

    kept = dues(merge_due(older, newer))

    assert len(kept) == ENTRY_LIMIT
    assert (kept["entry 1"], kept["one more"]) == ("02:00", "02:00")
    assert "entry 0" not in kept
