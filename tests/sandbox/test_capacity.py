"""Available share of the machine: cores by affinity and quota, memory, descriptors."""

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
    """Limits on open files, restored afterwards."""
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


def test_an_older_cgroup_also_bounds_the_cores(tmp_path):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("100000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert core_count(tmp_path) == 1
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert core_count(tmp_path) == CORES


@pytest.mark.parametrize(
    ("value", "cores"), [("1", 1), ("3", 3), ("8", 4), ("0", 4), ("many", 4), ("-2", 4), ("", 4)]
)
def test_requested_workers_bound_the_cores(tmp_path, monkeypatch, value, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setenv("CODEDANCE_CORES", value)
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


def test_the_descriptor_limit_is_raised_only_when_needed(descriptors):
    _, hard = descriptors
    resource.setrlimit(resource.RLIMIT_NOFILE, (400, hard))
    allow_descriptors(2)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (400, hard)
    allow_descriptors(100)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 856


def test_sessions_beyond_the_hard_limit_are_rejected_with_a_reason(descriptors):
    _, hard = descriptors
    with pytest.raises(SandboxError, match=f"this process may have {hard}"):
        allow_descriptors(hard)
