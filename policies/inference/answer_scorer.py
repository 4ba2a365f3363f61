"""Log-probability of an answer under a vision-language policy, by one forward pass."""

from __future__ import annotations

from collections.abc import Sequence

from ...envs.types import Message
from .vlm import VisionLanguagePolicy


class TokenAnswerScorer:
    """Scores answers with the weights of a policy; see `probe.AnswerScorer`."""

    def __init__(self, policy: VisionLanguagePolicy) -> None:
        self._policy = policy

    def answer_log_probability(
        self, messages: Sequence[Message], before: str, answer: str
    ) -> float:
        """Return the sum of log-probabilities of the answer's tokens, closing tag included."""
        chat = self._policy.model.chat
        prompt = [*chat.open_prompt(messages), *chat.encode_text(before)]
        own = chat.encode_text(f"{answer}</answer>")
        images = [image for message in messages for image in message.images]
        scores = self._policy.full_logprobs([*prompt, *own], images)
        return sum(scores[len(prompt) :])
