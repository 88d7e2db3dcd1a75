"""Which machine this process runs on."""

from __future__ import annotations


def boot_id() -> str | None:
    """Which start of its machine this process lives in; None where the system does not say."""
    # Linux alone says so.
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as said:
            return said.read().strip()
    except (OSError, ValueError):
        return None
