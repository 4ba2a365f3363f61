"""Interfaces of verl 0.9.1 and verifiers 0.3.1 and 0.4.0, as far as our adapters use them.

Recorded from the published packages, to test the adapters where the packages are not installed:
the same names, the same errors, and a loop with the same order of calls.
"""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any


class AgentLoopBase:
    """verl's base class: all arguments by name, one coroutine to implement."""

    def __init__(
        self,
        trainer_config: Any,
        server_manager: Any,
        tokenizer: Any,
        processor: Any,
        dataset_cls: Any,
        data_config: Any,
        hf_model_type: str | None = None,
        **kwargs: Any,
    ) -> None:
        assert not kwargs, f"settings that verl does not know: {sorted(kwargs)}"
        self.rollout_config = trainer_config.config.actor_rollout_ref.rollout
        self.server_manager = server_manager
        self.tokenizer = tokenizer
        self.processor = processor


@dataclass
class AgentLoopOutput:
    """verl's output, with the fields that a loop may set."""

    prompt_ids: list[int]
    response_ids: list[int]
    response_mask: list[int]
    metrics: dict[str, float]
    response_logprobs: list[float] | None = None
    routed_experts: Any = None
    multi_modal_data: dict[str, Any] | None = None
    reward_score: float | None = None
    num_turns: int = 0
    extra_fields: dict[str, Any] = field(default_factory=dict)
    mm_processor_kwargs: dict[str, Any] | None = None
    mm_processor_output: list[Any] | None = None

    def __post_init__(self) -> None:
        lengths = {len(self.response_ids), len(self.response_mask)}
        if self.response_logprobs is not None:
            lengths.add(len(self.response_logprobs))
        assert len(lengths) == 1


@dataclass
class TokenOutput:
    """verl's output of its server manager."""

    token_ids: list[int]
    log_probs: list[float] | None = None
    stop_reason: str | None = None


class InfraError(Exception):
    """verifiers' infrastructure failure, stored in the state."""


class Rubric:
    """verifiers' rubric: functions of a group take ``states`` and return a list."""

    def __init__(self, funcs: list[Any]) -> None:
        self.funcs = funcs

    def score_group(self, states: list[dict[str, Any]]) -> None:
        (function,) = self.funcs
        rewards = function(states=states)
        mean = sum(rewards) / len(rewards)
        for state, reward in zip(states, rewards, strict=True):
            state["reward"] = reward
            for step in state["trajectory"]:
                if step["advantage"] is None:
                    step["advantage"] = reward - mean


def cleanup(function: Any) -> Any:
    """verifiers' decorator of functions that run after every rollout."""
    function.is_cleanup = True
    return function


class MultiTurnEnv:
    """verifiers' loop: set up, call the model, let the environment respond, until it is done."""

    def __init__(self, *, dataset: Any, rubric: Rubric, max_turns: int) -> None:
        self.dataset, self.rubric, self.max_turns = dataset, rubric, max_turns

    async def rollout(self, row: dict[str, Any], model: Any) -> dict[str, Any]:
        state = {**row, "trajectory": [], "trajectory_id": "t0", "model": "scripted", "error": None}
        state = await self.setup_state(state)
        messages = list(state["prompt"])
        while state["error"] is None and state.get("final_env_response") is None:
            try:
                if state["trajectory"]:
                    messages += await self.env_response(messages, state)
                    if state.get("final_env_response") is not None:
                        continue
                text, is_cut = model(messages)
            except InfraError as error:
                state["error"] = error
                continue
            messages.append({"role": "assistant", "content": text})
            state["trajectory"].append({"is_truncated": is_cut, "advantage": None})
        for name in dir(self):
            if getattr(getattr(self, name), "is_cleanup", False):
                await getattr(self, name)(state)
        state["messages"] = messages
        return state


VERIFIERS = SimpleNamespace(
    MultiTurnEnv=MultiTurnEnv, Rubric=Rubric, InfraError=InfraError, cleanup=cleanup
)


class Interaction:
    """verifiers 0.4's interaction: a user turn in, a segment out; ``terminated`` at the limit.

    A reply that is a pair is the text of a reply that a token limit ended.
    """

    def __init__(self, replies: list[Any]) -> None:
        self.replies = replies
        self.heard: list[Any] = []
        self.trace = SimpleNamespace(calls=list[Any](), errors=list[Any]())

    async def turn(self, message: Any = None) -> Any:
        self.heard.append(message)
        if not self.replies:
            return SimpleNamespace(terminated=True, last_reply="")
        reply = self.replies.pop(0)
        text, reason = reply if isinstance(reply, tuple) else (reply, "stop")
        self.trace.calls.append(SimpleNamespace(finish_reason=reason))
        return SimpleNamespace(terminated=False, last_reply=text)
