"""``codedance metrics`` sends what a tool lacks of past runs."""

from __future__ import annotations

import pytest
from codedance.pipelines.cli.services.metrics import Tool
from codedance.pipelines.config.server_settings import SinkName
from codedance.pipelines.runs.session import open_session
from codedance.pipelines.tracking.metrics_file import read_metrics

from ..tracking.sink_readers import read_tensorboard

pytestmark = pytest.mark.filterwarnings("ignore")  # of the tool's client


@pytest.mark.slow
def test_the_metrics_of_a_finished_run_are_sent_once(codedance, finished):
    code, out = codedance("metrics", "latest", "--to", "tensorboard")[:2]
    assert code == 0
    assert out.count("sent to TensorBoard: tensorboard --logdir") == 4
    shown = read_tensorboard(finished.home.root)
    (grpo,) = (points for name, points in shown.items() if name.startswith("grpo-"))
    (folder,) = finished.home.stages.glob("grpo-*")
    expected = {name: len(series) for name, series in read_metrics(folder).items()}
    assert {name: sum(one == name for one, *_ in grpo) for name in expected} == expected
    code, out = codedance("metrics", "latest", "--to", "tensorboard")[:2]
    assert (code, out.count("up to date in tensorboard")) == (0, 4)
    assert read_tensorboard(finished.home.root) == shown


def test_a_run_that_is_running_is_left_to_its_process(codedance, finished):
    with open_session(finished.home, track=False) as session:
        (run,) = session.store.lineage.find(stage="grpo")
        session.store.lineage.mark(run.id, "running")
    code, out = codedance("metrics", run.id, "--to", "tensorboard")[:2]
    assert code == 0
    assert "left out, since it is running" in out
    assert not (finished.home.root / "tensorboard").exists()


def test_the_tools_of_the_command_are_those_of_the_settings():
    assert {one.value for one in Tool} == set(SinkName.__args__)
