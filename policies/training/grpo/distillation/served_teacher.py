"""A teacher on vLLM servers: exact ids and images go out, log-probabilities of the ids come back.

vLLM scores a prompt at temperature 1 and without a bias. So the student has to sample at
temperature 1. Ids that are never sampled keep their probability: log π_T is lower by the log of the
share of the ids that can be sampled, which is the same for every token of a context. Such a
constant changes no expected gradient, only `distillation/kl`, which is larger by its mean.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from ....inference.server_words import without_credentials
from ....inference.vllm.policy import VllmPolicy
from ....inference.vllm.replies import VllmReplies
from ....inference.vllm.settings import VllmSettings
from ....inference.vllm.wire import AnswerError
from ....interface import PolicyUnavailableError, Sampling
from ....models.prompt_encoder import PromptEncoder
from ....models.token_model import PicturedIds
from .settings import check_teacher_servers
from .shared_tokens import TeacherMismatchError, check_images, probe
from .teacher import OwnIds, Scored


@dataclass(frozen=True, slots=True)
class TeacherServers:
    """vLLM servers that have a teacher's weights.

    Attributes:
        urls: Base URLs.
        settings: Timeouts and retries of requests.
        at_once: Largest number of trajectories that are scored at the same time, per process.
    """

    urls: tuple[str, ...]
    settings: VllmSettings = field(default_factory=VllmSettings)
    at_once: int = 64


class ServedTeacher:
    """Requests the scores of trajectories from vLLM servers.

    Args:
        encoder: Chat encoding and image preprocessing of the teacher.
        servers: Servers.
        name: Name of the teacher, for messages.
        temperature: Temperature at which the student samples.

    Raises:
        ValueError: The temperature is not 1, or a URL is not one.
    """

    def __init__(
        self, encoder: PromptEncoder, servers: TeacherServers, *, name: str, temperature: float
    ) -> None:
        check_teacher_servers(servers.urls, name, temperature)
        self._servers = servers
        self._name = name
        self._encoder = encoder
        self._policy = VllmPolicy(
            encoder, servers.urls, policy_id=f"{name}@vllm", settings=servers.settings
        )

    def check(self) -> None:
        """Let each server score a short conversation with an image.

        Raises:
            TeacherMismatchError: A server computed other ids.
            PolicyUnavailableError: No server answered as it should.
        """
        ids, images = probe(self._encoder)
        own = OwnIds(PicturedIds(ids, images), [place > 0 for place in range(len(ids))])
        failures: list[str] = []
        for url in self._policy.urls:
            single = VllmPolicy(
                self._encoder, [url], policy_id=self._name, settings=self._servers.settings
            )
            (found,) = _score_all(single, [own], at_once=1)
            if isinstance(found, AnswerError) and found.is_final:
                raise TeacherMismatchError(
                    f"the server of the teacher {self._name} cannot score its tokens: {found}"
                )
            if isinstance(found, PolicyUnavailableError):
                failures.append(str(found))
            else:
                self._policy.servers.has_answered = True  # from now on it is waited for
        if len(failures) == len(self._policy.urls):
            raise PolicyUnavailableError(
                f"no server of the teacher {self._name} can be used: {failures[0]}"
            )

    def score(self, trajectories: Sequence[OwnIds]) -> list[Scored]:
        """Score trajectories; see `Teacher`."""
        for one in trajectories:
            check_images(self._encoder, one.source.ids, one.source.images, name=self._name)
        found = _score_all(self._policy, trajectories, at_once=self._servers.at_once)
        return [
            Scored(None, str(one))
            if isinstance(one, PolicyUnavailableError)
            else Scored(torch.tensor(one, dtype=torch.float32))
            for one in found
        ]

    def __str__(self) -> str:
        """Return the name of the teacher and its servers."""
        return f"{self._name} at {', '.join(map(without_credentials, self._policy.urls))}"


def _score_all(
    policy: VllmPolicy, trajectories: Sequence[OwnIds], *, at_once: int
) -> list[tuple[float, ...] | PolicyUnavailableError]:
    """Score trajectories at the same time, in an event loop of their own."""
    from anyio.from_thread import start_blocking_portal

    async def score_all() -> list[tuple[float, ...] | PolicyUnavailableError]:
        room = asyncio.Semaphore(at_once)
        async with policy.connect(sampling=Sampling()) as source:
            return list(await asyncio.gather(*(_score(source, one, room) for one in trajectories)))

    if not trajectories:
        return []
    with start_blocking_portal() as portal:
        task = portal.start_task_soon(score_all)
        try:
            return task.result()
        except BaseException:  # Ctrl-C does not wait for a server that hangs
            task.cancel()
            raise


async def _score(
    source: VllmReplies, one: OwnIds, room: asyncio.Semaphore
) -> tuple[float, ...] | PolicyUnavailableError:
    places = list(itertools.compress(range(len(one.completion_mask)), one.completion_mask))
    async with room:
        try:
            return await source.score(one.source.ids, one.source.images, places)
        except PolicyUnavailableError as error:
            return error
