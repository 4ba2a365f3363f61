"""How much of the machine is ours: cores by affinity and quota, memory, descriptors."""

import os
import resource

import pytest
from codedance.sandbox import SandboxError
from codedance.sandbox.capacity import (
    allow_descriptors,
    available_memory_mb,
    core_count,
    turns_at_once,
)

CORES = len(os.sched_getaffinity(0))


@pytest.fixture
def descriptors():
    """The bounds on open files, put back afterwards."""
    bounds = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield bounds
    resource.setrlimit(resource.RLIMIT_NOFILE, bounds)


def test_without_a_quota_the_cores_are_those_of_the_affinity(tmp_path):
    assert core_count(tmp_path) == CORES
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert core_count(tmp_path) == CORES


@pytest.mark.parametrize(("quota", "cores"), [("50000", 1), ("100000", 1), ("6400000", CORES)])
def test_a_cgroups_quota_bounds_the_cores(tmp_path, quota, cores):
    (tmp_path / "cpu.max").write_text(f"{quota} 100000\n")
    assert core_count(tmp_path) == cores


def test_the_older_kind_of_cgroup_bounds_them_too(tmp_path):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("100000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert core_count(tmp_path) == 1
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert core_count(tmp_path) == CORES


@pytest.mark.parametrize(
    ("told", "cores"), [("1", 1), ("3", 3), ("8", 4), ("0", 4), ("many", 4), ("-2", 4), ("", 4)]
)
def test_workers_that_were_asked_for_bound_the_cores(tmp_path, monkeypatch, told, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setenv("CODEDANCE_CORES", told)
    assert core_count(tmp_path) == cores


def test_a_cgroups_memory_bounds_the_memory(tmp_path):
    assert available_memory_mb(tmp_path) > 0
    (tmp_path / "memory.max").write_text(str(3 << 20))
    (tmp_path / "memory.current").write_text(str(1 << 20))
    assert available_memory_mb(tmp_path) == 2
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory_mb(tmp_path) > 2


def test_turns_follow_cores_and_memory_and_one_always_runs():
    assert 1 <= turns_at_once(1) <= CORES
    assert turns_at_once(1 << 40) == 1


def test_descriptors_are_raised_only_when_they_are_needed(descriptors):
    _, hard = descriptors
    resource.setrlimit(resource.RLIMIT_NOFILE, (400, hard))
    allow_descriptors(2)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (400, hard)
    allow_descriptors(100)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 856


def test_sessions_beyond_the_hard_bound_are_refused_in_words(descriptors):
    _, hard = descriptors
    with pytest.raises(SandboxError, match=f"this process may have {hard}"):
        allow_descriptors(hard)
