"""Policies over the fake, and conversations for them."""

from typing import Any

from codedance.envs.types import Message
from codedance.policies.inference.vllm.policy import VllmPolicy
from codedance.policies.inference.vllm.settings import VllmSettings
from codedance.policies.interface import Conversation, Sampling
from codedance.policies.models.model_folder import ModelNotes
from PIL import Image

from ...tiny import noise
from .fake_vllm import FakeVllm

TURN = Sampling(max_new_tokens=12, max_tokens=400)


def policy_of(*fakes: FakeVllm, **settings: Any) -> VllmPolicy:
    return VllmPolicy(
        fakes[0].model.encoder,
        [fake.url for fake in fakes],
        policy_id="tiny",
        notes=ModelNotes(system_prompt=""),
        settings=VllmSettings(**settings),
    )


def asks(seed: int = 0, *, size: tuple[int, int] = (56, 56)) -> Conversation:
    return Conversation([Message("user", (noise(seed, *size), "How many?"))], seed=seed)


def goes_on(conversation: Conversation, text: str, image: Image.Image) -> None:
    """Add a reply and what a tool showed."""
    conversation.messages += [
        Message("assistant", (text,)),
        Message("user", ("shown: ", image, "<|image_pad|> again")),
    ]
    conversation.turn += 1
