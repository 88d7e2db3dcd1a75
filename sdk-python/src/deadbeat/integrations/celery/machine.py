"""The machine on which this process runs."""

from __future__ import annotations


def boot_id() -> str | None:
    """The id of the machine's current start; None where the system has none."""
    # Only Linux does.
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as said:
            return said.read().strip()
    except (OSError, ValueError):
        return None
