"""REINFORCE on an OpenEnv server. Run: python examples/openenv_reinforce.py

The server, OpenEnv's own, runs our episodes; here are its clients, a policy, and the update. Needs
OpenEnv 0.10.
"""

import contextlib
import math
import sys
import tempfile
import threading
import time

import uvicorn
from codedance.envs.episode_factory import EpisodeHost, HostSettings
from codedance.policies import load_policy
from codedance.policies.adapters.openenv_server import make_app
from codedance.policies.adapters.wire_messages import read_message
from codedance.policies.interface import Conversation, Sampling
from codedance.sandbox import open_sandbox
from exact_update import Sample, train
from guesser import FAMILIES, MAX_TURNS, judge, make_guesser, read_options, report
from openenv import GenericEnvClient

WIDTH = 24


@contextlib.contextmanager
def serving(app):
    """Serve an app on a free port; yield its address."""
    config = uvicorn.Config(app, port=0, log_level="error", ws_max_size=2**24)
    server = uvicorn.Server(config)
    socket = config.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    server.should_exit = True
    thread.join()


def play(policy, clients, tasks, seed):
    """Run an episode with each client; return what a trainer needs of each."""
    talks, rewards = [], {}
    for number, (client, task) in enumerate(zip(clients, tasks, strict=True)):
        seen = client.reset(seed=seed + number, task_id=task.id).observation["messages"]
        talks.append(Conversation([read_message(one) for one in seen], seed=seed + number))
    while len(rewards) < len(clients):
        going = [number for number in range(len(clients)) if number not in rewards]
        replies = policy.reply([talks[number] for number in going], sampling=Sampling())
        for number, reply in zip(going, replies, strict=True):
            told = clients[number].step({"text": reply.text, "is_cut": reply.is_cut})
            talks[number].turn += 1
            answer = {"role": "assistant", "content": reply.text}
            new = [answer, *told.observation["messages"]]
            talks[number].messages += [read_message(one) for one in new]
            if told.done:
                rewards[number] = math.nan if told.reward is None else told.reward
    return [sample_of(talk, rewards[number]) for number, talk in enumerate(talks)]


def sample_of(talk, reward):
    """Return a conversation's exact ids with its reward."""
    tokens = talk.tokens
    images = [image for message in talk.messages for image in message.images][: tokens.images]
    return Sample(tokens.ids, list(tokens.mask), images, reward, tokens.log_probabilities)


def main():
    """Train the guesser and report whether the held-out reward rose."""
    chosen = read_options(__doc__, steps=14)
    with contextlib.ExitStack() as stack:
        policy = load_policy(make_guesser(stack.enter_context(tempfile.TemporaryDirectory())))
        before = judge(policy, episodes=chosen.episodes)
        sandbox = stack.enter_context(open_sandbox("local"))
        settings = HostSettings(families=FAMILIES, max_turns=MAX_TURNS, system_prompt="")
        host = EpisodeHost(settings, sandbox=sandbox)
        url = stack.enter_context(serving(make_app(host, sessions=WIDTH)))
        clients = [stack.enter_context(GenericEnvClient(base_url=url).sync()) for _ in range(WIDTH)]

        def samples(step):
            begin = (chosen.seed * chosen.steps + step) * WIDTH
            return play(policy, clients, host.tasks(WIDTH, start=begin), begin)

        train(policy, samples, steps=chosen.steps)
    after = judge(policy, episodes=chosen.episodes)
    sys.exit(report("OpenEnv", before, after, least=chosen.least))


if __name__ == "__main__":
    main()
