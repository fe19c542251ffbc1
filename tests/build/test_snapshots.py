"""A snapshot is what the folder was, whatever happens to the folder."""

import os
from pathlib import Path

import pytest

from knlocal.build.context import Scanner, SourceFile, digest
from knlocal.build.ignore import Ignore
from knlocal.build.snapshots import Snapshots, SourceChanged


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "pkg").mkdir(parents=True)
    (folder / "main.py").write_text("one")
    (folder / "pkg" / "util.py").write_text("util")
    (folder / "run.sh").write_text("#!/bin/sh")
    (folder / "run.sh").chmod(0o755)
    (folder / "link").symlink_to("main.py")
    return folder


@pytest.fixture
def snapshots(tmp_path: Path) -> Snapshots:
    return Snapshots(tmp_path / "snapshots")


def scan(folder: Path) -> list[SourceFile]:
    return Scanner().scan(folder, Ignore())


def test_a_snapshot_keeps_content_links_and_what_can_be_run(
    source: Path, snapshots: Snapshots
) -> None:
    tree = snapshots.take(source, scan(source))
    assert (tree / "main.py").read_text() == "one"
    assert (tree / "pkg" / "util.py").read_text() == "util"
    assert os.access(tree / "run.sh", os.X_OK)
    assert (tree / "link").readlink() == Path("main.py")


def test_a_later_save_does_not_reach_an_earlier_snapshot(
    source: Path, snapshots: Snapshots
) -> None:
    first = snapshots.take(source, scan(source))
    with (source / "main.py").open("r+") as file:  # in place, as some editors save
        file.write("two")
    second = snapshots.take(source, scan(source))
    assert first != second
    assert (first / "main.py").read_text() == "one"
    assert (second / "main.py").read_text() == "two"


def test_the_same_content_is_the_same_snapshot_and_is_kept_once(
    source: Path, snapshots: Snapshots
) -> None:
    first = snapshots.take(source, scan(source))
    assert snapshots.take(source, scan(source)) == first
    (source / "main.py").write_text("two")
    second = snapshots.take(source, scan(source))
    assert (first / "pkg" / "util.py").stat().st_ino == (second / "pkg" / "util.py").stat().st_ino


def test_a_file_that_changes_while_it_is_taken_is_noticed(
    source: Path, snapshots: Snapshots
) -> None:
    files = scan(source)
    (source / "main.py").write_text("changed meanwhile")
    with pytest.raises(SourceChanged):
        snapshots.take(source, files)
    (source / "main.py").unlink()
    with pytest.raises(SourceChanged):
        snapshots.take(source, files)


def test_collecting_keeps_what_is_named_and_nothing_else(
    source: Path, snapshots: Snapshots
) -> None:
    first = snapshots.take(source, scan(source))
    (source / "main.py").write_text("two")
    second = snapshots.take(source, scan(source))
    assert snapshots.collect([second]) == 1
    assert not first.exists()
    assert (second / "main.py").read_text() == "two"
    left = [p.read_text() for p in (snapshots.folder / "files").glob("*/*")]
    assert sorted(left) == ["#!/bin/sh", "two", "util"]


def test_a_digest_tells_content_names_and_modes_apart(source: Path) -> None:
    before = digest(scan(source))
    assert digest(scan(source)) == before
    (source / "main.py").chmod(0o755)
    changed = digest(scan(source))
    (source / "main.py").rename(source / "app.py")
    assert len({before, changed, digest(scan(source))}) == 3


def test_a_scanner_sees_a_save_that_keeps_the_size(source: Path) -> None:
    scanner = Scanner()
    before = digest(scanner.scan(source, Ignore()))
    (source / "new").write_text("two")
    (source / "new").replace(source / "main.py")  # atomic, as most editors save
    assert digest(scanner.scan(source, Ignore())) != before
