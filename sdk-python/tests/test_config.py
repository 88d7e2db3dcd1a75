"""Settings: precedence, limits, and the lines in the log."""

from __future__ import annotations

from datetime import timedelta

import pytest

from deadbeat.config import read_settings

GIVEN = {"url": "http://127.0.0.1:8000", "key": "k"}


def test_arguments_win_over_environment_and_environment_over_defaults() -> None:
    environment = {
        "DEADBEAT_URL": "https://deadbeat.example.org/watch/",
        "DEADBEAT_KEY": "from-env",
        "DEADBEAT_NAME": "proj",
        "DEADBEAT_GRACE_SECONDS": "90",
        "DEADBEAT_BEAT_PERIOD_SECONDS": "5.5",
        "DEADBEAT_CANARY": "0",
        "DEADBEAT_CANARY_GRACE_SECONDS": "",
    }

    settings, faults = read_settings({"key": "argument", "grace": timedelta(minutes=2)}, environment)

    assert faults == []
    assert settings is not None
    assert settings.url == "https://deadbeat.example.org/watch"
    assert (settings.key, settings.name, settings.grace) == ("argument", "proj", 120.0)
    assert (settings.beat_period, settings.canary, settings.canary_grace) == (5.5, False, 60.0)


@pytest.mark.parametrize(
    ("option", "value", "kept"),
    [
        ("grace", -1, 60.0),
        ("grace", "soon", 60.0),
        ("grace", float("nan"), 60.0),
        ("beat_period", 0, 15.0),
        ("beat_period", True, 15.0),
        ("canary_period", object(), 60.0),
        ("longest_run", 10**12, None),
        ("canary", "perhaps", True),
    ],
)
def test_bad_value_is_named_and_replaced_by_the_default(option: str, value: object, kept: object) -> None:
    settings, faults = read_settings({**GIVEN, option: value}, {})

    assert settings is not None
    assert getattr(settings, option) == kept
    assert len(faults) == 1
    assert option in faults[0]
    assert "must be" in faults[0]


@pytest.mark.parametrize(
    "url", ["ftp://host", "deadbeat.example.org", "http://", "http://host:99999", "http://a b", "http://h/?q"]
)
def test_unusable_address_switches_off(url: str) -> None:
    settings, faults = read_settings({"url": url, "key": "k"}, {})

    assert settings is None
    assert len(faults) == 1
    assert "url must look like" in faults[0]


def test_key_never_shows() -> None:
    settings, _ = read_settings({**GIVEN, "key": "sesame"}, {})
    _, faults = read_settings({**GIVEN, "key": "se same\n"}, {})

    assert "sesame" not in repr(settings)
    assert "se same" not in "".join(faults)


@pytest.mark.parametrize(
    ("given", "patterns"),
    [
        (None, ()),
        ("all", ("*",)),
        (["shop.tasks.*", "mail.send"], ("shop.tasks.*", "mail.send")),
        (" shop.tasks.* , mail.send,", ("shop.tasks.*", "mail.send")),
        ((), ()),
    ],
)
def test_tracked_tasks_are_named_by_patterns_or_all(given: object, patterns: tuple[str, ...]) -> None:
    by_argument, faults = read_settings({**GIVEN, "track": given}, {"DEADBEAT_TRACK": ""})

    assert by_argument is not None
    assert (by_argument.track, faults) == (patterns, [])
    if isinstance(given, str):
        by_variable, _ = read_settings(GIVEN, {"DEADBEAT_TRACK": given})
        assert by_variable is not None
        assert by_variable.track == patterns


@pytest.mark.parametrize("given", [True, 7, [1, "a"]])
def test_what_is_no_pattern_tracks_nothing_more(given: object) -> None:
    settings, faults = read_settings({**GIVEN, "track": given}, {})

    assert settings is not None
    assert settings.track == ()
    assert len(faults) == 1
    assert "track (DEADBEAT_TRACK)" in faults[0]


def test_entries_that_ask_for_every_run_are_named_by_patterns_or_all() -> None:
    for given, patterns in (("all", ("*",)), (["invoice-*"], ("invoice-*",)), ("a, b*", ("a", "b*"))):
        settings, faults = read_settings({**GIVEN, "every_run": given}, {})
        assert settings is not None
        assert (settings.every_run, faults) == (patterns, [])

    settings, faults = read_settings(GIVEN, {"DEADBEAT_EVERY_RUN": "invoice-*"})
    assert settings is not None
    assert (settings.every_run, faults) == (("invoice-*",), [])
    settings, faults = read_settings({**GIVEN, "every_run": [3]}, {})
    assert settings is not None
    assert settings.every_run == ()
    assert "every_run (DEADBEAT_EVERY_RUN)" in faults[0]
