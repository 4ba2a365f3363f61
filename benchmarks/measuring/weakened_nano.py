"""The shipped model with noise on its layers: a start from which there is something to learn."""

from __future__ import annotations

from pathlib import Path

import torch
from codedance.policies.loading import NANO_FOLDER
from codedance.policies.models.model_folder import load_token_model, save_token_model

_NOISE = 0.15


def weakened_nano(folder: Path, *, noise: float = _NOISE) -> Path:
    """Write the shipped model with noise on its layers; the noise is always the same.

    Args:
        folder: Folder to write.
        noise: Standard deviation of the noise, relative to the mean size of a parameter's values.
    """
    model = load_token_model(NANO_FOLDER, device="cpu")
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, values in model.model.named_parameters():
            if "language_model.layers" in name:
                scale = noise * values.abs().mean().clamp(min=1e-3)
                values += scale * torch.randn(values.shape, generator=draw)
    save_token_model(model, folder, like=NANO_FOLDER)
    return folder
