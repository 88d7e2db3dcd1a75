"""The bounded lanes: what is kept, what is dropped, in which order."""

from __future__ import annotations

from deadbeat.lanes import Lanes


def event(number: int) -> dict[str, int]:
    return {"id": number}


def ids(taken: list) -> list[int]:
    return [waiting.event["id"] for waiting in taken]


def test_full_lane_drops_its_oldest_and_counts() -> None:
    lanes = Lanes(ordinary_limit=3)

    for number in range(5):
        lanes.put(event(number))

    assert ids(lanes.take(10)) == [2, 3, 4]
    assert lanes.dropped == 2


def test_vital_event_survives_a_flood_of_ordinary_ones() -> None:
    lanes = Lanes(ordinary_limit=100)

    lanes.put(event(-1), vital=True)
    for number in range(10_000):
        lanes.put(event(number))

    assert ids(lanes.take(1)) == [-1]
    assert lanes.dropped == 9_900


def test_only_the_newest_of_a_latest_lane_is_kept() -> None:
    lanes = Lanes()

    for number in range(50):
        lanes.put(event(number), latest="beat_alive")

    assert ids(lanes.take(10)) == [49]
    assert lanes.dropped == 0


def test_a_batch_is_in_order_of_arrival_across_lanes() -> None:
    lanes = Lanes()

    lanes.put(event(0))
    lanes.put(event(1), vital=True)
    lanes.put(event(2))
    lanes.put(event(3), latest="beat_alive")

    assert ids(lanes.take(10)) == [0, 1, 2, 3]
