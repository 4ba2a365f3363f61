"""Requests to ``POST /inference/v1/generate`` of vLLM, and strict reading of its answers.

Read in vLLM 0.32 and 0.33. Images go out as one placeholder id each and as PNGs at the size that
the model sees; the server expands the placeholders and returns the ids of the prompt as it was
computed. An answer to another prompt, or with an incomplete or impossible reply, is an error.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from ....envs.types import WeightSpan
from ...interface import PolicyUnavailableError, Sampling

GENERATE_PATH = "/inference/v1/generate"
MOST_BIASES = 1024
"""Largest number of ids in ``logit_bias``."""
_FORBIDDEN = -100.0  # the strongest bias that vLLM takes
_LEAST_TEMPERATURE, _MOST_TEMPERATURE = 0.01, 2.0
_NO_LOG_PROBABILITY = -9999.0  # stands for minus infinity and for NaN
_ROUNDING = 1e-4  # a log-probability above 0 by no more than this is one of 0
_SHOWN_CHARACTERS = 300


class AnswerError(PolicyUnavailableError):
    """A server's answer is not usable; another request can succeed.

    Attributes:
        is_final: Whether the same request would be answered in the same way.
    """

    def __init__(self, message: str, *, is_final: bool = False) -> None:
        super().__init__(message)
        self.is_final = is_final


class PausedError(AnswerError):
    """The server is paused, as for new weights: it took no request, or ended the reply."""


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """Prompt of one reply, as it is sent.

    Attributes:
        ids: Exact ids of the whole prompt, image tokens expanded.
        short_ids: The same with one placeholder per image.
        image_urls: Data URL of each image, at the model's size.
        seed: Random seed of the reply; None for the server's own.
        scored: Indices of the ids whose own log-probabilities are asked for, from 1 on.
    """

    ids: tuple[int, ...]
    short_ids: Sequence[int]
    image_urls: Sequence[str]
    seed: int | None
    scored: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Rules:
    """What all requests of a policy have in common.

    Attributes:
        sampling: Sampling parameters.
        end_id: Id that ends a turn.
        forbidden: Ids that must not be sampled, at most `MOST_BIASES`.
        vocabulary: Number of ids.
        weight_version: Version that every token has to be sampled from; None for any.

    Raises:
        ValueError: vLLM refuses the temperature, or would draw at another one.
    """

    sampling: Sampling
    end_id: int
    forbidden: Collection[int]
    vocabulary: int
    weight_version: str | None = None

    def __post_init__(self) -> None:
        """Reject a temperature that vLLM does not take as it stands."""
        temperature = self.sampling.temperature
        if temperature and not _LEAST_TEMPERATURE <= temperature <= _MOST_TEMPERATURE:
            raise ValueError(
                f"vLLM draws at temperatures from {_LEAST_TEMPERATURE} to {_MOST_TEMPERATURE}, or "
                f"takes the most likely token at 0; got {temperature}"
            )


@dataclass(frozen=True, slots=True)
class Generated:
    """A server's reply.

    Attributes:
        ids: Sampled ids, the end of the turn included.
        log_probabilities: Log-probability of each, in the distribution that it was drawn from.
        is_stopped: Whether it ended by the end of the turn or a stop text, not by a limit.
        weight_versions: Versions of the weights, by index into ``ids``; empty where the server
            names none.
        cached: Number of prompt tokens that were in the server's prefix cache; None if unknown.
        prompt_scores: Log-probability of each of `Prompt.scored` given the ids before it, at
            temperature 1 and without a bias.
    """

    ids: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    is_stopped: bool
    weight_versions: tuple[WeightSpan, ...] = ()
    cached: int | None = None
    prompt_scores: tuple[float, ...] = ()


def request_body(
    prompt: Prompt, limit: int, rules: Rules, *, model: str | None = None
) -> dict[str, Any]:
    """Return the JSON body of a request.

    Args:
        prompt: Prompt.
        limit: Limit of new tokens, at least 1.
        rules: Sampling parameters and forbidden ids.
        model: Name of the model, or of adapters, on the server; None for its base model.
    """
    sampling = rules.sampling
    params: dict[str, Any] = {
        "n": 1,  # several at once have been dropped silently (vLLM issue 52398)
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "max_tokens": limit,
        "logprobs": 0,
        "stop_token_ids": [rules.end_id],
    }
    if rules.forbidden:
        params["logit_bias"] = {str(token): _FORBIDDEN for token in sorted(rules.forbidden)}
    if sampling.stop:
        params |= {"stop": list(sampling.stop), "include_stop_str_in_output": True}
    if prompt.seed is not None:
        params["seed"] = prompt.seed
    if prompt.scored:
        params["prompt_logprobs"] = 0
    body: dict[str, Any] = {
        "token_ids": list(prompt.short_ids),
        "return_token_ids": True,
        "output_mode": "tokens",
        "sampling_params": params,
    }
    if prompt.image_urls:
        # No uuid: it would be the whole key of the image cache (vLLM issue 55547).
        body["content_parts"] = [{"type": "image_url", "url": url} for url in prompt.image_urls]
    if model is not None:
        body["model"] = model
    return body


def read_answer(data: object, prompt: Prompt, limit: int, rules: Rules) -> Generated:
    """Read the answer to a request.

    Raises:
        AnswerError: The prompt was computed from other ids, or the reply is incomplete, contains
            forbidden ids, or is of other weights.
    """
    answer = _mapping(data, "the answer")
    check_prompt(answer.get("prompt_token_ids"), prompt.ids)
    choices = answer.get("choices")
    if not isinstance(choices, list) or len(cast("list[object]", choices)) != 1:
        raise AnswerError(f"expected one reply, got {_shown(choices)}")
    choice = _mapping(cast("list[object]", choices)[0], "choices[0]")
    reason = choice.get("finish_reason")
    if reason == "abort":
        raise PausedError("the server aborted the reply")
    if reason not in ("stop", "length"):
        raise AnswerError(f"the reply ended for an unknown reason: {_shown(reason)}")
    ids = _ids(choice.get("token_ids"), limit, rules)
    is_stopped = reason == "stop" or ids[-1] == rules.end_id
    if is_stopped and ids[-1] != rules.end_id:
        _check_stop(choice.get("stop_reason"), ids[-1], rules)
    if not is_stopped and len(ids) < limit:
        raise AnswerError(f"the reply was cut after {len(ids)} tokens, not {limit}")
    return Generated(
        ids,
        _log_probabilities(choice.get("logprobs"), ids),
        is_stopped,
        _weight_versions(choice.get("weight_versions"), len(ids), rules.weight_version),
        _cached(answer.get("usage")),
        _prompt_scores(answer.get("prompt_logprobs"), prompt),
    )


def check_prompt(found: object, asked: tuple[int, ...]) -> None:
    """Reject a prompt that differs from ours: its reply belongs to another conversation.

    Args:
        found: ``prompt_token_ids`` of an answer.
        asked: Our ids.

    Raises:
        AnswerError: They differ.
    """
    if not isinstance(found, list):
        raise AnswerError("the server returned no prompt_token_ids", is_final=True)
    ids = cast("list[object]", found)
    if tuple(ids) == asked:
        return
    pairs = zip(ids, asked, strict=False)
    place = next((i for i, (one, own) in enumerate(pairs) if one != own), min(len(ids), len(asked)))
    raise AnswerError(
        f"the server computed another prompt: {len(ids)} ids for {len(asked)}, different from "
        f"id {place} on; if its image sizes differ, start it with --mm-processor-kwargs "
        "'{\"do_resize\": false}'",
        is_final=True,
    )


def _check_stop(reason: object, token: int, rules: Rules) -> None:
    """Reject an end that is neither the end of a turn nor one of the stop texts."""
    if not isinstance(reason, str) or reason not in rules.sampling.stop:
        raise AnswerError(
            f"the server stopped at id {token} ({_shown(reason)}), which does not end a turn of "
            "this model: start it with --generation-config vllm",
            is_final=True,
        )


def _ids(found: object, limit: int, rules: Rules) -> tuple[int, ...]:
    if not isinstance(found, list) or not found:
        raise AnswerError(f"the reply has no token ids: {_shown(found)}")
    ids = cast("list[object]", found)
    if not all(type(one) is int and 0 <= one < rules.vocabulary for one in ids):
        raise AnswerError(f"the reply holds ids outside of the vocabulary: {_shown(ids)}")
    known = tuple(cast("list[int]", ids))
    if len(known) > limit:
        raise AnswerError(f"{len(known)} tokens were generated, at most {limit} asked for")
    if forbidden := set(known) & set(rules.forbidden):
        raise AnswerError(
            f"the server sampled the control id {min(forbidden)} in spite of logit_bias",
            is_final=True,
        )
    if rules.end_id in known[:-1]:
        raise AnswerError("the server generated beyond the end of the turn", is_final=True)
    return known


def _log_probabilities(found: object, ids: tuple[int, ...]) -> tuple[float, ...]:
    content = _field(found, "content")
    if not isinstance(content, list) or len(cast("list[object]", content)) != len(ids):
        raise AnswerError(f"expected {len(ids)} log-probabilities, got {_shown(content)}")
    scores: list[float] = []
    for token, one in zip(ids, cast("list[object]", content), strict=True):
        entry = _mapping(one, "a log-probability")
        if entry.get("token_id") != token:
            raise AnswerError(f"the log-probability of id {token} is that of {_shown(entry)}")
        scores.append(_log_probability(entry.get("logprob"), f"the sampled id {token}"))
    return tuple(scores)


def _prompt_scores(found: object, prompt: Prompt) -> tuple[float, ...]:
    """Return the log-probabilities of the ids of a prompt that were asked for."""
    if not prompt.scored:
        return ()
    if not isinstance(found, list) or len(cast("list[object]", found)) != len(prompt.ids):
        raise AnswerError(f"expected prompt_logprobs of {len(prompt.ids)} ids, got {_shown(found)}")
    entries, scores = cast("list[object]", found), list[float]()
    for place in prompt.scored:
        token = prompt.ids[place]
        entry = _field(_field(entries[place], str(token)), "logprob")
        scores.append(_log_probability(entry, f"id {token} of the prompt"))
    return tuple(scores)


def _log_probability(score: object, name: str) -> float:
    """Return a log-probability; one above 0 by rounding is 0."""
    if (
        isinstance(score, bool)
        or not isinstance(score, int | float)
        or not math.isfinite(score)
        or not _NO_LOG_PROBABILITY < score <= _ROUNDING
    ):
        raise AnswerError(f"{_shown(score)} is no log-probability of {name}")
    return min(float(score), 0.0)


def _weight_versions(found: object, count: int, expected: str | None) -> tuple[WeightSpan, ...]:
    if found is None:
        if expected is not None:
            raise AnswerError(f"the server names no version of its weights, not {expected!r}")
        return ()
    spans: list[WeightSpan] = []
    for one in cast("list[object]", found) if isinstance(found, list) else [found]:
        entry = _mapping(one, "a version of the weights")
        version, start, end = (entry.get(name) for name in ("version", "start", "end"))
        begin = spans[-1].end if spans else 0
        if start != begin or type(end) is not int or end <= begin or not isinstance(version, str):
            raise AnswerError(f"versions of the weights with gaps: {_shown(found)}")
        spans.append(WeightSpan(version, begin, end))
    if not spans or spans[-1].end != count:
        raise AnswerError(f"versions of the weights for {count} tokens: {_shown(found)}")
    stale = [span.version for span in spans if expected not in (None, span.version)]
    if stale:
        raise AnswerError(f"sampled from the weights {stale[0]!r}, not {expected!r}", is_final=True)
    return tuple(spans)


def _cached(usage: object) -> int | None:
    count = _field(_field(usage, "prompt_tokens_details"), "cached_tokens")
    return count if isinstance(count, int) else None


def _field(value: object, name: str) -> object:
    """Return a field of an object; None where it is none."""
    return cast("Mapping[str, object]", value).get(name) if isinstance(value, Mapping) else None


def _mapping(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise AnswerError(f"{name} is not an object: {_shown(value)}")
    return cast("Mapping[str, Any]", value)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
