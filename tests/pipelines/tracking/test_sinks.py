"""TensorBoard, W&B and trackio show what the run's folder holds, and never disturb a run."""

from __future__ import annotations

import hashlib
import math
import threading

import pytest
from codedance.pipelines.store.claims import ClaimLostError
from codedance.pipelines.tracking.lines import LineWriter
from codedance.pipelines.tracking.metrics_file import append_metrics
from codedance.pipelines.tracking.sinks import feed
from codedance.pipelines.tracking.sinks.feed import fed
from codedance.pipelines.tracking.sinks.points import PointReader
from codedance.pipelines.tracking.sinks.sink import (
    MissingSinkError,
    SinkRun,
    check_sinks,
    open_sink,
)
from codedance.pipelines.tracking.tracker import Tracker

from ..kills import wait_until
from .sink_readers import READERS, is_installed, wandb_records

pytestmark = pytest.mark.filterwarnings("ignore")  # of the clients
PARAMETERS = {"suite": "nano", "grpo": {"steps": 3, "stop": [], "bf16": False, "easy_share": None}}
WITHOUT_TRACKIO = "trackio needs Pillow below 13: make test-trackio runs its tests"


@pytest.fixture(params=sorted(READERS))
def tool(request, monkeypatch):
    """A tool that is installed; CI allows to be without trackio only."""
    if not is_installed(request.param):
        pytest.skip(WITHOUT_TRACKIO if request.param == "trackio" else f"no {request.param}")
    monkeypatch.setenv("WANDB_MODE", "offline")
    return request.param


@pytest.fixture(autouse=True)
def _patient(monkeypatch):
    """Wait for the clients' imports on a busy machine."""
    monkeypatch.setattr(feed, "LAST_CHANCE_SECONDS", 120.0)


@pytest.fixture(scope="module", autouse=True)
def _without_service():
    """End W&B's own process, which would outlive the tests."""
    yield
    if is_installed("wandb"):
        import wandb

        wandb.teardown()


@pytest.fixture
def shown(home, request):
    """A run whose id no other test has: trackio has one folder per process."""
    name = request.node.name.encode()
    run = SinkRun(
        f"grpo-{hashlib.sha256(name).hexdigest()[:8]}",
        "quick-1",
        "codedance",
        PARAMETERS,
        home.root,
    )
    return run, home.stages / run.id


def add_step(folder, step, **values):
    append_metrics(LineWriter(), folder, step, values)
    Tracker(folder.parent).metrics(folder.name, step, {"time/step_seconds": step / 4})


def feed_once(names, shown, error=None, said=None):
    """Feed tools as a stage does that ends with an error, or well."""
    run, folder = shown
    with fed(names, run, folder, say=([] if said is None else said).append):
        if error is not None:
            raise error


def expected(*steps):
    return sorted(
        point
        for step in steps
        for point in (("reward", step, step / 2), ("time/step_seconds", step, step / 4))
    )


def test_a_tool_shows_the_steps_results_and_parameters_of_a_run(tool, shown, home):
    _, folder = shown
    for step in (1, 2, 3):
        add_step(folder, step, reward=step / 2, kl=math.nan)
    tracker = Tracker(home.stages)
    tracker.metrics(folder.name, 1_700_000_000, {"system/cpu_utilization_percentage": 50.0})
    tracker.metrics(folder.name, 2, {"idioms/crop": 0.25})  # recorded at the end, for every step
    said = []
    feed_once([tool], shown, said=said)
    assert sorted(READERS[tool](home.root)[folder.name]) == sorted(
        [*expected(1, 2, 3), ("idioms/crop", 2, 0.25)]
    )
    assert len(said) == 1
    assert said[0].startswith("metrics also in ")


def test_a_resumed_run_is_continued_and_a_repeated_step_shown_once(tool, shown, home):
    _, folder = shown
    for step in (1, 2, 3):
        add_step(folder, step, reward=step / 2)
    with pytest.raises(KeyboardInterrupt):
        feed_once([tool], shown, error=KeyboardInterrupt())
    for step in (2, 3, 4):  # the state was saved after step 1
        add_step(folder, step, reward=step / 2)
    feed_once([tool], shown)
    assert sorted(READERS[tool](home.root)[folder.name]) == expected(1, 2, 3, 4)


