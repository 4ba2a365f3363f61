"""MLflow's database appears whole, whoever is killed while it is made."""

from __future__ import annotations

import subprocess
import sys
import time

import mlflow
import pytest
from codedance.pipelines.tracking.mlflow.database import make_database

MAKE = (
    "import sys; from codedance.pipelines.tracking.mlflow.database import make_database; "
    "make_database(sys.argv[1])"
)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_kill_while_it_is_made_leaves_nothing_that_mlflow_refuses(tmp_path):
    path = tmp_path / "mlflow.db"
    maker = subprocess.Popen([sys.executable, "-c", MAKE, f"sqlite:///{path}"])
    while not any(file.stat().st_size for file in tmp_path.glob("mlflow.db.new-*")):
        assert maker.poll() is None
        time.sleep(0.01)
    maker.kill()
    maker.wait()
    assert not path.exists()
    make_database(f"sqlite:///{path}")
    client = mlflow.MlflowClient(f"sqlite:///{path}")
    assert client.get_experiment(client.create_experiment("first")).name == "first"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mlflow.db", "mlflow.db.lock"]


def test_what_is_no_new_file_of_sqlite_is_left_alone(tmp_path):
    there = tmp_path / "there.db"
    there.write_bytes(b"anything")
    for uri in (f"sqlite:///{there}", "http://127.0.0.1:9", "sqlite://", str(tmp_path / "runs")):
        make_database(uri)
    assert there.read_bytes() == b"anything"
    assert [file.name for file in tmp_path.iterdir()] == ["there.db"]
