"""Fixtures of this room: a separate home for each test, and one finished run for all."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import nullcontext
from uuid import uuid4

import pytest
from codedance.pipelines.config.home import Home
from codedance.pipelines.runs.session import open_session
from codedance.pipelines.stages.finish import finish_pipeline
from codedance.pipelines.store.connection.database import open_database
from codedance.pipelines.store.store import open_store

from benchmarks.measuring.postgres import CARELESS, PostgresMissing, PostgresServer, find_programs

from .prefect_clients import leftovers_collected
from .tiny_runs import run_all, write_tiny

OURS = (
    "CODEDANCE_DIR",
    "CODEDANCE_IMAGES",
    "CODEDANCE_STAGES",
    "CODEDANCE_STORE_URL",
    "CODEDANCE_STORE_WAIT",
    "CODEDANCE_TRAININGS",
    "MLFLOW_TRACKING_URI",
    "PREFECT_HOME",
)

ON_BOTH = (
    "test_history",
    "test_lineage",
    "test_lost_claims",
    "test_programs",
    "test_requests_at_once",
    "test_store",
    "test_store_commands",
    "test_store_verify",
    "test_work_claims",
)


@pytest.fixture(autouse=True)
def _own_environment(tmp_path_factory):
    """Restore the initial environment of the session, without the user's settings, for every test.

    Trainings of a test do not wait for others on this host; ../conftest.py undoes its changes.
    """
    for name in OURS:
        os.environ.pop(name, None)
    os.environ["CODEDANCE_LOCKS"] = str(tmp_path_factory.mktemp("locks"))


@pytest.fixture(scope="session")
def postgres_programs():
    """Skip if PostgreSQL is not installed; CI does not allow this skip."""
    try:
        return find_programs()
    except PostgresMissing as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def postgres(postgres_programs):
    """A PostgreSQL server shared by all tests of this process; no test may stop it."""
    with PostgresServer(CARELESS) as server:
        open_database(server.make_database("an_empty_store")).close()
        yield server


@pytest.fixture
def postgres_url(postgres):
    """Address of a new database with an empty store."""
    name = f"test_{uuid4().hex}"
    yield postgres.make_database(name, "TEMPLATE an_empty_store")
    postgres.drop_database(name)


def pytest_generate_tests(metafunc):
    """Run tests of the store on SQLite and on a PostgreSQL server."""
    module = metafunc.module.__name__.rpartition(".")[2]
    if module in ON_BOTH and "backend" in metafunc.fixturenames:
        metafunc.parametrize("backend", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def backend(request):
    """Database of this test's store."""
    return getattr(request, "param", "sqlite")


@pytest.fixture
def home(tmp_path, monkeypatch, backend, request):
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("CODEDANCE_DIR", str(tmp_path / "home"))
    if backend == "postgresql":
        monkeypatch.setenv("CODEDANCE_STORE_URL", request.getfixturevalue("postgres_url"))
    return Home(tmp_path / "home")


@pytest.fixture(
    params=[
        pytest.param(("--no-prefect",), id="no-prefect"),
        pytest.param(
            (),
            id="prefect",
            marks=[
                pytest.mark.slow,
                # Prefect's clients leave open sockets to the server that ends with the command.
                pytest.mark.filterwarnings("ignore::ResourceWarning"),
                pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
            ],
        ),
    ]
)
def way(request):
    """Options of a command that runs stages: without Prefect, and through its own server."""
    with nullcontext() if request.param else leftovers_collected():
        yield request.param


@pytest.fixture
def store(home):
    with open_store(home) as opened:
        yield opened


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Current folder with a flows.yaml whose smoke preset takes seconds."""
    monkeypatch.chdir(write_tiny(tmp_path))


@pytest.fixture(scope="session")
def finished_home(tmp_path_factory):
    """A home with one finished run of the tiny pipeline, copied for every test."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "home").mkdir()
    home = Home(folder / "home")
    before = os.getcwd(), dict(os.environ)
    os.environ["CODEDANCE_LOCKS"] = str(folder / "locks")
    os.chdir(write_tiny(folder))
    try:
        with open_session(home, track=False) as session:
            finish_pipeline(session, run_all(session))
    finally:
        os.chdir(before[0])
        os.environ.clear()
        os.environ.update(before[1])
    return home


@pytest.fixture
def finished(finished_home, tmp_path_factory, monkeypatch):
    """A separate session with the finished run, its folder as the current one."""
    folder = tmp_path_factory.mktemp("finished") / "copy"
    shutil.copytree(finished_home.root.parent, folder)
    home = Home(folder / finished_home.root.name)
    monkeypatch.setenv("CODEDANCE_DIR", str(home.root))
    monkeypatch.chdir(folder)
    with open_session(home, track=False) as session:
        yield session


@pytest.fixture
def codedance(monkeypatch, capsys):
    """Run a command in this process; returns exit code, standard output, standard error."""

    def run(*arguments):
        from codedance.pipelines.cli import main

        monkeypatch.setattr(sys, "argv", ["codedance", *arguments])
        with pytest.raises(SystemExit) as leaving:
            main()
        captured = capsys.readouterr()
        return leaving.value.code, captured.out, captured.err

    return run
