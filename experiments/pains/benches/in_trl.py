"""TRL's GRPOTrainer on the CPU with the nano model, whose replies may be scripted.

Everything is TRL's own (templates, tool loop, rewards, advantages, loss, optimizer); only
`_generate_single_turn`, which would sample, is replaced where the reply has to be a given text.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from pathlib import Path

import trl
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer
from trl.chat_template_utils import add_response_schema

from .tiny_model import load_model, load_processor, picture

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
CALL = '<tool_call>\n{"name": "look", "arguments": {"code": "1"}}\n</tool_call>'
"""A call of a tool ``look(code: str)``, as the template of Qwen3-VL has it."""


def calls(count: int):
    """Return what a model writes that calls the tool ``count`` times and answers then."""
    return lambda turn, prompts: [CALL if turn < count else "4"] * prompts


def tallies():
    """Return the counters that AsyncGRPO's rollout loop keeps."""
    return defaultdict(float), defaultdict(lambda: [0.0, 0.0])


class Scripted(GRPOTrainer):
    """A trainer whose model writes given texts: one function call per turn."""

    writes = None
    """Function of (turn, number of prompts) that returns texts or lists of ids."""
    turn = 0

    def _generate(self, prompts):
        self.turn = 0
        return super()._generate(prompts)

    def _generate_single_turn(self, prompt_ids, images, fields, num_generations, **more):
        if self.writes is None:
            return super()._generate_single_turn(
                prompt_ids, images, fields, num_generations, **more
            )
        replies = self.writes(self.turn, len(prompt_ids))
        self.turn += 1
        tokenizer = self._tokenizer
        ids = [
            tokenizer.encode(one, add_special_tokens=False) if isinstance(one, str) else list(one)
            for one in replies
        ]
        return [[*one, tokenizer.eos_token_id] for one in ids], None


def template() -> str:
    """Return TRL's template of Qwen3-VL: that of Qwen2.5-VL has no tools."""
    return (TEMPLATES / "qwen3_vl.jinja").read_text(encoding="utf-8")


def row(number: int, question: str = "How many bars?"):
    """Return a row of TRL's data set."""
    return {"prompt": [{"role": "user", "content": question}], "image": picture(number)}


def make_trainer(*, rewards, writes=None, tools=None, rows=None, processor=None, **settings):
    """Return a trainer on the CPU.

    Args:
        rewards: Reward functions.
        writes: See `Scripted.writes`; None to sample from the model.
        tools: Tools, as TRL takes them.
        rows: Rows of its data set; None for two questions, each with an image.
        processor: Processor; None for the nano model's, with TRL's template of Qwen3-VL.
        settings: Settings of `GRPOConfig`.
    """
    own = {
        "output_dir": tempfile.mkdtemp(),
        "max_steps": 1,
        "per_device_train_batch_size": 2,
        "num_generations": 2,
        "max_completion_length": 512,
        "learning_rate": 1e-3,
        "beta": 0.0,
        "use_cpu": True,
        "bf16": False,
        "report_to": [],
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "seed": 0,
    }
    trainer = Scripted(
        model=load_model(),
        processing_class=processor or load_processor(template()),
        reward_funcs=rewards,
        args=GRPOConfig(**(own | settings)),
        train_dataset=Dataset.from_list(rows or [row(0), row(1)]),
        tools=tools,
    )
    trainer.writes = writes
    return trainer


def batch_of(trainer):
    """Return TRL's batch for its next generation, with ids, masks, advantages and images."""
    inputs = next(iter(trainer.get_train_dataloader()))
    trainer.model.train()
    return trainer._generate_and_score_completions(inputs)


def drift_of_async(sampled):
    """Return how many of the sampled ids of a call AsyncGRPO trains on, in words."""
    import asyncio

    from trl.experimental.async_grpo import async_rollout_worker as worker

    async def look(code: str) -> str:
        """Look at the image.

        Args:
            code: Program.
        """
        return "seen"

    async def write(prompt_ids):
        asked.append(list(prompt_ids))
        ids = sampled if len(asked) == 1 else tokenizer.encode("4", add_special_tokens=False)
        return [*ids, tokenizer.eos_token_id], [-0.5] * (len(ids) + 1)

    asked, seen = [], []
    tokenizer = add_response_schema(load_processor(template()).tokenizer)
    loop = worker._AsyncRolloutLoop.__new__(worker._AsyncRolloutLoop)
    loop.tokenizer, loop.chat_template, loop.chat_template_kwargs = tokenizer, None, {}
    loop.max_tool_calling_iterations, loop._fork_threshold_tokens, loop.tools = None, 1024, [look]
    loop._counters, loop._rates = tallies()
    loop._generate_one_turn = write
    loop._push_rollout_metrics = lambda **given: seen.append(given["tally"])
    prompt = [{"role": "user", "content": "How many?"}]
    _, _, sequences, *_ = asyncio.run(loop._generate_one(prompt, {"look": look}, [look]))
    begin, kept = len(asked[0]), 0
    for one in sequences:
        mask = list(one.completion_mask)[begin : begin + len(sampled)]
        ids = list(one.input_ids)[begin : begin + len(sampled)]
        pairs = zip(ids, sampled, mask, strict=False)
        kept = max(kept, sum(is_own for got, own, is_own in pairs if got == own))
    return f"{kept} of {len(sampled)} are trained on"
