"""2. Tool calls collapse to zero, and nobody notices.

Reported: DeepEyes #78, #143; Pixel-Reasoner #39; GEM #39; Chain-of-Focus #12.
Try: training whose policy stops calling its tool; is there a figure, and does anything say so?
"""

import logging

from ..verdict import judge, untried

STEPS = 16


class Heard(logging.Handler):
    """Keeps warnings that speak of tools."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.words = []
        logging.getLogger().addHandler(self)

    def emit(self, record):
        self.words += [record.getMessage()] if "tool" in record.getMessage().lower() else []


def ours():
    from codedance.policies.training.grpo.alarms import AlarmBoard, AlarmConfig

    board = AlarmBoard(AlarmConfig(window=4))
    calls = [1.0] * 6 + [0.0] * (STEPS - 6)
    alarms = [one for n, v in enumerate(calls) for one in board.observe(n, {"tool_calls/mean": v})]
    found = [one for one in alarms if one.name == "tool_calls"]
    said = "; ".join(f"step {one.step}: {one.message[:70]}…" for one in found)
    return judge(bool(found), f"calls stop at step 6; alarm at {said or 'no step'}")


def trl():
    from ..benches import in_trl

    def look(code: str) -> str:
        """Look at the image.

        Args:
            code: Program.
        """
        return "seen"

    heard = Heard()
    rows = [{"prompt": [{"role": "user", "content": f"How many, {n}?"}]} for n in range(STEPS)]
    trainer = in_trl.make_trainer(
        rewards=[lambda completions, **_: [1.0, 0.0]], tools=[look], rows=rows, max_steps=STEPS
    )
    call = in_trl.calls(1)
    trainer.writes = lambda turn, n: (call if trainer.state.global_step < 6 else in_trl.calls(0))(
        turn, n
    )
    trainer.train()
    logged = [one.get("tools/call_frequency") for one in trainer.state.log_history]
    calls = [one for one in logged if one is not None]
    said = f"tools/call_frequency {calls[0]:.0f} → {calls[-1]:.0f} is logged, as a figure"
    return judge(bool(heard.words), f"{said}; warnings of it in {STEPS} steps: {len(heard.words)}")


def verl():
    import numpy as np
    import torch
    from verl import DataProto
    from verl.trainer.ppo.metric_utils import compute_data_metrics

    heard, seen = Heard(), []
    for step in range(STEPS):
        ones = torch.ones(4, 8)
        names = ("token_level_scores", "token_level_rewards", "advantages", "returns", "prompts")
        data = DataProto.from_single_dict(
            dict.fromkeys((*names, "responses", "response_mask"), ones)
            | {"attention_mask": torch.ones(4, 16)}
            | {"__num_turns__": np.array([4 if step < 6 else 2] * 4)}
        )
        seen.append(compute_data_metrics(data, use_critic=False))
    named = sorted(name for name in seen[0] if "tool" in name)
    turns = [int(one["num_turns/mean"]) for one in seen]
    said = (
        f"compute_data_metrics: num_turns/mean {turns[0]} → {turns[-1]}, figures of tools {named}"
    )
    return judge(bool(heard.words), f"{said}; warnings: {len(heard.words)}")


def verifiers():
    return untried("verifiers trains nothing; prime-rl, which does, needs GPUs")
