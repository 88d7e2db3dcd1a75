"""The rooms of the SDK: small, and a lower room imports no higher one."""

from __future__ import annotations

import ast
from pathlib import Path

import deadbeat

PACKAGE = Path(deadbeat.__file__).parent
MOST_FILES = 15
MOST_LINES = 500
# From the lowest room to the highest: each may import itself and the rooms before it.
FLOORS = ("deadbeat._transport", "deadbeat.integrations", "deadbeat.cli")
# The other modules of the package belong to all rooms.
SHARED = {"deadbeat", "deadbeat.version", "deadbeat.config"}


def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = ("deadbeat", *path.relative_to(PACKAGE).with_suffix("").parts)
        if path.stem == "__init__":
            parts = parts[:-1]
        found[".".join(parts)] = path
    return found


def imports(names: dict[str, Path]) -> dict[str, set[str]]:
    """Module → the SDK's modules that it imports, anywhere in it."""
    found: dict[str, set[str]] = {name: set() for name in names}
    for name, path in names.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "deadbeat":
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    found[name].add(whole if whole in names else str(node.module))
    return found


def floor(name: str) -> int:
    return next((place for place, room in enumerate(FLOORS) if f"{name}.".startswith(f"{room}.")), -1)


def test_no_lower_room_imports_a_higher_one() -> None:
    upwards = {
        (importer, imported)
        for importer, those in imports(modules()).items()
        for imported in those
        if importer not in {"deadbeat", "deadbeat.__main__"}
        and imported not in SHARED
        and floor(imported) > floor(importer)
    }

    assert upwards == set()


def test_no_circle_of_imports() -> None:
    left = imports(modules())
    while left:
        # A module that imports none of the others left cannot be part of a circle.
        free = {name for name, those in left.items() if not (those & left.keys()) - {name}}
        assert free, f"a circle among {sorted(left)}"
        left = {name: those for name, those in left.items() if name not in free}


def test_rooms_and_files_are_small() -> None:
    paths = list(modules().values())
    rooms = {path.parent for path in paths}

    assert {room: count for room in rooms if (count := len(list(room.glob("*.py")))) > MOST_FILES} == {}
    assert {
        path: lines
        for path in paths
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MOST_LINES
    } == {}
