"""scripts/check-commits, in temporary repositories."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import parts

BODY = "It was wrong. It is right now, shown by a test."


class Repository:
    """A repository that has the script, as a clone of this one has it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "scripts").mkdir(parents=True)
        shutil.copy(parts.ROOT / "scripts" / "check-commits", root / "scripts" / "check-commits")

    def git(self, *arguments: str) -> str:
        # Use neither this machine's settings nor those of a hook that runs the tests.
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        env = {**kept, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        done = subprocess.run(
            ["git", *who, *arguments], cwd=self.root, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def commit(self, subject: str, body: str = BODY, **files: str) -> None:
        for name, text in (files or {"a": subject}).items():
            (self.root / name).write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", f"--message={subject}\n\n{body}")

    def landed(self) -> None:
        self.git("update-ref", "refs/remotes/origin/main", "HEAD")

    def check(self, *arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, self.root / "scripts" / "check-commits", *arguments],
            cwd=self.root,
            env={k: v for k, v in os.environ.items() if not k.startswith("GIT_")},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stderr


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "repository")
    made.git("init", "--quiet")
    made.commit("all: begin")
    return made


def test_a_good_commit_passes(repository: Repository) -> None:
    repository.commit("evaluator: skip monitors locked by ingest")
    repository.commit("docs, tests: name the limit")
    repository.commit("area: " + "y" * 66)

    assert repository.check() == (0, "")


@pytest.mark.parametrize(
    ("subject", "fault"),
    [
        ("area: " + "y" * 67, "the subject has 73 characters; at most 72 are allowed"),
        ("Skip locked monitors", 'the subject has not the form "area: imperative …"'),
        ("Evaluator: skip locked monitors", 'the subject has not the form "area: imperative …"'),
        ("evaluator:skip locked monitors", 'the subject has not the form "area: imperative …"'),
        ("evaluator and delivery loops: skip", 'the subject has not the form "area: imperative …"'),
        ("fixup! evaluator: skip", 'the subject has not the form "area: imperative …"'),
        ("evaluator: added a test", 'the subject says "added"; the imperative is "add"'),
        ("evaluator: Removes a test", 'the subject says "removes"; the imperative is "remove"'),
        ("evaluator: capping rows", 'the subject says "capping"; the imperative is "cap"'),
        ("evaluator: skip locked monitors.", "the subject ends with a full stop"),
    ],
)
def test_a_wrong_subject_is_named(repository: Repository, subject: str, fault: str) -> None:
    repository.commit(subject)

    status, alerted = repository.check()

    assert status == 1
    assert f" {subject}\n    {fault}\n" in alerted
    assert "check-commits: 1 faults" in alerted


def test_a_body_is_asked_for_unless_files_only_move_or_are_formatted(repository: Repository) -> None:
    repository.commit("parser: read lists", a="f(a, b)\n" * 50)
    repository.landed()
    (repository.root / "a").rename(repository.root / "b")
    repository.commit("parser: move a to b", body="", c="")
    assert "a body is missing" in repository.check()[1], "c is new"

    repository.git("reset", "--quiet", "--hard", "refs/remotes/origin/main")
    repository.git("mv", "a", "b")
    repository.git("commit", "--quiet", "--message=parser: move a to b")
    repository.commit("parser: format", body="", b="f(\n    a,\n    b,\n)\n" * 50)
    assert repository.check() == (0, "")

    repository.commit("parser: swap", body="", b="f(b, a)\n" * 50)
    assert "a body is missing" in repository.check()[1]

    repository.git("reset", "--quiet", "--hard", "HEAD~1")
    repository.commit("parser: swap", body="Signed-off-by: A <a@example.org>", b="f(b, a)\n" * 50)
    assert "a body is missing" in repository.check()[1], "a trailer is no body"


def test_a_body_begins_behind_a_blank_line(repository: Repository) -> None:
    repository.git(
        "commit", "--quiet", "--allow-empty", "--message=area: do it\nwith a second line\n\nand a body"
    )

    assert "no blank line follows the subject" in repository.check()[1]


def test_only_what_has_not_landed_is_checked(repository: Repository) -> None:
    repository.commit("Wrong and landed")
    repository.landed()
    assert repository.check() == (0, "")

    repository.commit("Wrong and new")
    status, alerted = repository.check()
    assert status == 1
    assert "Wrong and new" in alerted
    assert "Wrong and landed" not in alerted

    assert "Wrong and landed" in repository.check("HEAD~1")[1]


def test_without_a_landing_the_last_twenty_are_checked(repository: Repository) -> None:
    repository.commit("Wrong")
    for n in range(19):
        repository.commit(f"area: do {n}")
    assert repository.check()[0] == 1

    repository.commit("area: do 19")
    assert repository.check() == (0, "")


def test_a_merge_is_passed_over(repository: Repository) -> None:
    repository.git("checkout", "--quiet", "-b", "other")
    repository.commit("area: go one way", b="b")
    repository.git("checkout", "--quiet", "-")
    repository.commit("area: go the other way")
    repository.git("merge", "--quiet", "--no-ff", "--message=Merge branch 'other'", "other")

    assert repository.check() == (0, "")


def test_a_shallow_clone_passes_and_its_only_commit_may_have_moved_files(
    repository: Repository, tmp_path: Path
) -> None:
    repository.git("mv", "a", "b")
    repository.git("commit", "--quiet", "--message=area: move a to b")
    clone = tmp_path / "clone"
    repository.git("clone", "--quiet", "--depth=1", f"file://{repository.root}", str(clone))
    # No origin/main: then the commit itself is checked.
    copy = Repository.__new__(Repository)
    copy.root = clone
    copy.git("remote", "remove", "origin")

    assert copy.check() == (0, "")

    copy.commit("Wrong")
    assert copy.check()[0] == 1


def test_without_a_history_there_is_nothing_to_check(tmp_path: Path) -> None:
    nothing = "check-commits: there is no history here, so there is nothing to check\n"
    archive = Repository(tmp_path / "archive")
    assert archive.check() == (0, nothing)

    archive.git("init", "--quiet")
    assert archive.check() == (0, nothing), "no commit"

    outer = Repository(tmp_path / "outer")
    outer.git("init", "--quiet")
    outer.commit("Wrong, and of somebody else's")
    assert Repository(outer.root / "unpacked").check() == (0, nothing)


def test_a_range_that_cannot_be_read_is_reported(repository: Repository) -> None:
    status, alerted = repository.check("v9..HEAD")
    assert status == 2
    assert "v9..HEAD" in alerted
    assert repository.check("a", "b")[0] == 2
