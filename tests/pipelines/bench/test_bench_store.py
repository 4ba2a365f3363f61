"""The store benchmark: a small run, and its errors."""

from __future__ import annotations

import json

import pytest
from codedance.pipelines.store.connection.database import open_database
from codedance.pipelines.store.connection.errors import StoreError
from codedance.pipelines.store.images import ImageFolder
from codedance.pipelines.store.store import Store

from benchmarks.measuring.postgres import PostgresServer
from benchmarks.measuring.store import POSTGRES, ROLLBACK, SQLITE, WRITE, StoreBench, make_steps
from benchmarks.measuring.store_tables import as_json, store_lines, store_tables

from ..makers import make_request


@pytest.fixture(scope="module")
def report(postgres):
    return StoreBench(128, 1, postgres=postgres.make_database("bench")).run()


@pytest.mark.slow
def test_all_contestants_take_part_and_keep_their_data(report):
    assert report.result.names == [SQLITE, ROLLBACK, POSTGRES]
    assert report.missing == {}
    assert report.step_rows == 64 * (1 + 3 + 2 + 4)
    for name, sizes in report.sizes.items():
        assert report.rows_a_second(name) > 0
        assert sizes.database_bytes > 100_000
        assert sizes.pictures == report.sizes[SQLITE].pictures > 500
        assert sizes.verify_seconds > 0


@pytest.mark.slow
def test_tables_fit_the_screen_and_json_has_every_round(report):
    for table in store_tables(report):
        widths = [max(map(len, column)) for column in zip(table.head, *table.rows, strict=True)]
        assert sum(widths) + len(widths) < 80
    assert any("load" in line for line in store_lines(report))
    document = json.loads(as_json(report))
    assert len(document["result"][POSTGRES][WRITE]) == 1
    assert set(document["rows_a_second"]) == {SQLITE, ROLLBACK, POSTGRES}


def test_steps_depend_only_on_the_seed():
    first, same, other = (make_steps(64, seed)[0][0] for seed in (1, 1, 2))
    assert first.tokens == same.tokens
    assert first.tokens != other.tokens


def test_database_in_use_is_not_changed(postgres_url, tmp_path):
    with Store(open_database(postgres_url), ImageFolder(tmp_path)) as store:
        run = store.lineage.begin(make_request())
        with pytest.raises(StoreError, match="contains runs: name an empty database"):
            StoreBench(64, 1, postgres=postgres_url).run()
        assert store.lineage.get(run.id).id == run.id


@pytest.mark.slow
def test_temporary_server_leaves_nothing_behind(postgres_programs):
    with PostgresServer() as server:
        database = open_database(server.make_database("a store"))
        database.close()
        assert server.folder.exists()
    assert not server.folder.exists()
