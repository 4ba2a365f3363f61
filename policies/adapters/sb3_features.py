"""Features extractor of ``codedance/VisualCodeMenu-v0`` for Stable-Baselines3 policies.

Importing this module requires the extra ``sb3``; no other module of the package imports it.
"""

from __future__ import annotations

from typing import cast

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

_PICTURES = ("image", "tool_image")
_BAGS = ("question", "output", "figures")


class MenuFeatures(BaseFeaturesExtractor):
    """A small shared CNN for both images; words and figures as they are; then one layer.

    The question also gates the features multiplicatively, since the best operation on an image
    depends on the question.

    Args:
        observation_space: Observation space of the menu environment, images channels-first as SB3
            transposes them.
        width: Width of the features.
        sees: Whether images are part of the features; without them it is several times as fast.
    """

    def __init__(
        self, observation_space: spaces.Dict, width: int = 128, *, sees: bool = True
    ) -> None:
        super().__init__(observation_space, width)
        self._sees = sees
        picture = cast(tuple[int, ...], observation_space["image"].shape)
        question, output, figures = (
            cast(tuple[int, ...], observation_space[name].shape)[0] for name in _BAGS
        )
        self._look = nn.Sequential(
            nn.Conv2d(picture[0], 16, 8, stride=4),
            nn.ReLU(),
            nn.Conv2d(16, 32, 4, stride=2),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(3),
            nn.Flatten(),
            nn.Linear(32 * 9, 32),
            nn.ReLU(),
        )
        self._asked = nn.Sequential(nn.Linear(question, width), nn.ReLU())
        seen = output + figures + (2 * 32 if sees else 0)
        self._seen = nn.Sequential(nn.Linear(seen, width), nn.ReLU())
        self._both = nn.Sequential(nn.Linear(3 * width, width), nn.ReLU())

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Return the features of a batch, ``(batch, width)``."""
        parts = [observations["output"], observations["figures"]]
        if self._sees:
            parts += [self._look(observations[name]) for name in _PICTURES]
        asked, seen = self._asked(observations["question"]), self._seen(torch.cat(parts, dim=1))
        return self._both(torch.cat([asked, seen, asked * seen], dim=1))