@pytest.mark.parametrize("tool", ["tensorboard", "wandb"], indirect=True)
def test_points_that_a_killed_process_sent_without_recording_it_are_shown_once(tool, shown, home):
    run, folder = shown
    add_step(folder, 1, reward=0.5)
    feed_once([tool], shown)
    add_step(folder, 2, reward=1.0)
    points = PointReader(folder, tool)
    sink = open_sink(tool)
    sink.begin(SinkRun(run.id, run.group, run.project, {}, run.root, points.sent, points.newest))
    sink.log(points.read())
    sink.end("failed")  # killed before `confirm`
    feed_once([tool], shown)
    assert sorted(READERS[tool](home.root)[folder.name]) == expected(1, 2)


@pytest.mark.skipif(not is_installed("wandb"), reason="no wandb")
def test_wandb_is_told_group_parameters_and_how_a_run_ended(shown, home, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    run, folder = shown
    add_step(folder, 1, reward=0.5)
    with pytest.raises(RuntimeError):
        feed_once(["wandb"], shown, error=RuntimeError("out of memory"))
    with pytest.raises(KeyboardInterrupt):
        feed_once(["wandb"], shown, error=KeyboardInterrupt())
    feed_once(["wandb"], shown)
    records = wandb_records(home.root)
    runs = [record.run for record in records if record.HasField("run")]
    assert {(one.run_id, one.run_group, one.project) for one in runs} == {
        (run.id, "quick-1", "codedance")
    }
    config = {one.key: one.value_json for one in runs[0].config.update}
    assert config["suite"] == '"nano"'
    assert '"steps": 3' in config["grpo"].replace(":3", ": 3")
    exits = [record.exit.exit_code for record in records if record.HasField("exit")]
    assert exits == [1, 130, 0]
    steps = [one.metric.step_metric for one in records if one.metric.glob_name == "*"]
    assert set(steps) == {"step"}


@pytest.mark.skipif(not is_installed("wandb"), reason="no wandb")
def test_wandb_without_a_key_writes_offline_and_says_how_to_send(shown, home, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(home.root / "none"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(home.root / "none"))
    import wandb

    wandb.teardown()  # its settings were read by an earlier test
    _, folder = shown
    add_step(folder, 1, reward=0.5)
    said = []
    feed_once(["wandb"], shown, said=said)
    assert said[0].startswith("metrics also in W&B, offline: wandb sync ")
    assert folder.name in READERS["wandb"](home.root)


def test_a_missing_package_is_an_error_that_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "no_such_tool").mkdir()  # as W&B leaves a folder `wandb`
    with pytest.raises(MissingSinkError, match=r"pip install 'codedance\[no_such_tool\]'"):
        check_sinks(["no_such_tool"])
    check_sinks(["json"])


class FakeSink:
    """A tool that fails, or does not answer, as long as it is told to."""

    keeps = True
    failing = 0
    answers = threading.Event()
    got: list

    def begin(self, run):
        return "a fake"

    def log(self, points):
        assert self.answers.wait(30)
        if FakeSink.failing:
            FakeSink.failing -= 1
            raise OSError("no space left\nmore")
        FakeSink.got += [(one.index, one.step) for one in points]

    def end(self, status):
        FakeSink.got.append(status)


@pytest.fixture
def fake(monkeypatch):
    """Tools `fake` and `other`; the second never fails."""
    other = []

    class Other(FakeSink):
        def log(self, points):
            other.extend(point.step for point in points)

        def end(self, status):
            other.append(status)

    monkeypatch.setattr(feed, "open_sink", lambda name: {"fake": FakeSink, "other": Other}[name]())
    monkeypatch.setattr(feed, "RETRY_SECONDS", 0.01)
    FakeSink.failing, FakeSink.got = 0, []
    FakeSink.answers.set()
    return other


@pytest.mark.slow
def test_a_tool_that_fails_is_reported_once_and_gets_everything_later(fake, shown):
    run, folder = shown
    FakeSink.failing = 3
    said = []
    with fed(["fake", "other"], run, folder, say=said.append):
        append_metrics(LineWriter(), folder, 1, {"reward": 0.5})
        wait_until(lambda: FakeSink.failing == 0)
    assert FakeSink.got == ["failed", "failed", "failed", (0, 1), "finished"]
    assert fake == [1, "finished"]
    assert [line for line in said if "failed" in line] == [
        "fake failed (OSError: no space left); the run goes on, and it is tried again"
    ]


def test_a_tool_that_fails_to_the_end_is_reported_and_disturbs_no_other(fake, shown):
    run, folder = shown
    append_metrics(LineWriter(), folder, 1, {"reward": 0.5})
    FakeSink.failing = 10**6
    said = []
    with fed(["fake", "other"], run, folder, say=said.append):
        pass
    assert fake == [1, "finished"]
    assert "fake lacks metrics after" in said[-1]
    FakeSink.failing = 0
    FakeSink.got.clear()
    feed_once(["fake"], shown)  # the run is resumed
    assert FakeSink.got == [(0, 1), "finished"]


def test_a_tool_that_does_not_answer_holds_the_end_of_a_stage_no_longer_than_said(
    fake, shown, monkeypatch
):
    run, folder = shown
    monkeypatch.setattr(feed, "LAST_CHANCE_SECONDS", 0.05)
    append_metrics(LineWriter(), folder, 1, {"reward": 0.5})
    FakeSink.answers.clear()
    said = []
    try:
        with fed(["fake"], run, folder, say=said.append):
            pass
    finally:
        FakeSink.answers.set()
    assert said[-1].startswith("fake does not answer")


def test_what_a_killed_process_took_without_keeping_it_is_sent_again_with_the_same_index(shown):
    _, folder = shown
    add_step(folder, 1, reward=0.5)
    points = PointReader(folder, "fake")
    first = points.read()
    points.confirm(is_kept=True)
    for step in (2, 3):
        add_step(folder, step, reward=1.0)
        taken = points.read()
        points.confirm(is_kept=False)
    assert points.read() == []
    again = PointReader(folder, "fake")  # the process was killed
    found = again.read()
    assert found[-2:] == taken
    assert [one.index for one in [*first, *found]] == [0, 1, 2, 3, 4, 5]
    assert (again.sent, again.newest) == (2, 1)
    again.confirm(is_kept=False)
    again.confirm(is_kept=True)  # the tool ended
    assert PointReader(folder, "fake").read() == []


def test_a_process_that_lost_its_claim_feeds_nothing(fake, shown):
    run, folder = shown
    append_metrics(LineWriter(), folder, 1, {"reward": 0.5})

    def lost():
        raise ClaimLostError("taken over")

    said = []
    with fed(["fake"], run, folder, say=said.append, guard=lost):
        pass
    assert FakeSink.got == []
    assert said == []


def test_a_result_without_steps_may_change_and_a_cut_line_waits(shown):
    _, folder = shown
    tracker = Tracker(folder.parent)
    tracker.metrics(folder.name, 0, {"accuracy": 0.5})
    tracker.metrics(folder.name, 0, {"accuracy": 0.5})
    tracker.metrics(folder.name, 0, {"accuracy": 0.75})
    with (folder / "metrics.jsonl").open("w") as file:
        file.write('{"step": 1, "reward": 0.5}\n{"step": 2, "re')
    points = PointReader(folder, "fake")
    assert [(one.index, one.step) for one in points.read()] == [(0, 1), (1, 0), (2, 0)]
    points.confirm(is_kept=True)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('ward": 1.0}\n')
    again = PointReader(folder, "fake")
    assert (again.sent, again.newest) == (3, 1)
    assert [(one.index, one.step, dict(one.values)) for one in again.read()] == [
        (3, 2, {"reward": 1.0})
    ]
