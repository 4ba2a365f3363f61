"""7. A failure of infrastructure becomes a reward of 0.

Reported: NeMo Gym #2750, NeMo RL #2305, prime-envs PR #341; Relax #10 (a hang of 7 h undetected).
Try: the sandbox behind the tool is away, in one episode of four. Does that episode count in the
advantages, the statistics or the loss?
"""

from ..verdict import judge


def ours():
    import torch
    from codedance.envs.episode_factory import EpisodeHost, HostSettings
    from codedance.policies import group_advantages
    from codedance.sandbox import SandboxError, open_sandbox

    class Away:
        tier = "away"

        def session(self, images=(), *, seed=0):
            raise SandboxError("the sandbox is away")

        def restore(self, state, images=()):
            raise SandboxError("the sandbox is away")

        def close(self):
            pass

    host = EpisodeHost(HostSettings(), sandbox=Away())
    episode = host.open(host.tasks(1)[0].id, seed=0)
    episode.step("<code>\n```python\nprint(1)\n```\n</code>")
    lost = host.finish(episode, "p")
    score = host.score(lost)
    open_sandbox("local").close()
    advantages = group_advantages(torch.tensor([[1.0, 1.0, 0.0, float("nan")]]))[0].tolist()
    shown = ", ".join(f"{one:+.2f}" for one in advantages)
    return judge(
        lost.ending.value == "infrastructure" and score is None and advantages[3] == 0.0,
        f"ending {lost.ending.value}, score {score}; advantages of 1, 1, 0, lost: {shown}",
    )


def trl():
    from ..benches import in_trl

    def look(code: str) -> str:
        """Look at the image.

        Args:
            code: Program.
        """
        raise ConnectionError("the sandbox is away")

    def reward(completions, **_):
        told.extend(one["content"] for one in completions[0] if one["role"] == "tool")
        return [1.0 if "away" not in str(one) else 0.0 for one in completions]

    told = []
    rows = [{"prompt": [{"role": "user", "content": f"How many, {n}?"}]} for n in range(4)]
    writes = lambda turn, n: [in_trl.CALL if turn == 0 and i == 0 else "4" for i in range(n)]  # noqa: E731
    size = {"per_device_train_batch_size": 4, "num_generations": 4}
    trainer = in_trl.make_trainer(rewards=[reward], tools=[look], rows=rows, writes=writes, **size)
    batch = in_trl.batch_of(trainer)
    advantages = batch["advantages"].tolist()
    mask = int((batch["completion_mask"] * batch["tool_mask"])[0].sum())
    return judge(
        advantages[0] == 0.0,
        f"the error is told to the model as {str(told[0])[:50]!r} and the episode goes on: advantage "
        f"{advantages[0]:+.2f} on {mask} tokens; a reward function of one's own may return None, "
        "which is left out of the baseline",
    )


def verl():
    import torch
    from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage

    from ..benches import in_verl

    def look(code):
        raise ConnectionError("the sandbox is away")

    output = in_verl.play([in_verl.CALL, "4"], look)
    told = in_verl.decoded(output.response_ids).split("<|im_start|>")[1]
    mask = torch.ones(4, 2)
    rewards = torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    advantages, _ = compute_grpo_outcome_advantage(rewards, mask, ["a"] * 4)
    try:
        in_verl.play([ConnectionError("the engine is away")], look)
        engine = "goes on"
    except ConnectionError:
        engine = "raises, and takes the whole batch with it (asyncio.gather)"
    mask = sum(output.response_mask)
    return judge(
        mask == 0,
        f"the error is told to the model as {told.split(chr(10))[1][:50]!r}, and {mask} tokens are "
        f"trained on; no third outcome: a lost one's 0 gets {advantages[3, 0]:+.2f} among 1, 1, 0; "
        f"an engine that is away {engine}",
    )


def verifiers():
    from verifiers.v1 import SandboxError

    from ..benches import in_verifiers

    async def look(turn):
        raise SandboxError("the sandbox is away")

    folder = in_verifiers.scratch()
    with in_verifiers.engine([in_verifiers.CALL, "4"], folder) as url:
        context = in_verifiers.client_of(folder, url)
        (episode,) = in_verifiers.play(in_verifiers.make_environment([None], look), context)
    (trace,) = episode.traces
    kinds = [one.type for one in trace.errors]
    return judge(
        not episode.ok and not trace.rewards,
        f"ok {episode.ok}, errors {kinds}, rewards {dict(trace.rewards)}, stop {trace.stop_condition}",
    )
