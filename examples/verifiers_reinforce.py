"""REINFORCE on verifiers' rollouts and traces. Run: python examples/verifiers_reinforce.py

verifiers plays the episodes: its environment, its agent, its training client, which asks an engine
for exact ids. Each of its traces carries ids, mask and log-probabilities, from which the weights
are updated here, in place of prime-rl, which needs GPUs. Needs verifiers 0.4.
"""

import asyncio
import math
import sys
import tempfile

from codedance.policies import load_policy
from codedance.policies.adapters.verifiers_renderer import RENDERER
from codedance.policies.adapters.wire_messages import read_image
from exact_update import Sample, train
from guesser import FAMILIES, MAX_TURNS, judge, make_guesser, read_options, report
from token_server import TokenServer
from verifiers.v1.clients import ModelContext, TrainClientConfig
from verifiers.v1.utils.loaders import load_environment, resolve_env_config

WIDTH = 24


def make_environment(**settings):
    """Load our environment as verifiers does, by the name of a module."""
    taskset = {"id": "visual_code", "families": list(FAMILIES), "max_turns": MAX_TURNS}
    return load_environment(resolve_env_config({"taskset": taskset | {"rules": ""} | settings}))


def client_of(folder, url):
    """Return verifiers' training client with our renderer, for an engine's address."""
    renderer = {"name": "custom", "import_path": RENDERER}
    config = TrainClientConfig(base_url=url, renderer=renderer, renderer_model_name=str(folder))
    return ModelContext(model="nano", client=config)


async def play(environment, tasks, context):
    """Run an episode on each task, all at the same time."""
    async with environment.serving():
        return await asyncio.gather(*(environment.run_episode(task, context) for task in tasks))


def sample_of(episode):
    """Return what verifiers kept of an episode; NaN where it is not ok."""
    (trace,) = episode.traces
    if not trace.branches or not any(trace.branches[0].sampled_mask):
        return None  # lost before the first reply
    branch = trace.branches[0]
    parts = [part for one in branch.messages for part in one.content if not isinstance(part, str)]
    images = [read_image(part.image_url.url) for part in parts if part.type == "image_url"]
    reward = trace.reward if episode.ok else math.nan
    return Sample(branch.token_ids, branch.sampled_mask, images, reward, branch.logprobs)


def main():
    """Train the guesser and report whether the held-out reward rose."""
    chosen = read_options(__doc__, steps=14)
    with tempfile.TemporaryDirectory() as place:
        folder = make_guesser(place)
        policy = load_policy(folder)
        before = judge(policy, episodes=chosen.episodes)
        count = WIDTH * chosen.steps
        environment = make_environment(count=count, start=count * chosen.seed)
        tasks = list(environment.taskset)
        with TokenServer(policy, seed=chosen.seed) as server:
            context = client_of(folder, server.url)

            def samples(step):
                wanted = tasks[step * WIDTH : (step + 1) * WIDTH]
                episodes = asyncio.run(play(environment, wanted, context))
                return [one for one in map(sample_of, episodes) if one is not None]

            train(policy, samples, steps=chosen.steps)
    after = judge(policy, episodes=chosen.episodes)
    sys.exit(report("verifiers", before, after, least=chosen.least))


if __name__ == "__main__":
    main()
