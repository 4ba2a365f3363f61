"""Memory cgroups of sessions: found only where they can be made, and removed with their owner."""

import os
import time

import pytest
from codedance.sandbox import Outcome
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


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_no_group_is_made_where_others_own_them(tmp_path):
    parent, proc = unified(tmp_path)
    parent.chmod(0o555)
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


@pytest.fixture
def grouped():
    """A sandbox whose sessions get cgroups; where none can be made, the tests are skipped."""
    if find_hierarchy() is None:
        pytest.skip("no memory cgroup can be made here (root, or a delegated one, can)")
    with open_isolated("confined", libraries=()) as sandbox:
        if sandbox._groups is None:
            pytest.skip("the kernel refuses a memory cgroup")
        yield sandbox


def test_the_kernel_stops_a_session_that_the_host_does_not_see(grouped, monkeypatch):
    monkeypatch.setattr(watch.MemoryWatch, "_look", lambda self: bool(self._plan(None)))
    assert "; memory cgroups (version " in grouped.tier
    with grouped.session() as session:
        session.run(f"x = 7\n{FILL}")
        execution = session.run("time.sleep(0.2)\nfill(512)\ntime.sleep(3)")
        assert (execution.outcome, execution.error) == (
            Outcome.MEMORY,
            "MemoryError: more than 256 MB",
        )
        assert session.run("x").stdout == "7\n"


def test_groups_are_removed_with_their_sessions_and_their_sandbox(grouped):
    base = grouped._groups._base
    for _ in range(3):
        with grouped.session() as session:
            assert session.run("import time\ntime.sleep(0.2)\nprint('here')").stdout == "here\n"
            assert [one for one in base.glob("*/") if (one / "cgroup.procs").read_text()]
    deadline = time.monotonic() + 20
    while not grouped._groups._remove_ended() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not list(base.glob("*/"))
    grouped.close()
    assert not base.exists()


def test_short_blocks_are_not_moved(grouped):
    with grouped.session() as session:
        session.run("1")
        assert session._process._memory._group is None
