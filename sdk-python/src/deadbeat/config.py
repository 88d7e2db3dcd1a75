"""The SDK's settings: arguments win over environment, environment over defaults.

An invalid value never stops the application: a warning names it and the allowed values, and the default
applies.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

# A read key, for the commands `audit`, `watch` and `doctor`; the SDK's own key only signals.
READ_KEY = "DEADBEAT_READ_KEY"

_DAY = 86_400.0
_TRACK_FAULT = (
    'track (DEADBEAT_TRACK) is {value!r} but must be "all" or patterns of task names such as "shop.tasks.*"; '
    "tracking only the runs that Beat sends"
)
_EVERY_RUN_FAULT = (
    'every_run (DEADBEAT_EVERY_RUN) is {value!r} but must be "all" or patterns of names of entries such as '
    '"invoice-*"; no entry asks for every run'
)
_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}


@dataclass(frozen=True)
class Settings:
    """What the SDK reports, and where to; only `read_settings` makes it."""

    url: str
    key: str
    name: str | None = None
    grace: float = 60.0
    longest_run: float | None = None
    beat_period: float = 15.0
    beat_grace: float = 60.0
    canary: bool = True
    canary_period: float = 60.0
    canary_grace: float = 60.0
    canary_queue: str | None = None
    send_error_text: bool = False
    worker_period: float = 5.0
    queue_wait: float | None = None
    # fnmatch patterns of task names; empty: only runs that Beat sends.
    track: tuple[str, ...] = ()
    # fnmatch patterns of Beat's entries of which every run counts.
    every_run: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Settings(url={self.url!r}, key=…, name={self.name!r})"


@dataclass(frozen=True)
class _Number:
    """A setting in seconds: its environment variable, its default and its limits."""

    variable: str
    default: float | None
    low: float
    high: float


# The limits catch mistakes (milliseconds for seconds, a negative number) that would cause a flood or a
# monitor that never goes down.
_NUMBERS: Mapping[str, _Number] = {
    "grace": _Number("DEADBEAT_GRACE_SECONDS", 60.0, 0.0, 30 * _DAY),
    "longest_run": _Number("DEADBEAT_LONGEST_RUN_SECONDS", None, 1.0, 365 * _DAY),
    "beat_period": _Number("DEADBEAT_BEAT_PERIOD_SECONDS", 15.0, 1.0, 3600.0),
    "beat_grace": _Number("DEADBEAT_BEAT_GRACE_SECONDS", 60.0, 1.0, _DAY),
    "canary_period": _Number("DEADBEAT_CANARY_SECONDS", 60.0, 1.0, _DAY),
    "canary_grace": _Number("DEADBEAT_CANARY_GRACE_SECONDS", 60.0, 1.0, _DAY),
    "worker_period": _Number("DEADBEAT_WORKER_PERIOD_SECONDS", 5.0, 1.0, 60.0),
    "queue_wait": _Number("DEADBEAT_QUEUE_WAIT_SECONDS", None, 1.0, 7 * _DAY),
}


def read_settings(
    arguments: Mapping[str, Any], environment: Mapping[str, str] | None = None
) -> tuple[Settings | None, list[str]]:
    """Combine arguments (None means not given) with the environment into settings.

    Returns None when Deadbeat is switched off, or when address or key is missing or invalid. The list holds
    every fault, in words fit for a log.
    """
    env = os.environ if environment is None else environment
    faults: list[str] = []
    if not _switch("enabled", _given(arguments, "enabled", env, "DEADBEAT_ENABLED"), True, faults):
        return None, []
    url = _url(_given(arguments, "url", env, "DEADBEAT_URL"), faults)
    key = _key(_given(arguments, "key", env, "DEADBEAT_KEY"), faults)
    name = _given(arguments, "name", env, "DEADBEAT_NAME")
    queue = _given(arguments, "canary_queue", env, "DEADBEAT_CANARY_QUEUE")
    numbers = {
        option: _seconds(option, _given(arguments, option, env, rule.variable), rule, faults)
        for option, rule in _NUMBERS.items()
    }
    canary = _switch("canary", _given(arguments, "canary", env, "DEADBEAT_CANARY"), True, faults)
    error_text = _switch(
        "send_error_text",
        _given(arguments, "send_error_text", env, "DEADBEAT_SEND_ERROR_TEXT"),
        False,
        faults,
    )
    track = _patterns(_given(arguments, "track", env, "DEADBEAT_TRACK"), _TRACK_FAULT, faults)
    every_run = _patterns(_given(arguments, "every_run", env, "DEADBEAT_EVERY_RUN"), _EVERY_RUN_FAULT, faults)
    if url is None or key is None:
        return None, faults
    settings = Settings(
        url=url,
        key=key,
        name=None if name is None else str(name),
        canary=canary,
        canary_queue=None if queue is None else str(queue),
        send_error_text=error_text,
        track=track,
        every_run=every_run,
        **numbers,  # type: ignore[arg-type]  # the two that may be None have that default
    )
    return settings, faults


def is_wanted(arguments: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> bool:
    """Whether somebody wants Deadbeat here: sets an address or a key, or `enabled`.

    A shell, a test run and `manage.py` import the app without its environment: that is no mistake.
    """
    env = os.environ if environment is None else environment
    asked = (("url", "DEADBEAT_URL"), ("key", "DEADBEAT_KEY"), ("enabled", "DEADBEAT_ENABLED"))
    return any(_given(arguments, option, env, variable) is not None for option, variable in asked)


def _given(arguments: Mapping[str, Any], option: str, env: Mapping[str, str], variable: str) -> Any:
    value = arguments.get(option)
    if value is None:
        value = env.get(variable)
    # Compose files write an empty variable for "not set".
    return None if isinstance(value, str) and not value.strip() else value


def _url(value: Any, faults: list[str]) -> str | None:
    if value is None:
        faults.append("no address is set (url= or DEADBEAT_URL)")
        return None
    text = str(value).strip().rstrip("/")
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        # Reading `port` validates it. A query or a blank would end up in the request line.
        usable = usable and (parts.port or 1) > 0 and not (parts.query or parts.fragment)
        usable = usable and text.isascii() and not any(c.isspace() or ord(c) < 32 for c in text)
    except ValueError:
        usable = False
    if not usable:
        faults.append("url must look like https://deadbeat.example.org or http://host:8000/prefix")
        return None
    return text


def _key(value: Any, faults: list[str]) -> str | None:
    if value is None:
        faults.append("no key is set (key= or DEADBEAT_KEY)")
        return None
    text = str(value).strip()
    # Never log the key, valid or not.
    if not text.isascii() or not text.isprintable() or " " in text:
        faults.append("key must be printable ASCII without blanks")
        return None
    return text


def _seconds(option: str, value: Any, rule: _Number, faults: list[str]) -> float | None:
    if value is None:
        return rule.default
    try:
        seconds = float(value.total_seconds() if hasattr(value, "total_seconds") else value)
    except (TypeError, ValueError):
        seconds = float("nan")
    # The comparison is false for NaN, so NaN is refused like any value out of range.
    if not isinstance(value, bool) and rule.low <= seconds <= rule.high:
        return seconds
    default = "its default" if rule.default is None else f"{rule.default:g}"
    faults.append(
        f"{option} ({rule.variable}) is {value!r} but must be a number of seconds "
        f"from {rule.low:g} to {rule.high:g}; using {default}"
    )
    return rule.default


def _switch(option: str, value: Any, default: bool, faults: list[str]) -> bool:
    if value is None:
        return default
    text = str(value).strip().lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    faults.append(f"{option} is {value!r} but must be 0 or 1; using {int(default)}")
    return default


def _patterns(value: Any, fault: str, faults: list[str]) -> tuple[str, ...]:
    if value is None:
        return ()
    try:
        given = value.split(",") if isinstance(value, str) else list(value)
    except TypeError:
        given = [value]
    if not all(isinstance(pattern, str) for pattern in given):
        faults.append(fault.format(value=value))
        return ()
    patterns = tuple(pattern.strip() for pattern in given if pattern.strip())
    return ("*",) if patterns == ("all",) else patterns
