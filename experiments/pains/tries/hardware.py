"""9. Too much hardware, too slow to begin with.

Reported: DeepEyes #14, #138; PyVision-RL #3; VLM-R1 #276, #122.
Try: the smallest whole step (rollout, reward, update of a vision-language model of 2 million
parameters) on this machine's CPU, with what the package itself offers. It passes if it can be done.
"""

import time

from ..verdict import judge, untried


def ours():
    import tempfile
    from pathlib import Path

    from codedance.envs.suites.loading import load_suite
    from codedance.policies.loading import NANO_FOLDER
    from codedance.policies.training.grpo.config import GRPOConfig
    from codedance.policies.training.grpo.loop import train_grpo
    from codedance.sandbox import open_sandbox

    suite, steps = load_suite("nano", split="train"), []
    config = GRPOConfig(steps=1, tasks_per_step=2, num_generations=4, max_redraws=0)
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as place, open_sandbox("local") as sandbox:
        train_grpo(
            NANO_FOLDER,
            [suite[n] for n in range(2)],
            config,
            sandbox=sandbox,
            folder=Path(place),
            on_step=lambda step, metrics: steps.append(metrics),
        )
    seconds = time.perf_counter() - begun
    calls = steps[0]["tool_calls/mean"]
    return judge(
        bool(steps), f"one step of 8 episodes with {calls:.1f} calls each: {seconds:.1f} s"
    )


def trl():
    from ..benches import in_trl

    rows = [{"prompt": [{"role": "user", "content": f"How many, {n}?"}]} for n in range(4)]
    trainer = in_trl.make_trainer(
        rewards=[lambda completions, **_: [float(n) for n in range(len(completions))]],
        rows=rows,
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=120,
    )
    before = [one.clone() for one in trainer.model.parameters()]
    begun = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - begun
    pairs = zip(before, trainer.model.parameters(), strict=True)
    changed = sum(not one.equal(other) for one, other in pairs)
    return judge(
        changed > 0, f"GRPOTrainer, use_cpu: one step of 8 completions, no tools: {seconds:.1f} s"
    )


def verl():
    from verl.workers.rollout.base import _ROLLOUT_REGISTRY, get_rollout_class

    said = []
    for name, mode in _ROLLOUT_REGISTRY:
        try:
            get_rollout_class(name, mode)
            said.append(f"{name} is there")
        except (ImportError, RuntimeError, ValueError) as error:
            said.append(f"{name}: {str(error)[:60]}")
    return untried(
        f"its trainer generates with one of {len(said)} engines, none here: {'; '.join(said)}"
    )


def verifiers():
    return untried("verifiers trains nothing; prime-rl, which does, needs GPUs")
