"""Batched generation from exact ids: one prefill of each distinct prompt, then a token at a time.

Prompts are padded on the right, so the cache has holes behind the shorter ones; a mask hides them,
and positions are given outright. Rows that are done leave the batch; the keys and values of those
that came to the end of their turn are handed back, so that a next turn reads only what is new.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .interface import Sampling
from .key_value_cache import GrowingCache, RowStates
from .pictures import picture_digest
from .sampling import choose, draw_uniform
from .token_model import Padded, PicturedIds, TokenModel

if TYPE_CHECKING:
    from PIL import Image

_SHRINK = 0.75  # rows are dropped once at most this share of them is still writing


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """What one row starts from.

    Attributes:
        ids: The episode so far, the assistant's turn opened.
        images: Its pictures.
        seed: Of the episode.
        turn: Which reply this is.
        limit: The most tokens that may be drawn, at least 1.
        past: Keys and values of the first ids, if they are at hand.
    """

    ids: tuple[int, ...]
    images: Sequence[Image.Image]
    seed: int
    turn: int
    limit: int
    past: RowStates | None = None


@dataclass(slots=True)
class Completion:
    """What one row wrote.

    Attributes:
        ids: Drawn.
        log_probabilities: Of each.
        is_finished: Whether it came to the end of its turn.
        states: Keys and values of prompt and ids but the last; None for a row that was cut.
    """

    ids: list[int] = field(default_factory=list[int])
    log_probabilities: list[float] = field(default_factory=list[float])
    is_finished: bool = False
    states: RowStates | None = None


@torch.inference_mode()
def generate(model: TokenModel, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
    """Write each prompt's continuation up to the end of its turn or its limit.

    The log-probabilities are those of the model's own distribution (temperature 1, nothing left
    out), whatever tokens were drawn from, so that they equal a full forward pass.
    """
    rows = _Rows(model, prompts)
    allowed = model.allowed()
    for step in range(max(prompt.limit for prompt in prompts)):
        chosen = choose(rows.logits, rows.uniform[:, step], sampling, allowed)
        rows.record(chosen)
        if not any(rows.is_writing):
            break
        rows.advance(chosen)
    rows.keep_states()
    return rows.completions


class _Rows:
    """The rows being written: their cache, next logits and bookkeeping, aligned by slot."""

    def __init__(self, model: TokenModel, prompts: Sequence[Prompt]) -> None:
        self._model = model
        self._prompts = prompts
        self.completions = [Completion() for _ in prompts]
        self._members = list(range(len(prompts)))
        self.is_writing = [True] * len(prompts)
        past = [prompt.past for prompt in prompts if prompt.past is not None]
        if len(past) == len(prompts) and model.takes_masks:
            self._resume(past)
        else:
            self._begin()
        longest = max(prompt.limit for prompt in prompts)
        draws = [draw_uniform(prompt.seed, prompt.turn, longest) for prompt in prompts]
        self.uniform = torch.stack(draws).to(model.device)

    def record(self, chosen: Tensor) -> None:
        """Note the drawn tokens of the rows that are still writing."""
        scores = self.logits.log_softmax(dim=-1).gather(1, chosen[:, None]).squeeze(1)
        drawn = zip(self._members, chosen.tolist(), scores.tolist(), strict=True)
        for slot, (member, token, score) in enumerate(drawn):
            if self.is_writing[slot]:
                completion = self.completions[member]
                completion.ids.append(token)
                completion.log_probabilities.append(score)
                completion.is_finished = token == self._model.chat.end_id
                at_limit = len(completion.ids) >= self._prompts[member].limit
                self.is_writing[slot] = not (completion.is_finished or at_limit)

    def advance(self, chosen: Tensor) -> None:
        """Feed the drawn tokens, done rows left out once they are many."""
        if sum(self.is_writing) <= _SHRINK * len(self.is_writing):
            chosen = self._drop_done(chosen)
        ones = self._is_seen.new_ones(len(self._members), 1)
        self._is_seen = torch.cat([self._is_seen, ones], dim=1)
        self.logits = self._model.step(
            chosen, self._next_position, self._is_seen, cache=self._cache
        )
        self._next_position = self._next_position + 1

    def keep_states(self) -> None:
        """Hand the keys and values of rows that came to their end to their completions."""
        for slot, member in enumerate(self._members):
            completion = self.completions[member]
            if completion.is_finished:
                # The columns of its prompt, then one for each drawn token that was fed: all but
                # the last. A finished row that was fed on holds more, which is left behind.
                seen = self._is_seen[slot].nonzero().squeeze(1)
                count = len(self._prompts[member].ids) + len(completion.ids) - 1
                completion.states = self._cache.row(slot, seen[:count])

    def _begin(self) -> None:
        """Read every distinct prompt once, then give each row its own copy."""
        first, of_prompt = _distinct(self._prompts)
        batch = self._model.pad([self._source(index) for index in first])
        self._cache = GrowingCache()
        hidden = self._model.hidden(batch, cache=self._cache)
        self._start(batch, hidden, self._are_filled(batch))
        if len(first) < len(of_prompt):
            rows = torch.tensor(of_prompt, device=self._model.device)
            self._cache.select(rows)
            self._take(rows)
            self.logits = self.logits[rows]

    def _resume(self, past: Sequence[RowStates]) -> None:
        """Read only what came since the cached turns."""
        device = self._model.device
        starts = [states.length for states in past]
        sources = [self._source(index) for index in range(len(past))]
        batch = self._model.pad(sources, starts=starts)
        self._cache = GrowingCache.of_rows(past)
        known = (
            torch.arange(max(starts), device=device) < torch.tensor(starts, device=device)[:, None]
        )
        new = self._are_filled(batch)
        length = new.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=device).tril()
        mask = torch.cat(
            [known[:, None].expand(-1, length, -1), causal.expand(len(past), -1, -1)], dim=2
        )
        hidden = self._model.hidden(batch, cache=self._cache, mask=mask)
        self._start(batch, hidden, torch.cat([known, new], dim=1))

    def _start(self, batch: Padded, hidden: Tensor, is_seen: Tensor) -> None:
        """Take the state after the last token of each prompt."""
        last = (batch.lengths - 1).to(self._model.device)
        every = torch.arange(len(last), device=self._model.device)
        self.logits = self._model.logits(hidden[every, last])
        self._next_position = batch.positions[0].to(self._model.device)[every, last] + 1
        self._is_seen = is_seen

    def _are_filled(self, batch: Padded) -> Tensor:
        columns = torch.arange(batch.ids.shape[1], device=self._model.device)
        return columns < batch.lengths.to(self._model.device)[:, None]

    def _source(self, index: int) -> PicturedIds:
        return PicturedIds(self._prompts[index].ids, self._prompts[index].images)

    def _drop_done(self, chosen: Tensor) -> Tensor:
        self.keep_states()
        slots = [slot for slot, writing in enumerate(self.is_writing) if writing]
        rows = torch.tensor(slots, device=chosen.device)
        self._cache.select(rows)
        self._take(rows)
        self._members = [self._members[slot] for slot in slots]
        self.is_writing = [True] * len(slots)
        self.uniform = self.uniform[rows]
        return chosen[rows]

    def _take(self, rows: Tensor) -> None:
        self._is_seen = self._is_seen[rows]
        self._next_position = self._next_position[rows]


def _distinct(prompts: Sequence[Prompt]) -> tuple[list[int], list[int]]:
    """Find equal prompts: the first of each, and for every prompt which of those it equals."""
    seen: dict[tuple[tuple[int, ...], tuple[bytes, ...]], int] = {}
    first: list[int] = []
    of_prompt: list[int] = []
    for index, prompt in enumerate(prompts):
        key = (prompt.ids, tuple(picture_digest(image) for image in prompt.images))
        if key not in seen:
            seen[key] = len(first)
            first.append(index)
        of_prompt.append(seen[key])
    return first, of_prompt
