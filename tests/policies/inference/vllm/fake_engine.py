"""The engine behind the fake of vLLM: our own model, weights that are loaded, caches that go stale.

It expands image placeholders as vLLM does, draws with the seed of the request, and runs the model
without our engine: a whole prefill, then a token at a time. A prompt that it has seen is computed
with the weights of that time until its prefix cache is emptied, and an image with the vision tower
of that time until the other caches are.
"""

import base64
import copy
import io
import queue
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from codedance.policies.inference.sampling import choose
from codedance.policies.interface import Sampling
from codedance.policies.models.token_model import PicturedIds, TokenModel
from peft import PeftModel
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText
from transformers.cache_utils import DynamicCache

Body = dict[str, Any]
_LOADING = threading.Lock()  # two fakes of one process: transformers loads one model at a time


class TooLongError(Exception):
    """A prompt does not fit the context."""


@dataclass(frozen=True)
class Drawn:
    """One reply."""

    ids: list[int]
    scores: list[float]
    top: list[list[dict[str, Any]]]
    reason: str
    stop: str | None = None


class FakeEngine:
    """Generates one reply at a time."""

    def __init__(
        self, model: TokenModel, *, context: int, resizes: bool, logprobs_mode: str
    ) -> None:
        self.logprobs_mode = logprobs_mode
        self.context = context
        self.version = "default"
        self.inbox: queue.Queue[Tensor | None] = queue.Queue()
        self._processor = copy.deepcopy(model.pictures.processor)
        self._processor.do_resize = resizes
        self._tokenizer = model.chat.tokenizer
        self._now = self._served(model.model)
        self._prefixes: dict[tuple[object, ...], TokenModel] = {}
        self._features: dict[str, TokenModel] = {}
        self._adapted: dict[str, TokenModel] = {}

    def load(self, folder: str) -> None:
        """Load the weights of a folder; the caches stay.

        Raises:
            ValueError: There are none.
        """
        try:
            with _LOADING:
                model = AutoModelForImageTextToText.from_pretrained(folder)
        except OSError as error:
            raise ValueError(f"cannot load {folder}") from error
        self._now = self._served(model.eval())

    def receive(self, info: Mapping[str, Any]) -> None:
        """Load weights that arrive one by one; the caches stay."""
        arrived: dict[str, Tensor] = {}
        for name, dtype, shape in zip(
            info["names"], info["dtype_names"], info["shapes"], strict=True
        ):
            values = self.inbox.get(timeout=60.0)
            if values is None:
                raise ValueError("the group is gone")
            assert (str(values.dtype), list(values.shape)) == (f"torch.{dtype}", shape)
            arrived[name] = values
        model = copy.deepcopy(self._now.model)
        model.load_state_dict(arrived)
        self._now = self._served(model)

    def load_adapters(self, name: str, folder: str) -> None:
        """Load adapters under a name.

        Raises:
            ValueError: There are some of that name.
        """
        if name in self._adapted:
            raise ValueError(f"The lora adapter '{name}' has already been loaded.")
        base = copy.deepcopy(self._now.model)
        merged: Any = PeftModel.from_pretrained(base, folder)
        self._adapted[name] = self._served(merged.merge_and_unload())

    def unload_adapters(self, name: str) -> None:
        """Forget adapters."""
        self._adapted.pop(name, None)

    def forget(self, cache: str) -> None:
        """Empty a cache: ``prefix``, or one of the two of images."""
        (self._prefixes if cache == "prefix" else self._features).clear()

    def generate(self, body: Body) -> Body:
        """Return the answer to a request.

        Raises:
            LookupError: It asks for adapters that are not loaded.
        """
        if body.get("model", "").startswith("step-") and body["model"] not in self._adapted:
            raise LookupError(f"The model `{body['model']}` does not exist.")
        urls = [part["url"] for part in body.get("content_parts", [])]
        images = [_image(url) for url in urls]
        ids = self.expand(body["token_ids"], images)
        params: Mapping[str, Any] = body["sampling_params"]
        if len(ids) >= self.context:
            raise TooLongError
        key = (tuple(ids), tuple(urls), body.get("cache_salt"))
        # Scores of the prompt need all of it to be computed.
        is_cached = key in self._prefixes and "prompt_logprobs" not in params
        model = self._prefixes.setdefault(key, self._now) if is_cached else self._model_with(urls)
        if body.get("model") in self._adapted:
            model, is_cached = self._adapted[body["model"]], False
        self._prefixes.setdefault(key, self._now)
        drawn, scored = self._draw(model, ids, images, params)
        content = [
            {"token_id": token, "logprob": score, "rank": 1, "top_logprobs": top}
            for token, score, top in zip(drawn.ids, drawn.scores, drawn.top, strict=True)
        ]
        choice = {
            "index": 0,
            "finish_reason": drawn.reason,
            "stop_reason": drawn.stop,
            "token_ids": drawn.ids,
            "weight_versions": [{"version": self.version, "start": 0, "end": len(drawn.ids)}],
            "logprobs": {"content": content},
        }
        details = {"cached_tokens": len(ids) - 1 if is_cached else 0}
        return {
            "prompt_token_ids": ids if body.get("return_token_ids") else None,
            "prompt_logprobs": scored if "prompt_logprobs" in params else None,
            "usage": {"prompt_tokens": len(ids), "prompt_tokens_details": details},
            "choices": [choice],
        }

    def expand(self, ids: Sequence[int], images: Sequence[Image.Image]) -> list[int]:
        """Replace one placeholder per image; any further ones stay, as in vLLM."""
        left = list(images)
        found: list[int] = []
        for token in ids:
            if left and token == self._now.chat.placeholder_id:
                found += self._now.chat.image_ids(left.pop(0))
            else:
                found.append(token)
        return found

    def _served(self, model: Any) -> TokenModel:
        return TokenModel(copy.deepcopy(model), self._tokenizer, self._processor)

    def _model_with(self, urls: Sequence[str]) -> TokenModel:
        """Return the model, with the vision tower of the time when the images were first seen."""
        towers = [self._features.setdefault(url, self._now) for url in urls]
        if all(one is self._now for one in towers):
            return self._now
        mixed = self._served(self._now.model)
        mixed.model.model.visual = towers[0].model.model.visual
        return mixed

    @torch.inference_mode()
    def _draw(
        self,
        model: TokenModel,
        ids: Sequence[int],
        images: Sequence[Image.Image],
        params: Mapping[str, Any],
    ) -> tuple[Drawn, list[Any]]:
        sampling = Sampling(params["temperature"], params["top_p"], params["top_k"])
        bias = torch.zeros(model.vocabulary)
        for token, value in params.get("logit_bias", {}).items():
            bias[int(token)] = value
        limit = params["max_tokens"]
        generator = torch.Generator().manual_seed(params.get("seed", 0))
        uniform = torch.rand(limit, generator=generator, dtype=torch.float64)
        batch = model.pad([PicturedIds(ids, images)])
        cache = DynamicCache()
        hidden = model.hidden(batch, cache=cache)
        logits = model.logits(hidden[:, -1])
        position = batch.positions[0, :, -1] + 1
        everything = torch.ones(model.vocabulary, dtype=torch.bool)
        drawn, scores, top = list[int](), list[float](), list[list[dict[str, Any]]]()
        while True:
            chosen = choose(logits + bias, uniform[len(drawn)][None], sampling, everything)
            shown = logits
            if self.logprobs_mode == "processed_logprobs":
                shown = (logits + bias) / (sampling.temperature or 1.0)
                if sampling.temperature and sampling.top_k:
                    least = shown.topk(sampling.top_k).values[:, -1:]
                    shown = shown.masked_fill(shown < least, -torch.inf)
            own = shown.log_softmax(-1)[0]
            drawn.append(int(chosen[0]))
            scores.append(float(own[drawn[-1]]))
            top.append(_likeliest(own, params["logprobs"]))
            text = model.chat.decode(drawn)
            stop = next((one for one in params.get("stop", ()) if one in text), None)
            if drawn[-1] in params["stop_token_ids"] or stop is not None:
                return Drawn(drawn, scores, top, "stop", stop), _scored(model, hidden, ids)
            if len(drawn) == limit:
                return Drawn(drawn, scores, top, "length"), _scored(model, hidden, ids)
            is_seen = torch.ones(1, len(ids) + len(drawn), dtype=torch.bool)
            logits = model.step(chosen, position, is_seen, cache=cache)
            position = position + 1


def _likeliest(own: Tensor, count: int) -> list[dict[str, Any]]:
    best = own.topk(count) if count else None
    if best is None:
        return []
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [{"token_id": token, "logprob": score} for token, score in pairs]


def _scored(model: TokenModel, hidden: Tensor, ids: Sequence[int]) -> list[Any]:
    """Return the scores of the prompt's tokens, none for the first."""
    own = model.logits(hidden[0]).log_softmax(-1)
    pairs = enumerate(ids[1:])
    return [None, *({str(token): {"logprob": float(own[n, token])}} for n, token in pairs)]


def _image(url: str) -> Image.Image:
    kind, _, data = url.partition(",")
    assert kind == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
