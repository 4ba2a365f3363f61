"""NeMo Gym 0.4: our agent between its model server and its rollout collection."""

import asyncio
import contextlib
import json
import runpy
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import uvicorn
import yaml
from codedance.envs.episode_factory import EpisodeHost, HostSettings
from codedance.envs.suites.nano.suite import FAMILIES
from codedance.policies.adapters import nemo_gym_agent
from codedance.policies.adapters.nemo_gym_agent import VisualCodeAgent, dataset_row
from nemo_gym.config_types import BaseServerConfig, ModelServerRef
from nemo_gym.openai_utils import NeMoGymResponse
from nemo_gym.rollout_collection import RolloutCollectionConfig, RolloutCollectionHelper
from nemo_gym.server_utils import (
    GlobalAIOHTTPAsyncClientConfig,
    ServerClient,
    global_aiohttp_client_exit,
    set_global_aiohttp_client,
)
from omegaconf import OmegaConf
from responses_api_models.vllm_model.app import VLLMModel, VLLMModelConfig

from trainers.page import (
    ROOT,
    FailingSandbox,
    blocks_of,
    execute,
    free_port,
    say,
    served,
    serving_nano,
)

APP, ROWS, AFTER = blocks_of("NeMo Gym")
SETTINGS = {"families": ["bars", "digit"], "max_turns": 3, "system_prompt": ""}
HOST = "127.0.0.1"


@pytest.fixture(scope="module")
def nano():
    """The nano model behind `codedance serve model`, in the environment that has torch."""
    port = free_port()
    with served(*serving_nano(port), port=port) as url:
        yield url


@pytest.fixture
def sandbox(monkeypatch):
    opened = FailingSandbox()
    hosts = {}

    def host_of(settings):
        return hosts.setdefault(settings, EpisodeHost(settings, sandbox=opened))

    monkeypatch.setattr(nemo_gym_agent, "_host", host_of)
    yield opened
    opened.close()


@contextlib.asynccontextmanager
async def serving(*servers):
    """Serve apps on this event loop, each at the port that its configuration names."""
    running = []
    for server in servers:
        config = uvicorn.Config(
            server.setup_webserver(), host=HOST, port=server.config.port, log_level="error"
        )
        running.append(uvicorn.Server(config))
    tasks = [asyncio.create_task(one.serve()) for one in running]
    while not all(one.started for one in running):
        await asyncio.sleep(0.01)
    yield
    for one in running:
        one.should_exit = True
    await asyncio.gather(*tasks)


def servers_of(model_url):
    """Return NeMo Gym's client, our agent and its model server, set up as its command does."""
    ports = {"codedance": free_port(), "policy_model": free_port()}
    kinds = {"codedance": "responses_api_agents", "policy_model": "responses_api_models"}
    known = {
        name: {kinds[name]: {name: {"host": HOST, "port": port, "entrypoint": "app.py"}}}
        for name, port in ports.items()
    }
    client = ServerClient(
        head_server_config=BaseServerConfig(host=HOST, port=1),
        global_config_dict=OmegaConf.create(known),
    )
    model = VLLMModelConfig(
        host=HOST,
        port=ports["policy_model"],
        entrypoint="app.py",
        name="policy_model",
        base_url=model_url,
        api_key="none",
        model="nano",
        return_token_id_information=False,
        uses_reasoning_parser=False,
    )
    agent = VisualCodeAgent.model_fields["config"].annotation(
        host=HOST,
        port=ports["codedance"],
        entrypoint="app.py",
        name="codedance",
        settings=SETTINGS,
        model_server=ModelServerRef(type="responses_api_models", name="policy_model"),
    )
    return (
        client,
        VisualCodeAgent(config=agent, server_client=client),
        VLLMModel(config=model, server_client=client),
    )


def collect(folder, model_url, tasks, *, repeats=1):
    """Collect rollouts as `gym eval run` does; return results, rows written, and failures."""

    async def run():
        set_global_aiohttp_client(GlobalAIOHTTPAsyncClientConfig())
        client, *servers = servers_of(model_url)

        class Helper(RolloutCollectionHelper):
            def setup_server_client(self, head_server_config=None):
                return client

        rows = folder / "rows.jsonl"
        rows.write_text("".join(json.dumps(dataset_row(task)) + "\n" for task in tasks))
        config = RolloutCollectionConfig(
            input_jsonl_fpath=str(rows),
            output_jsonl_fpath=str(folder / "rollouts.jsonl"),
            num_repeats=repeats,
            num_repeats_add_seed=True,
        )
        async with serving(*servers):
            return await Helper().run_from_config(config)

    try:
        results = asyncio.run(run())
    finally:
        global_aiohttp_client_exit()
    return results, lines(folder / "rollouts.jsonl"), lines(folder / "rollouts_failures.jsonl")


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def tasks(count):
    return EpisodeHost(HostSettings(families=("bars", "digit"))).tasks(count)


