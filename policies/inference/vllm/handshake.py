"""Handshake: one prompt with an image, computed by the server and by our own model.

Engine and trainer never agree to the bit, but they agree closely if both have the same weights, the
same image and empty caches. Compared are the log-probabilities of the prompt's text, and those of
the likeliest next tokens, for which the server may use its prefix cache; both are asked at
temperature 1 without a bias. At another temperature and with the bias, a server has to return
log-probabilities of the distribution that it samples from. Each cause of a difference that trainers
have met is told apart by asking again: without the prefix cache, and without the image.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from ....envs.types import Message
from ...interface import PolicyUnavailableError, Sampling
from ...models.token_model import PicturedIds, TokenModel, sampling_logits
from ..server_words import short, without_credentials, words_of
from .policy import VllmPolicy
from .wire import GENERATE_PATH, AnswerError, Prompt, Rules, check_prompt, request_body

if TYPE_CHECKING:
    from PIL import Image

FLOAT32_BOUND = 1e-4
"""Largest accepted mean difference where our weights are float32; 2e-6 was measured."""
LOW_PRECISION_BOUND = 0.05
"""The same in 16 bits; 0.024 was measured between float32 and bfloat16, 0.06 to 0.3 for weights or
images that differ."""
_TOP = 20
_OTHER = 2.0  # temperature at which a server shows which distribution it scores under
_SIDES = (100, 70)  # no multiple of a patch: a resize on the server's side shows
_QUESTION = "What is drawn here? Count the edges, the corners and the colours."
_SALTS = itertools.count()


class HandshakeError(PolicyUnavailableError):
    """Server and trainer disagree; the message names the likely cause.

    Attributes:
        is_away: Whether the server gave no answer at all.
    """

    def __init__(self, message: str, *, is_away: bool = False) -> None:
        super().__init__(message)
        self.is_away = is_away


@dataclass(frozen=True, slots=True)
class Difference:
    """Difference of the log-probabilities, |engine - trainer|.

    Attributes:
        largest: Largest difference.
        mean: Mean difference.
        cached: Number of prompt tokens that came from the server's prefix cache; None if unknown.
        version: Version of the weights that the server named; None where it names none.
    """

    largest: float
    mean: float
    cached: int | None
    version: str | None


def shake_hands(
    policy: VllmPolicy,
    model: TokenModel,
    *,
    urls: Sequence[str] | None = None,
    bound: float | None = None,
    is_fresh: bool = False,
) -> Mapping[str, Difference]:
    """Compare each server with our own model on one prompt.

    Args:
        policy: Policy of the servers.
        model: Our own model with the weights that they should have.
        urls: Base URLs of the servers to compare; None for all.
        bound: Largest accepted mean difference; None for `FLOAT32_BOUND` or
            `LOW_PRECISION_BOUND`, by the precision of ``model``.
        is_fresh: Whether the weights have just been loaded: no token may come from a cache.

    Returns:
        Difference by the URL of the server.

    Raises:
        HandshakeError: A difference is above the bound, a cache was not empty, or the server
            returns log-probabilities of another distribution than it samples from.
        PolicyUnavailableError: A server gave no answer, or an answer to another prompt.
    """
    if bound is None:
        is_float32 = next(model.model.parameters()).dtype == torch.float32
        bound = FLOAT32_BOUND if is_float32 else LOW_PRECISION_BOUND
    found: dict[str, Difference] = {}
    for url in policy.urls if urls is None else urls:
        one = _Pair(policy, model, url)
        difference = one.measure()
        if is_fresh and difference.cached:
            raise HandshakeError(
                f"{one.name}: {difference.cached} tokens came from the prefix cache right after "
                "the weights were loaded: the cache was not emptied"
            )
        if not difference.mean <= bound:
            raise HandshakeError(
                f"{one.name}: log-probabilities differ by {difference.mean:.2g} in the mean "
                f"({difference.largest:.2g} at most), more than {bound:g}: "
                f"{one.cause(difference, bound)}"
            )
        one.check_mode(bound)
        found[url] = difference
    return found


class _Pair:
    """A server and our own model."""

    def __init__(self, policy: VllmPolicy, model: TokenModel, url: str) -> None:
        self.name = without_credentials(url)
        self._policy = policy
        self._model = model
        self._url = url

    def measure(self, *, image: bool = True, is_cached: bool = True) -> Difference:
        """Measure the difference on the prompt of the handshake.

        Args:
            image: Whether the prompt has an image.
            is_cached: Whether the server may use its prefix cache.
        """
        encoder = self._policy.encoder
        images = [_drawing()] if image else []
        message = Message("user", (*images, _QUESTION))
        ids = tuple(encoder.chat.open_prompt([message]))
        urls = [self._policy.image_urls.url(one) for one in images]
        asked = Prompt(ids, encoder.collapse(ids, images), urls, seed=None)
        own = self._own(ids, images)
        salt = None if is_cached else f"handshake-{next(_SALTS)}-{id(self)}"
        likeliest = self._ask(asked, {"logprobs": _TOP}, salt)
        prompt = self._ask(asked, {"logprobs": 0, "prompt_logprobs": 0}, salt)
        apart = [score - own[-1, token] for token, score in _likeliest(likeliest).items()]
        for place, scores in enumerate(_prompt_scores(prompt, len(ids))):
            if place and ids[place] != encoder.chat.image_id:
                apart.append(_score(scores, ids[place]) - own[place - 1, ids[place]])
        difference = torch.stack(apart).abs()
        details = (likeliest.get("usage") or {}).get("prompt_tokens_details") or {}
        spans = likeliest["choices"][0].get("weight_versions") or [{}]
        return Difference(
            float(difference.max()),
            float(difference.mean()),
            details.get("cached_tokens"),
            spans[0].get("version"),
        )

    def check_mode(self, bound: float) -> None:
        """Check that log-probabilities are those of the distribution that tokens are sampled from.

        Raises:
            HandshakeError: They are not.
        """
        encoder, model = self._policy.encoder, self._model
        ids = tuple(encoder.chat.open_prompt([Message("user", (_QUESTION,))]))
        forbidden = tuple(encoder.forbidden_ids)
        rules = Rules(Sampling(temperature=_OTHER), encoder.chat.end_id, forbidden, 0)
        answer = self._ask(Prompt(ids, ids, [], seed=None), {"logprobs": _TOP}, None, rules)
        raw = self._own(ids, [])[-1]
        sampled = sampling_logits(raw.clone(), model.allowed().cpu(), _OTHER).log_softmax(dim=-1)
        found = _likeliest(answer)
        as_sampled, as_raw = (
            float(torch.tensor([abs(score - own[token]) for token, score in found.items()]).mean())
            for own in (sampled, raw)
        )
        if as_sampled > bound and as_raw <= bound:
            raise HandshakeError(
                f"{self.name} returns log-probabilities of another distribution than it samples "
                "from: start it with --logprobs-mode processed_logprobs"
            )
        if not as_sampled <= bound:
            raise HandshakeError(
                f"{self.name}: at temperature {_OTHER:g}, log-probabilities differ by "
                f"{as_sampled:.2g} in the mean, more than {bound:g}, and agree at 1: the server "
                "changes its distribution in another way (start it by `codedance serve engine "
                "MODEL`)"
            )

    def cause(self, seen: Difference, bound: float) -> str:
        """Return the likely cause of a difference, after asking in other ways."""
        if self.measure(is_cached=False).mean <= bound:
            return (
                "without the prefix cache they agree: it holds keys and values of older weights; "
                "empty it (`POST /reset_prefix_cache`) whenever weights are loaded"
            )
        text = self.measure(image=False, is_cached=False)
        if text.mean <= bound:
            return (
                "without an image they agree: the server resizes it (start it with "
                "--mm-processor-kwargs '{\"do_resize\": false}'), keeps features of older "
                "weights (`POST /reset_encoder_cache`), or has another vision tower"
            )
        if max(text.mean, seen.mean) < LOW_PRECISION_BOUND:
            return (
                "the difference is small: one side computes in another precision (start the server "
                "with our --dtype, or accept a larger difference), or has slightly other weights"
            )
        config = self._model.model.config
        if any(
            getattr(one, "tie_word_embeddings", False) for one in (config, config.get_text_config())
        ):
            return (
                "text differs as well: the server has other weights, or, on a CPU, an old copy of "
                "its head, which is tied to the embedding (start it by `codedance serve engine "
                "MODEL`)"
            )
        return "text differs as well: the server has other weights"

    def _own(self, ids: tuple[int, ...], images: list[Image.Image]) -> Tensor:
        """Return our own log-probabilities after each id, ``(length, vocabulary)``."""
        model = self._model
        was_training = model.model.training
        model.model.eval()
        try:
            with torch.inference_mode():
                hidden = model.hidden(model.pad([PicturedIds(ids, images)]))
                return model.logits(hidden[0]).log_softmax(dim=-1).cpu()
        finally:
            model.model.train(was_training)

    def _ask(
        self,
        prompt: Prompt,
        params: Mapping[str, int],
        salt: str | None,
        rules: Rules | None = None,
    ) -> dict[str, Any]:
        import httpx

        settings = self._policy.settings
        rules = rules or Rules(Sampling(), self._policy.encoder.chat.end_id, (), 0)
        body = request_body(prompt, 1, rules, model=self._policy.served_as.model)
        body["sampling_params"] |= params
        if salt is not None:
            body["cache_salt"] = salt
        headers = {"Authorization": f"Bearer {settings.api_key}"} if settings.api_key else {}
        try:
            response = httpx.post(
                self._url + GENERATE_PATH,
                json=body,
                headers=headers,
                timeout=settings.timeout_seconds,
            )
            if not response.is_success:
                raise AnswerError(words_of(response, settings.api_key))
            answer = response.json()
            check_prompt(answer.get("prompt_token_ids"), prompt.ids)
        except AnswerError as error:
            raise HandshakeError(f"{self.name}: {error}") from error
        except ValueError as error:
            raise HandshakeError(f"{self.name}: no JSON: {short(str(error))}") from error
        except httpx.HTTPError as error:
            said = f"{type(error).__name__}: {short(str(error))}"
            raise HandshakeError(f"{self.name} gave no answer: {said}", is_away=True) from error
        return answer


def _likeliest(answer: Mapping[str, Any]) -> dict[int, float]:
    """Return the log-probabilities of the likeliest next tokens."""
    try:
        (entry,) = answer["choices"][0]["logprobs"]["content"]
        return {one["token_id"]: float(one["logprob"]) for one in entry["top_logprobs"]}
    except (LookupError, TypeError, ValueError) as error:
        raise HandshakeError(f"the answer has no log-probabilities: {error}") from error


def _prompt_scores(answer: Mapping[str, Any], count: int) -> Sequence[Any]:
    """Return the scores of each token of the prompt."""
    scores = answer.get("prompt_logprobs")
    if not isinstance(scores, list) or len(cast("list[Any]", scores)) != count:
        raise HandshakeError(f"expected the scores of {count} tokens, got {str(scores)[:80]}")
    return cast("list[Any]", scores)


def _score(scores: Any, token: int) -> float:  # noqa: ANN401 - a part of an answer
    """Return the log-probability of a token of the prompt."""
    try:
        return float(scores[str(token)]["logprob"])
    except (LookupError, TypeError, ValueError) as error:
        raise HandshakeError(f"the answer has no score of a prompt's token: {error}") from error


def _drawing() -> Image.Image:
    """Return the image of the handshake: shapes, edges and a gradient."""
    from PIL import Image, ImageDraw

    width, height = _SIDES
    image = Image.linear_gradient("L").resize(_SIDES).convert("RGB")
    pen = ImageDraw.Draw(image)
    pen.ellipse((8, 8, 40, 40), fill=(220, 40, 40))
    pen.rectangle((50, 12, width - 9, 44), fill=(30, 60, 200))
    pen.line((5, height - 8, width - 6, 50), fill=(20, 180, 60), width=3)
    return image
