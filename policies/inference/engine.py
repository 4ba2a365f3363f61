"""Generation from exact ids with continuous batching: rows join and leave slots at any step.

Equal prompts are prefilled once. A row that finishes its turn returns its keys and values, so that
its next turn prefills only new tokens. Positions are passed explicitly, and attention is restricted
by a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from ..interface import Sampling
from ..models.pictures import picture_digest
from ..models.token_model import Padded, PicturedIds, TokenModel
from .key_value_cache import RowStates, SlotCache, past_cache
from .prompts import ends_turn
from .sampling import choose, draw_uniform, sampled_scores
from .text_step import TextStep

if TYPE_CHECKING:
    from PIL import Image

_PREFILL_TOKENS = 32_768  # padded tokens per prefill pass, at most


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """Prompt of one row.

    Attributes:
        ids: Ids of the episode so far, with the assistant's turn opened.
        images: Images of the episode so far.
        seed: Random seed of the episode.
        turn: Index of this reply in the episode.
        limit: Limit of new tokens, at least 1.
        past: Cached keys and values of the first ids; None where there are none.
    """

    ids: tuple[int, ...]
    images: Sequence[Image.Image]
    seed: int
    turn: int
    limit: int
    past: RowStates | None = None


@dataclass(slots=True, eq=False)
class Completion:
    """Output of one row.

    Attributes:
        ids: Drawn ids.
        log_probabilities: Log-probability of each drawn id.
        is_finished: Whether the turn ended, by the end token or a stop text.
        states: Keys and values of prompt and ids except the last; None for a row that was cut.
    """

    ids: list[int] = field(default_factory=list[int])
    log_probabilities: list[float] = field(default_factory=list[float])
    is_finished: bool = False
    states: RowStates | None = None


@dataclass(slots=True, eq=False)
class _Row:
    """One row in generation."""

    limit: int
    uniform: list[float]
    completion: Completion


class Slots:
    """The rows in generation, each in a slot.

    The log-probabilities are those of the distribution that tokens were drawn from: at its
    temperature, without the ids that are never drawn (`sampled_scores`).

    Args:
        model: Model that computes the next token.
        sampling: Sampling parameters.
        count: Number of slots.
    """

    def __init__(self, model: TokenModel, sampling: Sampling, *, count: int) -> None:
        self._model = model
        self._sampling = sampling
        self._count = count
        self._rows: list[_Row] = []
        self._allowed = model.allowed()
        self._step = TextStep.of(model)
        with torch.inference_mode():
            self._cache = SlotCache(count)
        self._logits: Tensor | None = None
        self._next_position: Tensor | None = None

    @property
    def busy(self) -> int:
        """Number of rows in generation."""
        return len(self._rows)

    @property
    def free(self) -> int:
        """Number of free slots."""
        return self._count - len(self._rows)

    @torch.inference_mode()
    def join(self, prompts: Sequence[Prompt]) -> list[Completion]:
        """Prefill prompts into free slots; return the outputs that `advance` fills, in order.

        Raises:
            ValueError: There are more prompts than free slots.
        """
        if len(prompts) > self.free:
            raise ValueError(f"{len(prompts)} prompts, but {self.free} slots are free")
        rows = [
            _Row(one.limit, draw_uniform(one.seed, one.turn, one.limit).tolist(), Completion())
            for one in prompts
        ]
        known = [
            (i, one.past)
            for i, one in enumerate(prompts)
            if one.past is not None and self._model.takes_masks
        ]
        is_known = {i for i, _ in known}
        groups = _equal_prompts(prompts, [i for i in range(len(prompts)) if i not in is_known])
        lengths = [len(prompts[group[0]].ids) for group in groups]
        for part in _parts(lengths):
            self._begin(prompts, [groups[index] for index in part])
            self._rows += [rows[member] for index in part for member in groups[index]]
        lengths = [len(prompts[i].ids) - states.length for i, states in known]
        for part in _parts(lengths):
            self._resume([(prompts[known[index][0]], known[index][1]) for index in part])
            self._rows += [rows[known[index][0]] for index in part]
        return [row.completion for row in rows]

    @torch.inference_mode()
    def advance(self) -> list[Completion]:
        """Draw a token for each row; return the finished outputs, whose slots are free again."""
        logits = self._logits
        if logits is None or not self._rows:
            return []
        numbers = [row.uniform[len(row.completion.ids)] for row in self._rows]
        uniform = torch.tensor(numbers, dtype=torch.float64, device=logits.device)
        chosen = choose(logits, uniform, self._sampling, self._allowed)
        scores = sampled_scores(logits, chosen, self._sampling, self._allowed)
        done = self._record(chosen.tolist(), scores.tolist())
        leaving = [self._rows[slot].completion for slot in done]
        if done:
            chosen = chosen[self._leave(done)]
        if self._rows:
            self._feed(chosen)
        return leaving

    @torch.inference_mode()
    def drop(self, completion: Completion) -> None:
        """Free the slot of an unfinished output, which is not filled any further."""
        slot = next(i for i, row in enumerate(self._rows) if row.completion is completion)
        left = self._leave([slot])
        self._logits = None if self._logits is None else self._logits[left]

    def _record(self, chosen: Sequence[int], scores: Sequence[float]) -> list[int]:
        """Record the drawn tokens; return the rows that are done."""
        done: list[int] = []
        chat, stop = self._model.chat, self._sampling.stop
        for slot, (row, token, score) in enumerate(zip(self._rows, chosen, scores, strict=True)):
            completion = row.completion
            completion.ids.append(token)
            completion.log_probabilities.append(score)
            completion.is_finished = ends_turn(chat, completion.ids, stop)
            if completion.is_finished:
                completion.states = self._cache.states(slot)
            if completion.is_finished or len(completion.ids) >= row.limit:
                done.append(slot)
        return done

    def _leave(self, done: Sequence[int]) -> Tensor:
        """Free slots and fill them with rows from the end; return the new order, ``(rows,)``."""
        gone = set(done)
        left = len(self._rows) - len(gone)
        last = iter(row for row in range(len(self._rows) - 1, left - 1, -1) if row not in gone)
        order = [next(last) if row in gone else row for row in range(left)]
        self._cache.keep(order)
        self._rows = [self._rows[row] for row in order]
        index = torch.tensor(order, device=self._model.device, dtype=torch.long)
        if self._next_position is not None:
            self._next_position = self._next_position[index]
        return index

    def _feed(self, chosen: Tensor) -> None:
        """Feed the drawn tokens to the model and store the next logits."""
        if self._next_position is None:
            raise RuntimeError("rows without positions")
        is_seen = self._cache.open_step()
        self._logits = self._step(chosen, self._next_position, is_seen, cache=self._cache)
        self._next_position = self._next_position + 1

    def _begin(self, prompts: Sequence[Prompt], groups: Sequence[Sequence[int]]) -> None:
        """Prefill one prompt of each group of equal ones and copy its states to every member."""
        device = self._model.device
        first = [prompts[group[0]] for group in groups]
        batch = self._model.pad([PicturedIds(one.ids, one.images) for one in first])
        cache = DynamicCache()
        hidden = self._model.hidden(batch, cache=cache)
        of_group = [number for number, group in enumerate(groups) for _ in group]
        rows = torch.tensor(of_group, device=device)
        columns = torch.arange(batch.ids.shape[1], device=device).expand(len(of_group), -1)
        self._cache.join(cache, rows, columns, [len(first[number].ids) for number in of_group])
        self._start(batch, hidden, rows)

    def _resume(self, known: Sequence[tuple[Prompt, RowStates]]) -> None:
        """Prefill only the tokens after the turns whose keys and values are cached."""
        device = self._model.device
        starts = [states.length for _, states in known]
        sources = [PicturedIds(prompt.ids, prompt.images) for prompt, _ in known]
        batch = self._model.pad(sources, starts=starts)
        cache = past_cache([states for _, states in known])
        begin = torch.tensor(starts, device=device)[:, None]
        longest, length = max(starts), batch.ids.shape[1]
        is_past = torch.arange(longest, device=device) < begin
        causal = torch.ones(length, length, dtype=torch.bool, device=device).tril()
        mask = torch.cat(
            [is_past[:, None].expand(-1, length, -1), causal.expand(len(known), -1, -1)], dim=2
        )
        hidden = self._model.hidden(batch, cache=cache, mask=mask)
        rows = torch.arange(len(known), device=device)
        lengths = [len(prompt.ids) for prompt, _ in known]
        columns = torch.arange(max(lengths), device=device).expand(len(known), -1)
        columns = torch.where(columns < begin, columns, columns - begin + longest)
        self._cache.join(cache, rows, columns.clamp(max=longest + length - 1), lengths)
        self._start(batch, hidden, rows)

    def _start(self, batch: Padded, hidden: Tensor, rows: Tensor) -> None:
        """Store logits and positions after the last token of each prompt, for its rows."""
        last = (batch.lengths - 1).to(self._model.device)
        every = torch.arange(len(last), device=self._model.device)
        logits = self._model.logits(hidden[every, last])[rows]
        position = (batch.positions[0].to(self._model.device)[every, last] + 1)[rows]
        if self._rows and self._logits is not None and self._next_position is not None:
            logits = torch.cat([self._logits, logits])
            position = torch.cat([self._next_position, position])
        self._logits, self._next_position = logits, position


def _equal_prompts(prompts: Sequence[Prompt], members: Sequence[int]) -> list[list[int]]:
    """Group members by equal prompts, in order of their first member."""
    groups: dict[tuple[tuple[int, ...], tuple[bytes, ...]], list[int]] = {}
    for member in members:
        one = prompts[member]
        key = (one.ids, tuple(picture_digest(image) for image in one.images))
        groups.setdefault(key, []).append(member)
    return list(groups.values())


def _parts(lengths: Sequence[int]) -> list[list[int]]:
    """Split prompts, in order, so that padded rows times length stay under the prefill limit."""
    parts: list[list[int]] = []
    longest = 0
    for index, length in enumerate(lengths):
        longest = max(longest, length)
        if parts and (len(parts[-1]) + 1) * longest <= _PREFILL_TOKENS:
            parts[-1].append(index)
        else:
            parts.append([index])
            longest = length
    return parts
