"""The server uses the machine's time zone data only if they are newer than the built-in ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tzdata

from test_command_line import deadbeat

HAVANA = (
    "schedule",
    "0 2 * * *",
    "--tz",
    "America/Havana",
    "--after",
    "2026-12-01T00:00:00Z",
    "--count",
    "1",
)


@pytest.fixture
def zoneinfo(tmp_path: Path) -> Path:
    """A machine's folder of release 2099a, in which Havana has Tokyo's clock."""
    folder = tmp_path / "zoneinfo"
    shutil.copytree(Path(tzdata.__file__).parent / "zoneinfo", folder)
    shutil.copy(folder / "Asia" / "Tokyo", folder / "America" / "Havana")
    label(folder, "2099a")
    return folder


def label(folder: Path, release: str) -> None:
    with (folder / "tzdata.zi").open() as old:
        rest = old.read().split("\n", 1)[1]
    (folder / "tzdata.zi").write_text(f"# version {release}\n{rest}")


def preview(folder: Path) -> tuple[str, str, str]:
    done = deadbeat(*HAVANA, "--json", "--zoneinfo", str(folder))
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    return answer["time_zone_database"], answer["time_zone_origin"], answer["slots"][0]


def test_newer_data_of_the_machine_are_used(zoneinfo: Path) -> None:
    assert preview(zoneinfo) == ("2099a", "machine", "2026-12-01T17:00:00Z")


def test_data_that_are_no_newer_or_name_no_release_are_left_alone(zoneinfo: Path, tmp_path: Path) -> None:
    for release in ("2025b", "unknown", ""):
        label(zoneinfo, release)
        database, origin, slot = preview(zoneinfo)
        assert (database >= "2026f", origin, slot) == (True, "built_in", "2026-12-01T06:00:00Z"), release
    assert preview(tmp_path / "nowhere")[1] == "built_in"


def test_a_folder_of_strange_files_keeps_nobody_from_starting(zoneinfo: Path, tmp_path: Path) -> None:
    (zoneinfo / "America" / "Havana").write_bytes(b"TZif2" + b"\xff" * 500)
    (zoneinfo / "Europe" / "Berlin").unlink()
    (zoneinfo / "around").symlink_to(zoneinfo, target_is_directory=True)
    (zoneinfo / "huge").write_bytes(b"TZif2" + b"\0" * 10_000_000)
    assert preview(zoneinfo) == ("2099a", "machine", "2026-12-01T06:00:00Z"), (
        "the built-in zone fills the hole"
    )

    examined = deadbeat(
        "doctor", "--data-dir", str(tmp_path / "data"), "--listen", "127.0.0.1:0", "--zoneinfo", str(zoneinfo)
    )
    assert examined.returncode == 0, examined.stdout + examined.stderr
    line = next(line for line in examined.stdout.splitlines() if "time zones" in line)
    assert "IANA 2099a" in line
    assert str(zoneinfo) in line

    for name in list((zoneinfo / "America").iterdir()) + list((zoneinfo / "Asia").iterdir()):
        if name.is_file():
            name.unlink()
    for folder in ("Africa", "Europe", "Pacific"):
        shutil.rmtree(zoneinfo / folder)
    assert preview(zoneinfo)[1] == "built_in", "hardly anything is left of it"
