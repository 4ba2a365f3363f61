"""The text and image side of a model folder needs no weights and is that of the loaded model."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from codedance.envs.types import Message
from codedance.policies.models.model_folder import (
    ADAPTER_FILE,
    ModelFolderError,
    load_prompt_encoder,
    load_token_model,
)
from codedance.policies.models.prompt_encoder import PromptEncoder

from benchmarks.measuring.tiny_families import TINY_FAMILIES, build_tiny

from ..tiny import noise

QWEN = [name for name, one in TINY_FAMILIES.items() if one.model_type.startswith("qwen")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("encoders")
    return {name: build_tiny(one, root / name) for name, one in TINY_FAMILIES.items()}


def talk() -> list[Message]:
    return [
        Message("user", (noise(1, 60, 84), noise(2, 120, 40), "Which is\n\nlarger?")),
        Message("assistant", ("<think>both</think>",)),
        Message("user", ("<image> <|image_pad|> shown:\n", noise(3, 70, 70))),
    ]


def expanded(encoder: PromptEncoder, short: list[int], messages: list[Message]) -> list[int]:
    images = [image for message in messages for image in message.images]
    found: list[int] = []
    for token in short:
        if token == encoder.chat.placeholder_id:
            found += encoder.chat.image_ids(images.pop(0))
        else:
            found.append(token)
    assert not images
    return found


@pytest.mark.parametrize("name", TINY_FAMILIES)
def test_encoder_is_that_of_the_model_and_reads_no_weights(
    name: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    model = load_token_model(folders[name], device="cpu")
    shutil.copytree(folders[name], tmp_path / "light")
    (tmp_path / "light" / "model.safetensors").unlink()
    encoder = load_prompt_encoder(tmp_path / "light")
    assert encoder.chat.encode(talk()).ids == model.chat.encode(talk()).ids
    assert encoder.chat.open_prompt(talk()) == model.chat.open_prompt(talk())
    assert encoder.vocabulary == model.vocabulary
    assert set(encoder.forbidden_ids) == {
        token for token, allowed in enumerate(model.allowed().tolist()) if not allowed
    }


@pytest.mark.parametrize("name", TINY_FAMILIES)
def test_one_placeholder_per_image_and_back(name: str, folders: dict[str, Path]) -> None:
    encoder = load_prompt_encoder(folders[name])
    ids = encoder.chat.open_prompt(talk())
    images = [image for message in talk() for image in message.images]
    short = encoder.collapse(ids, images)
    assert short.count(encoder.chat.placeholder_id) == 3
    assert len(short) < len(ids)
    assert expanded(encoder, short, talk()) == ids
    for wrong in (images[:2], [*images, images[0]], [images[0], images[2], images[1]]):
        sizes = [len(encoder.chat.image_ids(image)) for image in wrong]
        if sizes != [len(encoder.chat.image_ids(image)) for image in images]:
            with pytest.raises(ValueError, match=r"do not hold|hold more"):
                encoder.collapse(ids, wrong)


@pytest.mark.parametrize("name", QWEN)
@pytest.mark.parametrize("size", [(60, 84), (28, 300), (500, 333), (7, 9)])
def test_image_at_the_models_size_has_the_models_values(
    name: str, size: tuple[int, int], folders: dict[str, Path]
) -> None:
    pictures = load_prompt_encoder(folders[name]).pictures
    image = noise(4, *size)
    sent = pictures.at_model_size(image)
    same = pictures.processor(images=[sent], do_resize=False, return_tensors="np")
    own = pictures.processor(images=[image], return_tensors="np")
    assert same["image_grid_thw"].tolist() == own["image_grid_thw"].tolist()
    np.testing.assert_array_equal(same["pixel_values"], own["pixel_values"])


def test_adapters_have_the_encoder_of_their_base(folders: dict[str, Path], tmp_path: Path) -> None:
    base = folders[QWEN[0]]
    (tmp_path / ADAPTER_FILE).write_text(json.dumps({"base_model_name_or_path": str(base)}))
    encoder, own = load_prompt_encoder(tmp_path), load_prompt_encoder(base)
    assert encoder.chat.open_prompt(talk()) == own.chat.open_prompt(talk())


def test_folder_without_a_tokenizer_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders[QWEN[0]], tmp_path / "part")
    for file in (tmp_path / "part").glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelFolderError, match="part"):
        load_prompt_encoder(tmp_path / "part")
    with pytest.raises(ModelFolderError, match="no such folder"):
        load_prompt_encoder(tmp_path / "absent")
