"""Errors of the store's database say what to change."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from codedance.pipelines.cli.services.doctor import check_store
from codedance.pipelines.store.connection.address import read_address
from codedance.pipelines.store.connection.database import open_database
from codedance.pipelines.store.connection.errors import (
    StoreAwayError,
    StoreError,
    is_disk_full,
    shown_url,
)
from codedance.pipelines.store.store import open_store
from sqlalchemy import text


def test_a_wrong_password_is_reported_without_printing_it(postgres):
    address = postgres.url("an_empty_store", password="not-this-one")
    with pytest.raises(StoreAwayError, match="User or password is wrong") as caught:
        open_database(address)
    assert "not-this-one" not in str(caught.value)
    assert "CODEDANCE_STORE_URL" in str(caught.value)


def test_the_error_for_an_unknown_database_says_how_to_create_it(postgres):
    with pytest.raises(StoreError, match="no such database.*createdb"):  # noqa: RUF043
        open_database(postgres.url("nowhere"))


def test_the_error_for_an_unreachable_server_says_what_to_check(tmp_path):
    with pytest.raises(StoreAwayError, match="Nothing answers there: start the server"):
        open_database(f"postgresql://somebody:secret@/db?host={tmp_path}")
    with pytest.raises(StoreAwayError, match="Nothing answers there"):
        open_database("postgresql://somebody:secret@127.0.0.1:9/db")


def test_database_that_cannot_store_all_text_is_rejected(postgres):
    address = postgres.make_database(
        "narrow", "ENCODING 'SQL_ASCII'", "LOCALE 'C'", "TEMPLATE template0"
    )
    with pytest.raises(StoreError, match=r"encoding SQL_ASCII.*createdb --encoding UTF8"):
        open_database(address)


def test_the_error_for_a_missing_right_to_create_tables_says_what_to_grant(postgres):
    address = postgres.make_database("forbidden")
    database = open_database(postgres.url())
    with database.engine.begin() as connection:
        connection.execute(text("CREATE ROLE guest LOGIN PASSWORD 'guest'"))
    database.close()
    assert address != postgres.url("forbidden", username="guest", password="guest")
    with pytest.raises(StoreError, match="GRANT USAGE, CREATE ON SCHEMA public"):
        open_database(postgres.url("forbidden", username="guest", password="guest"))


def test_missing_folder_is_reported(tmp_path):
    with pytest.raises(StoreError, match=r"unable to open database file.*Create its folder"):
        open_database(f"sqlite:///{tmp_path / 'no' / 'store.db'}")


def test_file_that_is_not_a_database_is_reported(tmp_path):
    path = tmp_path / "store.db"
    path.write_bytes(b"pictures of cats\n" * 100)
    with pytest.raises(StoreError, match=r"The file is damaged.*\.recover"):
        open_database(f"sqlite:///{path}")


@pytest.mark.parametrize("address", ["store.db", "postgresql//host/db", "", "host:5432"])
def test_an_invalid_address_is_rejected_with_an_example(address):
    with pytest.raises(StoreError, match="expected postgresql://user:password@host"):
        read_address(address)


def test_other_databases_are_rejected_by_name():
    with pytest.raises(StoreError, match="kind 'mysql'; the store works on SQLite"):
        read_address("mysql://host/db")


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_any_spelling_of_postgresql_uses_our_driver(scheme):
    url = read_address(f"{scheme}://me:p%40ss@host:5433/db")
    assert (url.drivername, url.password) == ("postgresql+psycopg", "p@ss")
    assert shown_url(url) == "postgresql+psycopg://me:***@host:5433/db"


def test_the_error_for_a_missing_driver_says_how_to_install_it(tmp_path):
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from codedance.pipelines.store.connection.database import open_database\n"
        "open_database('postgresql://me:secret@host/db')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ
    )
    assert "pip install 'codedance[postgres]'" in done.stderr
    assert "secret" not in done.stderr


def test_wait_that_is_not_a_number_is_rejected(home, monkeypatch):
    monkeypatch.setenv("CODEDANCE_STORE_WAIT", "a while")
    with pytest.raises(ValueError, match="number of seconds, such as 600, not 'a while'"):
        _ = home.store_wait_seconds


def test_images_are_stored_in_the_configured_folder(home, tmp_path, monkeypatch):
    monkeypatch.setenv("CODEDANCE_IMAGES", str(tmp_path / "shared"))
    with open_store(home) as store:
        assert store.images.root == Path(tmp_path / "shared")


def test_doctor_reports_on_the_store_and_creates_none(home):
    (finding,) = check_store()
    assert finding.is_well
    assert "the first run makes it" in finding.state
    assert list(home.root.iterdir()) == []
    open_store(home).close()
    assert "schema 0005" in check_store()[0].state


def test_doctor_checks_a_server_and_reports_problems(home, postgres_url, postgres, monkeypatch):
    monkeypatch.setenv("CODEDANCE_STORE_URL", postgres_url)
    assert "schema 0005" in check_store()[0].state
    monkeypatch.setenv("CODEDANCE_STORE_URL", postgres.url("nowhere"))
    (finding,) = check_store()
    assert (finding.is_well, finding.is_needed) == (False, True)
    assert "no such database" in finding.state


def test_a_full_disk_is_recognized_in_the_errors_of_libraries():
    def wrapped(inner):
        try:
            try:
                raise inner
            except OSError:
                raise RuntimeError("unexpected pos")  # noqa: B904 - as torch does
        except RuntimeError as error:
            return error

    assert is_disk_full(OSError(errno.ENOSPC, "No space left on device"))
    assert is_disk_full(wrapped(OSError(errno.EFBIG, "File too large")))
    assert is_disk_full(ValueError("Error while serializing: I/O error (os error 122)"))
    assert not is_disk_full(wrapped(OSError(errno.EIO, "Input/output error")))
    assert not is_disk_full(ValueError("os error 280"))
