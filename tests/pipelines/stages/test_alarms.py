"""An alarm reaches terminal, stage folder, MLflow and report; a resumed run raises it once."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from codedance.pipelines.config.server_settings import AlarmSettings
from codedance.pipelines.report import make_report
from codedance.pipelines.runs.context import StageContext, Stop
from codedance.pipelines.runs.progress import PlainProgress
from codedance.pipelines.runs.runner import find_input
from codedance.pipelines.stages.grpo import alarm_limits
from codedance.pipelines.stages.training import follow
from codedance.pipelines.tracking.alarm_file import append_alarm, read_alarms
from codedance.pipelines.tracking.lines import LineWriter
from codedance.pipelines.tracking.metrics_file import append_metrics
from codedance.pipelines.tracking.tracker import Tracker
from codedance.policies.training.grpo.alarms import Alarm, AlarmBoard, AlarmConfig

from ..makers import make_request
from ..tiny_runs import first_run

LOST = {"infrastructure_share": 0.5}
WHOLE = {"infrastructure_share": 0.0}


@pytest.fixture
def followed(home, store):
    """A stage's `follow`, and everything that it reports."""
    run = store.lineage.begin(make_request("grpo"))
    folder = home.stages / run.id
    folder.mkdir(parents=True)
    terminal, reported = io.StringIO(), []
    tracker = Tracker(home.stages)

    def begin():
        context = StageContext(
            run=run,
            preset=None,
            folder=folder,
            store=store,
            tracker=tracker,
            progress=PlainProgress(terminal),
            sandbox=lambda: None,
            stop=Stop(),
            on_alarm=lambda found, alarm: reported.append((found.id, alarm.name)),
        )
        bar = context.progress.bar("grpo", 10).__enter__()
        return follow(context, bar, shown=(), board=AlarmBoard(AlarmConfig(window=2)))

    return SimpleNamespace(
        begin=begin, run=run, folder=folder, terminal=terminal, reported=reported
    )


def test_an_alarm_is_reported_everywhere_immediately(followed):
    on_step = followed.begin()
    on_step(1, WHOLE)
    assert followed.reported == []
    on_step(2, LOST)
    assert "ALARM at step 2: 25.0% of the episodes" in followed.terminal.getvalue()
    assert followed.reported == [(followed.run.id, "infrastructure")]
    assert [alarm.step for alarm in read_alarms(followed.folder)] == [2]


def test_a_resumed_run_does_not_raise_a_reported_alarm_again(followed):
    followed.begin()(1, LOST)
    followed.begin()(2, LOST)
    assert len(followed.reported) == 1


def test_a_repeated_step_raises_its_alarm_again_and_is_stored_once(followed):
    followed.begin()(1, WHOLE)
    append_metrics(LineWriter(), followed.folder, 2, LOST)  # killed before its state was saved
    append_alarm(followed.folder, Alarm("infrastructure", 2, "lost"))
    followed.begin()(2, LOST)
    assert len(followed.reported) == 1
    assert [alarm.step for alarm in read_alarms(followed.folder)] == [2]


def test_a_truncated_line_is_skipped(tmp_path):
    append_alarm(tmp_path, Alarm("entropy", 3, "falls"))
    with (tmp_path / "alarms.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"name": "entr')
    assert read_alarms(tmp_path) == [Alarm("entropy", 3, "falls")]
    assert read_alarms(tmp_path / "absent") == []


def test_the_report_lists_the_alarms_of_a_run(finished):
    run = first_run(finished)
    grpo = find_input(finished, run, "grpo")
    names = {alarm.name for alarm in read_alarms(finished.home.stages / grpo.id)}
    assert "constant_term.accuracy" in names  # four steps of cold start: there are no answers
    report = make_report(finished, run, find_input(finished, run, "evaluate"))
    assert "ALARM: grpo, step" in report.text
    assert "reward term accuracy is constant" in report.html.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("settings", "bf16", "limit"),
    [
        ({}, False, 0.05),
        ({}, True, 1.0),
        ({"logp_drift": 0.2}, True, 0.2),
        ({"logp_drift": 0}, True, 0),
    ],
)
def test_differences_of_16_bit_weights_raise_no_alarm_by_default(settings, bf16, limit):
    found = alarm_limits(AlarmSettings(**settings, window=3), bf16=bf16)
    assert (found.logp_drift, found.window) == (limit, 3)
