"""10. Memory grows until the run is killed.

Reported: DeepEyes #113 (500 GB were not enough), #139.
Try: many episodes with images in one process; how much does it grow from the second fifth on? It
passes below 20 kB per episode: 1 GB in 50,000 episodes.
"""

import gc

from ..verdict import judge

MOST_KILOBYTES = 20.0


def resident():
    """Return the resident memory of this process in kB."""
    gc.collect()
    with open("/proc/self/status", encoding="utf-8") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def growth(play, count, each=1):
    """Play ``count`` batches of episodes; return the verdict."""
    for _ in range(count // 5):
        play()
    before = resident()
    for _ in range(count - count // 5):
        play()
    episodes = (count - count // 5) * each
    slope = (resident() - before) / episodes
    total = resident() / 1024
    return judge(
        slope < MOST_KILOBYTES,
        f"{slope:+.1f} kB per episode over {episodes} episodes, {total:.0f} MB in all",
    )


def ours():
    from codedance.envs.suites.loading import load_suite
    from codedance.policies import load_policy, rollout
    from codedance.sandbox import open_sandbox

    suite, policy = load_suite("nano", split="train"), load_policy("oracle")
    numbers = iter(range(10**6))
    with open_sandbox("local") as sandbox:
        return growth(
            lambda: rollout(policy, [suite[next(numbers)] for _ in range(20)], sandbox=sandbox),
            50,
            20,
        )


def trl():
    from ..benches import in_trl
    from ..benches.tiny_model import picture

    def look(code: str) -> list:
        """Look at the image.

        Args:
            code: Program.
        """
        return [{"type": "image", "image": picture(7)}]

    trainer = in_trl.make_trainer(
        rewards=[lambda completions, **_: [1.0, 0.0]], tools=[look], writes=in_trl.calls(2)
    )
    return growth(lambda: in_trl.batch_of(trainer), 100, 2)


def verl():
    from verl.tools.schemas import ToolResponse

    from ..benches import in_verl
    from ..benches.tiny_model import load_processor, picture

    processor = load_processor()
    look = lambda code: ToolResponse(text="seen", image=[picture(7)])  # noqa: E731
    texts = [in_verl.CALL, in_verl.CALL, "4"]
    return growth(lambda: in_verl.play(texts, look, processor=processor), 200)


def verifiers():
    from ..benches import in_verifiers
    from ..benches.tiny_model import picture

    async def look(turn):
        return [picture(7), "seen"]

    folder = in_verifiers.scratch()
    with in_verifiers.engine([in_verifiers.CALL, in_verifiers.CALL, "4"], folder) as url:
        context = in_verifiers.client_of(folder, url)
        environment, seen = in_verifiers.make_environment([None] * 20, look), []
        in_verifiers.play_often(environment, context, 50, lambda number: seen.append(resident()))
    slope = (seen[-1] - seen[9]) / (40 * 20)
    return judge(
        slope < MOST_KILOBYTES,
        f"{slope:+.1f} kB per episode over 800 episodes, {seen[-1] / 1024:.0f} MB in all, a small "
        "engine of this try included",
    )
