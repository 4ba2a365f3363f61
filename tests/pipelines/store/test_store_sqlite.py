"""Behaviour of SQLite only: a full file, and the journal on network file systems."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest
from codedance.pipelines.store.connection.errors import StoreError, StoreFullError
from codedance.pipelines.store.connection.mounts import file_system, is_network
from codedance.pipelines.store.connection.patience import Patience
from codedance.pipelines.store.store import open_store

from ..makers import make_request, make_task, make_trajectory

MOUNTS = """\
/dev/vda / ext4 rw,relatime 0 0
server:/export /home/our\\040team nfs4 rw,relatime 0 0
tmpfs /home/our\\040team/fast tmpfs rw 0 0
//server/share /data cifs rw 0 0
/dev/sdb /data ext4 rw 0 0
host /mnt/host virtiofs rw 0 0
short
"""
"""A possible mount table; the fifth line hides the fourth."""


@pytest.fixture
def run(store):
    return store.lineage.begin(make_request())


def add(store, run, tasks):
    trajectories = [make_trajectory(task) for task in tasks]
    return store.add_trajectories(tasks, trajectories, stage_run=run.id, phase="weak")


@pytest.fixture
def nfs(tmp_path):
    """A mount table in which all files of this test are on NFS."""
    path = tmp_path / "mounts"
    path.write_text(f"/dev/vda / ext4 rw 0 0\nserver:/export {tmp_path} nfs4 rw 0 0\n")
    return path


def journal_of(store):
    with store.database.engine.connect() as connection:
        mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
        return mode, connection.exec_driver_sql("PRAGMA synchronous").scalar()


def test_full_database_stores_nothing_of_the_batch_and_reports_it(store, run):
    tasks = [make_task(n) for n in range(300)]
    first, rest = tasks[:1], tasks[1:]
    add(store, run, first)
    store.add_tasks(rest)
    with store.database.engine.connect() as connection:
        raw = connection.connection.dbapi_connection
        pages = raw.execute("PRAGMA page_count").fetchone()[0]
        raw.execute(f"PRAGMA max_page_count={pages + 2}")
    with pytest.raises(StoreFullError, match="nothing is lost"):
        add(store, run, rest)
    with store.database.engine.connect() as connection:
        connection.connection.dbapi_connection.execute("PRAGMA max_page_count=1000000")
    assert len(store.episodes(run.id)) == 1
    assert add(store, run, rest) == 299


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/our team/runs/store.db", "nfs4"),
        ("/home/our team/fast/store.db", "tmpfs"),
        ("/home/our teammates/store.db", "ext4"),
        ("/data/store.db", "ext4"),
        ("/mnt/host/a/b", "virtiofs"),
        ("/elsewhere", "ext4"),
    ],
)
def test_file_system_is_that_of_the_last_and_deepest_mount(tmp_path, path, kind):
    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS)
    assert file_system(Path(path), mounts) == kind


def test_file_system_is_unknown_without_a_mount_table(tmp_path):
    assert file_system(tmp_path, tmp_path / "nothing") == "unknown"
    assert not is_network("unknown")


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "fuse", "fuse.sshfs", "virtiofs", "lustre"]
)
def test_log_is_not_used_on_network_file_systems(kind):
    assert is_network(kind)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "overlay", "tmpfs", "zfs", "fuseblk"])
def test_log_is_used_on_disks(kind):
    assert not is_network(kind)


def test_store_on_a_network_file_system_uses_another_journal_and_reports_it(home, nfs):
    messages = []
    with open_store(home, Patience(say=messages.append), mounts=nfs) as store:
        assert journal_of(store) == ("delete", 2)
        add(store, store.lineage.begin(make_request()), [make_task()])
        assert not (home.root / "store.db-wal").exists()
    (line,) = messages
    assert f"{home.root / 'store.db'} is on a network file system (nfs4)" in line
    assert "CODEDANCE_STORE_URL=sqlite:////" in line


def test_store_at_a_configured_path_keeps_its_log(home, nfs, tmp_path, monkeypatch):
    nfs.write_text(f"/dev/vda / ext4 rw 0 0\nserver:/export {home.root} nfs4 rw 0 0\n")
    monkeypatch.setenv("CODEDANCE_STORE_URL", f"sqlite:///{tmp_path / 'local.db'}")
    messages = []
    with open_store(home, Patience(say=messages.append), mounts=nfs) as store:
        assert journal_of(store) == ("wal", 1)
    assert messages == []


def test_store_moved_to_a_network_file_system_stops_using_its_log(home, nfs):
    with open_store(home) as store:
        run = store.lineage.begin(make_request())
        add(store, run, [make_task()])
        assert journal_of(store) == ("wal", 1)
    with open_store(home, mounts=nfs) as store:
        assert journal_of(store) == ("delete", 2)
        assert len(store.episodes(run.id)) == 1
    with open_store(home) as store:
        assert journal_of(store) == ("wal", 1)


@pytest.mark.slow
def test_log_in_use_by_another_process_is_kept(home, nfs):
    with open_store(home) as store:
        store.lineage.begin(make_request())
        with contextlib.closing(sqlite3.connect(home.root / "store.db")) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="end the other processes that use it"):
                open_store(home, mounts=nfs)