def test_the_lines_of_the_page_give_a_first_reward(nano, sandbox, tmp_path):
    (tmp_path / "app.py").write_text(APP, encoding="utf-8")
    assert runpy.run_path(str(tmp_path / "app.py"))["VisualCodeAgent"] is VisualCodeAgent
    rows = [json.loads(line) for line in execute(ROWS)["rows"].splitlines()]
    assert len(rows) == 64
    (result,), *_ = collect(tmp_path, nano, tasks(1))
    after = execute(AFTER, result=result)
    say("a first reward:", after["reward"], result["reward_terms"], after["evidence"])
    assert after["reward"] == sum(result["reward_terms"].values())


def test_its_rollouts_are_complete_and_rewarded_as_ours(nano, sandbox, tmp_path):
    results, written, failures = collect(tmp_path, nano, tasks(4), repeats=4)
    assert failures == []
    texts = [str(one["response"]["output"]) for one in results]
    assert len(set(texts[:4])) > 1  # siblings differ
    by_index = sorted(written, key=lambda one: (one["_ng_task_index"], one["_ng_rollout_index"]))
    assert [one["reward"] for one in by_index] == [one["reward"] for one in results]
    say("rewards:", [one["reward"] for one in results])
    for one in results:
        NeMoGymResponse.model_validate(one["response"])  # what its trainer would read
        assert one["reward"] == pytest.approx(sum(one["reward_terms"].values()))
    shown = [
        [part["type"] for part in item["content"]]
        for one in results
        for item in one["response"]["output"]
        if item["role"] == "user" and isinstance(item["content"], list)
    ]
    assert any("input_image" in parts for parts in shown)  # code returned an image
    aggregate = json.loads((tmp_path / "rollouts_aggregate_metrics.json").read_text())
    mean = sum(one["reward"] for one in results) / len(results)
    assert aggregate[0]["agent_metrics"]["mean/reward"] == pytest.approx(mean)


def test_an_episode_lost_to_the_sandbox_is_kept_apart(nano, sandbox, tmp_path):
    sandbox.fails = True
    _, written, failures = collect(tmp_path, nano, tasks(8))
    assert 0 < len(failures) < 8  # those that answer without code are not lost
    assert len(written) + len(failures) == 8
    for one in failures:
        assert (one["reward"], one["mask_sample"], one["is_valid"]) == (None, True, False)
        assert "injected" in one["error"]
    aggregate = json.loads((tmp_path / "rollouts_aggregate_metrics.json").read_text())
    mean = sum(one["reward"] for one in written) / len(written)
    assert aggregate[0]["agent_metrics"]["mean/reward"] == pytest.approx(mean)


class Refuses(BaseHTTPRequestHandler):
    """A model's server that answers every request with an error."""

    def do_POST(self):
        self.send_error(400, "out of order")

    def log_message(self, *_):
        """Print nothing."""


def test_an_episode_lost_to_the_models_server_is_kept_apart(sandbox, tmp_path):
    # Not a server that is away: NeMo Gym itself tries to connect to one without end.
    with ThreadingHTTPServer((HOST, 0), Refuses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://{HOST}:{server.server_port}/v1"
        _, written, failures = collect(tmp_path, url, tasks(1))
        server.shutdown()
    assert written == []
    assert (failures[0]["reward"], failures[0]["ending"]) == (None, "infrastructure")
    assert "500" in failures[0]["error"]


def test_exact_ids_of_its_model_server_stay_in_the_result(sandbox):
    """A server that gives ids, as its own does on vLLM, in place of the nano model."""
    (task,) = tasks(1)
    host = EpisodeHost(HostSettings(max_turns=3), sandbox=sandbox)
    program = FAMILIES[task.family].programs(task.question)["exact"]
    texts = [f"<code>\n```python\n{program}\n```\n</code>", f"<answer>{task.answer}</answer>"]
    heard = []

    async def ask(items):
        heard.append(items)
        ids = {
            "prompt_token_ids": [1, 2],
            "generation_token_ids": [3],
            "generation_log_probs": [-0.5],
        }
        part = {"type": "output_text", "text": texts[len(heard) - 1], "annotations": []}
        item = {"id": "m", "type": "message", "role": "assistant", "status": "completed"}
        return {"output": [item | ids | {"content": [part]}], "incomplete_details": None}

    episode = host.open(task.id, seed=0)
    talk = asyncio.run(nemo_gym_agent.play(episode, ask))
    result = nemo_gym_agent.result_of(host, episode, talk, {})
    own = [item for item in result["response"]["output"] if item["role"] == "assistant"]
    assert [item["generation_token_ids"] for item in own] == [[3], [3]]
    assert heard[1][: len(heard[0]) + 1] == [*heard[0], own[0]]  # nothing is written again
    assert result["reward_terms"]["accuracy"] == 1.0


def test_the_configuration_of_the_page_is_one_of_its_own():
    page = (ROOT / "docs" / "trainers.md").read_text(encoding="utf-8")
    block = page.split("## NeMo Gym")[1].split("```yaml\n")[1].split("```")[0]
    config = yaml.safe_load(block)["codedance"]["responses_api_agents"]["codedance"]
    fields = {"host": HOST, "port": 1, "name": "codedance"}
    VisualCodeAgent.model_fields["config"].annotation(**config | fields)
