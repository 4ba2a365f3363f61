"""Memory cgroups of sessions: found only where they can be made, and removed with their owner."""

import os
import time
from pathlib import Path

import pytest
from codedance.sandbox import Limits, Outcome
from codedance.sandbox.host.memory import watch
from codedance.sandbox.host.memory.cgroup import Hierarchy, SessionGroups, find_hierarchy
from codedance.sandbox.host.owner import own_mark

from .conftest import open_isolated
from .test_memory_watch import FILL

MB = 1 << 20


def system(folder, groups, mounts):
    """Write what ``/proc/self`` says of cgroups; return its folder."""
    (folder / "cgroup").write_text("\n".join(groups))
    lines = [f"30 20 0:{n} {root} {at} rw - {kind}" for n, (root, at, kind) in enumerate(mounts)]
    (folder / "mountinfo").write_text("\n".join(lines))
    return folder


def group(folder, **files):
    """Make a folder like a cgroup."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {"cgroup__procs": "", **files}.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def unified(folder, *, own_limit="max", controllers="cpu memory"):
    """Return the parent of the own group of a version 2 hierarchy, and ``/proc/self``."""
    parent = group(folder / "v2/app.slice", cgroup__subtree_control=controllers)
    group(parent / "own.scope", memory__max=own_limit, cgroup__subtree_control="")
    mounts = [("/", folder / "v2", "cgroup2 cgroup2 rw")]
    return parent, system(folder, ["0::/app.slice/own.scope"], mounts)


def test_groups_of_version_1_are_nested_in_the_own_one(tmp_path):
    own = group(tmp_path / "memory/job/7")
    mounts = [
        ("/", tmp_path / "cpu", "cgroup cgroup rw,cpu"),
        ("/", tmp_path / "memory", "cgroup cgroup rw,memory"),
    ]
    proc = system(tmp_path, ["5:cpu:/", "4:memory:/job/7", "0::/"], mounts)
    assert find_hierarchy(proc) == Hierarchy(own, 1)


def test_a_mount_that_shows_a_part_of_the_hierarchy_is_read(tmp_path):
    own = group(tmp_path / "memory/7")
    mounts = [("/job", tmp_path / "memory", "cgroup cgroup rw,memory")]
    proc = system(tmp_path, ["4:memory:/job/7"], mounts)
    assert find_hierarchy(proc) == Hierarchy(own, 1)
    proc = system(tmp_path, ["4:memory:/another/7"], mounts)
    assert find_hierarchy(proc) is None


def test_groups_of_version_2_are_beside_the_own_one(tmp_path):
    parent, proc = unified(tmp_path)
    assert find_hierarchy(proc) == Hierarchy(parent, 2)


@pytest.mark.parametrize("setting", [{"own_limit": "4096"}, {"controllers": "cpu"}])
def test_no_group_escapes_the_limit_of_the_own_one(tmp_path, setting):
    assert find_hierarchy(unified(tmp_path, **setting)[1]) is None


def test_no_group_is_made_where_others_own_them(tmp_path, monkeypatch):
    parent, proc = unified(tmp_path)
    assert find_hierarchy(proc) == Hierarchy(parent, 2)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != parent)
    assert find_hierarchy(proc) is None


def test_a_system_without_cgroups_has_none(tmp_path):
    assert find_hierarchy(tmp_path) is None
    assert find_hierarchy(system(tmp_path, [], [])) is None
    assert SessionGroups.open(None) is None
    assert SessionGroups.open(Hierarchy(tmp_path / "gone", 1)) is None


def test_groups_of_dead_trainers_are_removed_and_no_others(tmp_path):
    boot, here, pid, started = own_mark().split()
    marks = {
        "dead": f"{boot} {here} {pid} {int(started) + 1}",
        "before the boot": f"another {here} {pid} {started}",
        "of a container": f"{boot} pid:[1] {pid} {started}",
    }
    folders = {
        name: tmp_path / f"codedance_{mark}".replace(" ", "_") for name, mark in marks.items()
    }
    for folder in folders.values():
        (folder / "session-1").mkdir(parents=True)
    (tmp_path / "another").mkdir()
    opened = SessionGroups.open(Hierarchy(tmp_path, 1))
    assert opened is not None
    assert [name for name, folder in folders.items() if folder.exists()] == ["of a container"]
    assert (tmp_path / "another").exists()
    assert len(list(tmp_path.iterdir())) == 3
    opened.close()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_kernel_that_refuses_leaves_the_session_to_the_watch(tmp_path):
    opened = SessionGroups.open(Hierarchy(tmp_path, 1))
    assert opened is not None
    assert opened.enclose(os.getpid(), MB) is None  # no control files: not a cgroup
    opened.close()
    assert list(tmp_path.iterdir()) == []


class Recorder:
    """Groups that record who is moved, and with which limit."""

    def __init__(self):
        self.moved = []

    def enclose(self, process_id, most_bytes):
        self.moved.append((process_id, most_bytes >> 20))
        return Path("mine")

    def has_killed(self, folder):
        return folder == Path("mine")

    def remove(self, folder):
        self.moved.append(folder)


def test_only_a_block_that_runs_long_is_moved_and_once(monkeypatch):
    groups = Recorder()
    monkeypatch.setattr(watch, "held_bytes", lambda _: 53 * MB)
    mine = watch.MemoryWatch(os.getpid(), Limits(memory_mb=1024, disk_mb=64), groups)
    for clock, moved in ((0.04, 0), (0.051, 1), (9.0, 1)):
        monkeypatch.setattr(time, "monotonic", lambda: 0.0)
        mine.begin()
        monkeypatch.setattr(time, "monotonic", lambda clock=clock: clock)
        assert not mine.is_over()
        assert len(groups.moved) == moved
        assert mine.was_killed() is bool(moved)
    assert groups.moved == [(os.getpid(), 53 + 1024 + 32 + 64 + 32)]
    mine.close()
    assert groups.moved[-1] == Path("mine")
    assert not mine.was_killed()


@pytest.fixture(scope="module")
def grouped():
    """A sandbox whose sessions get cgroups; where none can be made, the tests are skipped."""
    if find_hierarchy() is None:
        pytest.skip("no memory cgroup can be made here (root, or a delegated one, can)")
    with open_isolated("confined", libraries=()) as sandbox:
        if sandbox._groups is None:
            pytest.skip("the kernel refuses a memory cgroup")
        yield sandbox


def move(session):
    """Run blocks until the session is in a group of its own; return its folder."""
    session.run(f"x = 7\n{FILL}")
    for _ in range(100):
        assert session.run("time.sleep(0.1)").is_ok
        if session._process._memory._group is not None:
            return session._process._memory._group
    pytest.fail("the session was not moved into a cgroup")


def test_the_kernel_stops_a_session_that_the_host_does_not_see(grouped, monkeypatch):
    monkeypatch.setattr(watch.MemoryWatch, "_look", lambda self: bool(self._plan(None)))
    assert "; memory cgroups (version " in grouped.tier
    with grouped.session() as session:
        move(session)
        execution = session.run("fill(512)\ntime.sleep(3)")
        assert (execution.outcome, execution.error) == (
            Outcome.MEMORY,
            "MemoryError: more than 256 MB",
        )
        assert session.run("x").stdout == "7\n"


def test_the_common_group_is_made_again_after_another_sandbox_removed_it(grouped):
    with open_isolated("full") as other:
        assert other._groups._base == grouped._groups._base
    if not any(grouped._groups._base.glob("*/")):
        assert not grouped._groups._base.exists()
    with grouped.session() as session:
        assert move(session).is_dir()


def test_groups_are_removed_with_their_sessions_and_their_sandbox(grouped):
    """Other sandboxes of this process have groups beside them."""
    folders = []
    for _ in range(2):
        with grouped.session() as session:
            folders.append(move(session))
            assert (folders[-1] / "cgroup.procs").read_text().strip()
    deadline = time.monotonic() + 20
    while not grouped._groups._remove_ended() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(folder.exists() for folder in folders)
    base = folders[0].parent
    has_others = any(base.glob("*/"))
    grouped.close()
    assert base.exists() == has_others
