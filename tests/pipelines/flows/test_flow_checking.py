"""Either all deployments are created or none: they are validated before the first one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import yaml
from codedance.pipelines.config.deployments import Deployment, WorkPool
from codedance.pipelines.config.flow_parameters import FlowParameters
from codedance.pipelines.config.flows_file import all_deployments, find_flows_file, load_flows_file
from codedance.pipelines.config.schedules import Schedule
from codedance.pipelines.config.yaml_file import SettingsError
from codedance.pipelines.flows.checking import OURS, check_deployments
from codedance.pipelines.flows.deploying import whole_file
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.settings import PREFECT_DEPLOYMENTS_DEFAULT_WORK_POOL_NAME, temporary_settings
from pydantic import ValidationError

from ..prefect_clients import leftovers_collected

pytestmark = pytest.mark.filterwarnings("ignore")  # many warnings of Prefect only
PROGRAM = "from codedance.pipelines.cli import main; main()"
FLOW = "codedance.pipelines.flows.sft"


def deployment(name="mine", *, pool="codedance-process", entrypoint=FLOW, schedules=(), **others):
    work_pool = None if pool is None else WorkPool(name=pool)
    given = {"entrypoint": entrypoint, "schedules": list(schedules), "work_pool": work_pool}
    return Deployment(name=name, **given, **others)


def schedule(**when):
    """Return a schedule without validation."""
    return Schedule.model_construct(
        **{**Schedule(cron="* * * * *").model_dump(), "cron": None, **when}
    )


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "flows.yaml"


def test_the_packaged_deployments_are_valid(path):
    names = check_deployments(path, load_flows_file(find_flows_file()).deployments)
    assert "pipeline/quick-demo" in names


def test_flows_file_knows_the_parameters_that_the_flows_take():
    for flow in OURS.values():
        assert list(flow.parameters.properties) == list(FlowParameters.model_fields)


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
def test_a_schedule_invalid_in_prefect_is_rejected_with_its_deployment(path, when, words):
    entries = [deployment("good"), deployment("bad", schedules=[schedule(**when)])]
    with pytest.raises(SettingsError, match=f"deployment sft/bad.*{words}"):
        check_deployments(path, entries)


def test_a_custom_flow_is_looked_up(path):
    path.with_name("own.py").write_text(
        "from prefect import flow\n\n@flow\ndef tidy_up():\n    pass\n", encoding="utf-8"
    )
    before = list(sys.path)
    assert check_deployments(path, [deployment(entrypoint="own.py:tidy_up")]) == ["tidy-up/mine"]
    for wrong in ("own.py:nothing", "nowhere.py:flow", "no.such.module.flow"):
        with pytest.raises(SettingsError, match=f"deployment mine: no flow at {wrong}"):
            check_deployments(path, [deployment(entrypoint=wrong)])
    assert sys.path == before


def test_duplicate_names_are_rejected(path):
    with pytest.raises(SettingsError, match="two deployments are called 'sft/mine': rename one"):
        check_deployments(path, [deployment(), deployment()])
    twice = [schedule(interval=60.0, slug="often"), schedule(interval=90.0, slug="often")]
    with pytest.raises(SettingsError, match="two schedules with the slug 'often'"):
        check_deployments(path, [deployment(schedules=twice)])


@pytest.mark.parametrize("character", ["/", "%", "&", ">", "<"])
def test_a_name_invalid_in_prefect_is_rejected_with_the_character(path, character):
    entries = [deployment("good"), deployment(f"a{character}b")]
    with pytest.raises(SettingsError) as refused:
        check_deployments(path, entries)
    assert str(refused.value) == (
        f"{path}: deployment sft/a{character}b: the name 'a{character}b' contains '{character}': "
        "Prefect accepts none of / % & > <, rename it"
    )


@pytest.mark.parametrize("name", ["", " ", "\t", "''"])
def test_a_blank_name_is_rejected(path, name):
    with pytest.raises(SettingsError, match=r"deployment sft/.* is empty: write one"):
        check_deployments(path, [deployment("good"), deployment(name)])


@pytest.mark.parametrize("pool", ["a/b", "a%b", "a&b", "a<b", "a>b", "", " ", "'"])
def test_a_work_pool_invalid_in_prefect_is_rejected_with_its_deployment(path, pool):
    with pytest.raises(ValidationError):
        WorkPoolCreate(name=pool)
    with pytest.raises(SettingsError, match=r"deployment sft/bad: work_pool.name: "):
        check_deployments(path, [deployment("good"), deployment("bad", pool=pool)])


@pytest.mark.parametrize("pool", ["prefect", "Prefect pool", "PREFECT-machine"])
def test_a_work_pool_with_a_reserved_name_is_rejected(path, pool):
    with pytest.raises(SettingsError, match=f"sft/bad: work_pool.name: '{pool}' begins with 'pre"):
        check_deployments(path, [deployment("good"), deployment("bad", pool=pool)])


def test_a_deployment_needs_a_work_pool_unless_prefect_has_a_default_one(path):
    entries = [deployment("good"), deployment("bad", pool=None)]
    with pytest.raises(SettingsError, match=r"deployment sft/bad: key 'work_pool' is missing: add"):
        check_deployments(path, entries)
    with temporary_settings({PREFECT_DEPLOYMENTS_DEFAULT_WORK_POOL_NAME: "mine"}):
        assert check_deployments(path, entries) == ["sft/good", "sft/bad"]


@pytest.mark.parametrize(
    ("suite", "words"),
    [("nanoo", r"did you mean 'nano'\?"), ("nano:cuont", "count"), ("", "there are nano")],
)
def test_an_unknown_suite_is_rejected_with_the_nearest_name(path, suite, words):
    bad = deployment("bad", parameters={"suite": suite})
    late = deployment("bad", schedules=[Schedule(interval=60.0, parameters={"suite": suite})])
    for entry in (bad, late):
        with pytest.raises(SettingsError, match=f"deployment sft/bad: parameter suite: .*{words}"):
            check_deployments(path, [deployment("good"), entry])


@pytest.mark.parametrize(
    "suite",
    [
        "nano",
        "nano:count,bars",
        "/on/the/worker/tasks.jsonl",
        "families.py",
        "nuclei_count",
        "nuclei_count:cells",
        "{{ prefect.variables.suite }}",
        None,
    ],
)
def test_a_suite_that_a_worker_may_know_is_accepted(path, suite, monkeypatch):
    monkeypatch.delenv("CODEDANCE_DATA", raising=False)
    entry = deployment(parameters={"suite": suite})
    assert check_deployments(path, [entry]) == ["sft/mine"]


def test_prefect_gets_a_file_with_the_deployments_that_the_users_has_not(path):
    path.write_text("presets: {smoke: {}}\npull: [{mine: {}}]\n", encoding="utf-8")
    entries = all_deployments(path)
    assert check_deployments(path, entries)[:2] == ["pipeline/smoke", "curate/smoke"]
    with whole_file(path, [*entries, deployment("last")]) as file:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    first, *_, last = content["deployments"]
    assert first["parameters"] == {"preset": "smoke"}
    assert first["pull"] == []
    assert content["pull"] == [{"mine": {}}]
    assert "pull" not in last  # null would hide the file's


BAD = """
presets: {smoke: {}}
deployments:
  - {name: first, entrypoint: codedance.pipelines.flows.sft, work_pool: {name: codedance-process}}
  - name: second
    entrypoint: codedance.pipelines.flows.grpo
    work_pool: {name: codedance-process}
    schedules: [{cron: "0 25 * * *"}]
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BAD, "0 25 * * *"),
        (BAD.replace("0 25", "0 2").replace("name: second", "name: a&b"), "grpo/a&b: the name"),
    ],
)
def test_flows_deploy_rejects_a_bad_entry_with_two_and_creates_nothing(home, path, text, words):
    path.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "flows", "deploy"],
        env={name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (home.prefect / "prefect.db").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_error_of_prefect_while_deploying_leaves_no_deployment_behind(home, path, monkeypatch):
    import asyncio

    from codedance.pipelines.config.home import prepare_environment
    from codedance.pipelines.flows import deploying
    from prefect import get_client
    from prefect.testing.utilities import prefect_test_harness

    path.write_text(BAD, encoding="utf-8")
    prepare_environment(home)

    def loaded(_):
        return [deployment("first"), deployment("second")]

    async def registered():
        async with get_client() as client:
            return [one.name for one in await client.read_deployments()]

    monkeypatch.setattr(deploying, "all_deployments", loaded)  # as if it had not been validated
    with leftovers_collected(), prefect_test_harness(server_startup_timeout=240):
        from prefect.settings import PREFECT_API_URL

        monkeypatch.setenv("PREFECT_API_URL", PREFECT_API_URL.value())
        with pytest.raises(deploying.DeployError, match="prefect deploy failed"):
            deploying.deploy_all(path)
        assert asyncio.run(registered()) == []
