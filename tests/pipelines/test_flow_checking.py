"""Deployments are all made, or none: what Prefect would refuse is refused before the first one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from codedance.pipelines.flows.checking import check_deployments
from codedance.pipelines.flows_file import SettingsError, find_flows_file, load_flows_file
from codedance.pipelines.settings import Deployment, Schedule

pytestmark = pytest.mark.filterwarnings("ignore")  # Prefect's own, many and none of ours
PROGRAM = "from codedance.pipelines.cli import main; main()"
FLOW = "codedance.pipelines.flows.sft"


def deployment(name="mine", *, entrypoint=FLOW, schedules=()):
    return Deployment(name=name, entrypoint=entrypoint, schedules=list(schedules))


def schedule(**when):
    """A schedule as a flows.yaml that was not looked at closely may hold it."""
    return Schedule.model_construct(
        **{**Schedule(cron="* * * * *").model_dump(), "cron": None, **when}
    )


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "flows.yaml"


def test_the_packaged_deployments_are_well(path):
    names = check_deployments(path, load_flows_file(find_flows_file()).deployments)
    assert "pipeline/quick-demo" in names


@pytest.mark.parametrize(
    ("when", "words"),
    [
        ({"cron": "0 25 * * *"}, "Invalid cron string"),
        ({"cron": "nonsense"}, "Invalid cron string"),
        ({"cron": "0 3 * * *", "timezone": "PST"}, "Invalid timezone"),
        ({"rrule": "nonsense"}, "Invalid RRule string"),
        ({"rrule": "FREQ=DAILY", "timezone": "Mars/Base"}, "timezone"),
        ({"interval": 1e300}, "interval"),
        ({"interval": -5.0}, "greater than 0"),
    ],
)
def test_a_schedule_that_prefect_would_refuse_is_refused_with_its_deployment(path, when, words):
    entries = [deployment("good"), deployment("bad", schedules=[schedule(**when)])]
    with pytest.raises(SettingsError, match=f"deployment sft/bad.*{words}"):
        check_deployments(path, entries)


def test_a_flow_of_the_users_own_is_looked_for(path):
    path.with_name("own.py").write_text(
        "from prefect import flow\n\n@flow\ndef tidy_up():\n    pass\n", encoding="utf-8"
    )
    before = list(sys.path)
    assert check_deployments(path, [deployment(entrypoint="own.py:tidy_up")]) == ["tidy-up/mine"]
    for wrong in ("own.py:nothing", "nowhere.py:flow", "no.such.module.flow"):
        with pytest.raises(SettingsError, match=f"deployment mine: no flow at {wrong}"):
            check_deployments(path, [deployment(entrypoint=wrong)])
    assert sys.path == before


def test_names_that_would_replace_each_other_are_refused(path):
    with pytest.raises(SettingsError, match="two deployments are called 'sft/mine': rename one"):
        check_deployments(path, [deployment(), deployment()])
    twice = [schedule(interval=60.0, slug="often"), schedule(interval=90.0, slug="often")]
    with pytest.raises(SettingsError, match="two schedules with the slug 'often'"):
        check_deployments(path, [deployment(schedules=twice)])


BAD = """
presets: {smoke: {}}
deployments:
  - {name: first, entrypoint: codedance.pipelines.flows.sft, work_pool: {name: codedance-process}}
  - name: second
    entrypoint: codedance.pipelines.flows.grpo
    work_pool: {name: codedance-process}
    schedules: [{cron: "0 25 * * *"}]
"""


def test_flows_deploy_refuses_a_bad_schedule_with_two_and_makes_nothing(home, path):
    path.write_text(BAD, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "flows", "deploy"],
        env={name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "0 25 * * *" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (home.prefect / "prefect.db").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_prefect_refuses_all_the_same_leaves_no_deployment_behind(home, path, monkeypatch):
    import asyncio

    from codedance.pipelines.flows import deploying
    from codedance.pipelines.home import prepare_environment
    from prefect import get_client
    from prefect.testing.utilities import prefect_test_harness

    path.write_text(BAD, encoding="utf-8")
    prepare_environment(home)

    def loaded(_):
        return type("File", (), {"deployments": [deployment("first"), deployment("second")]})

    async def registered():
        async with get_client() as client:
            return [one.name for one in await client.read_deployments()]

    monkeypatch.setattr(deploying, "load_flows_file", loaded)  # as if nobody had looked at it
    with prefect_test_harness(server_startup_timeout=240):
        from prefect.settings import PREFECT_API_URL

        monkeypatch.setenv("PREFECT_API_URL", PREFECT_API_URL.value())
        with pytest.raises(deploying.DeployError, match="prefect deploy failed"):
            deploying.deploy_all(path)
        assert asyncio.run(registered()) == []
