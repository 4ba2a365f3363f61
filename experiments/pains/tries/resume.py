"""13. Resuming is wrong or missing.

Reported: verl #2783, verl PR #5725 (trains 0 steps, silently), Visual-RFT #124.
Try: four steps of reinforcement learning, and two steps, a stop, and two more from the checkpoint.
Are the weights the same, bit for bit?
"""

import tempfile
from pathlib import Path

from ..verdict import judge, untried


def result(one, other, steps):
    """Return the verdict on two runs' weights, by name."""
    import torch

    same = sum(torch.equal(one[name], other[name]) for name in one)
    gap = max(float((one[name] - other[name]).abs().max()) for name in one)
    return judge(
        same == len(one) and steps == 4,
        f"{steps} steps in all; {same} of {len(one)} tensors equal, largest difference {gap:.1e}",
    )


def ours():
    from codedance.envs.suites.loading import load_suite
    from codedance.policies.loading import NANO_FOLDER
    from codedance.policies.training.grpo.config import GRPOConfig
    from codedance.policies.training.grpo.loop import train_grpo
    from codedance.policies.training.training_state import TrainingInterrupted
    from codedance.sandbox import open_sandbox
    from safetensors.torch import load_file

    suite, seen = load_suite("nano", split="train"), []
    config = GRPOConfig(steps=4, tasks_per_step=2, num_generations=4, max_redraws=0, save_every=2)
    with open_sandbox("local") as sandbox:

        def run(folder, **options):
            tasks = [suite[number] for number in range(8)]
            return train_grpo(NANO_FOLDER, tasks, config, sandbox=sandbox, folder=folder, **options)

        place = Path(tempfile.mkdtemp())
        straight = run(place / "straight")
        try:
            run(
                place / "stopped",
                on_step=lambda step, _: seen.append(step),
                should_stop=lambda: len(seen) == 2,
            )
        except TrainingInterrupted:
            resumed = run(place / "stopped", on_step=lambda step, _: seen.append(step))
    weights = (load_file(folder / "model.safetensors") for folder in (straight, resumed))
    return result(*weights, len(seen))


def trl():
    from ..benches import in_trl

    def run(folder, **settings):
        rows = [{"prompt": [{"role": "user", "content": f"How many, {n}?"}]} for n in range(8)]
        return in_trl.make_trainer(
            rewards=[lambda completions, **_: [float(len(str(one)) % 7) for one in completions]],
            rows=rows,
            output_dir=folder,
            max_completion_length=40,
            save_strategy="steps",
            save_steps=2,
            **settings,
        )

    straight = run(tempfile.mkdtemp(), max_steps=4)
    straight.train()
    again = run(tempfile.mkdtemp(), max_steps=4)
    again.train()
    control = result(straight.model.state_dict(), again.model.state_dict(), 4)
    place = tempfile.mkdtemp()
    first = run(place, max_steps=4)
    first.add_callback(stopping(2))
    first.train()
    second = run(place, max_steps=4)
    second.train(resume_from_checkpoint=True)
    weights = (one.model.state_dict() for one in (straight, second))
    found = result(*weights, second.state.global_step)
    said = f"{found.evidence}; control, the same run twice: {control.evidence.split('; ')[1]}"
    return judge(found.result == "passes", said)


def stopping(step):
    """Return a callback that ends a run after a step, whose checkpoint is written."""
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            control.should_training_stop = state.global_step >= step
            return control

    return Stop()


def verl():
    return untried("its trainer needs a GPU engine; nothing of its resuming runs without it")


def verifiers():
    return untried("verifiers trains nothing; its evaluations resume (vf-eval --resume)")
