"""A teacher that would read other ids is refused before anything is trained, with the reason."""

import json
import shutil
from pathlib import Path

import pytest
from codedance.policies.loading import NANO_FOLDER
from codedance.policies.models.model_folder import load_prompt_encoder
from codedance.policies.models.prompt_encoder import PromptEncoder
from codedance.policies.training.grpo.distillation.shared_tokens import (
    TeacherMismatchError,
    check_images,
    check_shared_tokens,
    probe,
)

from ...tiny import noise


@pytest.fixture
def student(tiny_folder: Path) -> PromptEncoder:
    return load_prompt_encoder(tiny_folder)


def changed(tiny_folder: Path, folder: Path, file: str, *changes: tuple[str, str]) -> PromptEncoder:
    """Return the encoder of a copy of the tiny model with another text in one of its files."""
    shutil.copytree(tiny_folder, folder)
    text = (folder / file).read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / file).write_text(text, encoding="utf-8")
    return load_prompt_encoder(folder)


def refused(student: PromptEncoder, teacher: PromptEncoder) -> str:
    with pytest.raises(TeacherMismatchError, match="the teacher big does not share") as caught:
        check_shared_tokens(student, teacher, name="big")
    return str(caught.value)


def test_a_model_with_the_same_tokens_is_accepted(tiny_folder, student):
    check_shared_tokens(student, load_prompt_encoder(tiny_folder), name="big")


def test_another_number_of_logits_is_accepted(tiny_folder, tmp_path, student):
    config = json.loads((tiny_folder / "config.json").read_text())
    size = config["text_config"]["vocab_size"]
    teacher = changed(
        tiny_folder,
        tmp_path / "big",
        "config.json",
        (f'"vocab_size": {size}', f'"vocab_size": {size + 64}'),
    )
    assert teacher.vocabulary == student.vocabulary + 64
    check_shared_tokens(student, teacher, name="big")


def test_another_vocabulary_is_refused(student):
    words = refused(student, load_prompt_encoder(NANO_FOLDER))
    assert "its vocabulary has 1024 tokens for 264, and" in words


def test_a_token_that_is_no_control_token_is_refused(tiny_folder, tmp_path, student, monkeypatch):
    teacher = load_prompt_encoder(tiny_folder)
    monkeypatch.setattr(teacher.chat, "control_ids", teacher.chat.control_ids - {256})
    assert "its control ids: " in refused(student, teacher)


def test_other_image_sizes_are_refused(tiny_folder, tmp_path, student):
    teacher = changed(
        tiny_folder,
        tmp_path / "big",
        "preprocessor_config.json",
        (f'"longest_edge": {112 * 112}', f'"longest_edge": {224 * 224}'),
    )
    words = refused(student, teacher)
    assert "an image of 1000 × 600 pixels has 60 ids for 15" in words
    image = noise(0, 300, 300)
    ids = student.chat.image_ids(image)
    with pytest.raises(TeacherMismatchError, match="other numbers of tokens"):
        check_images(teacher, ids, [image], name="big")
    check_images(student, ids, [image], name="small")


def test_another_chat_layout_is_refused(tiny_folder, student, monkeypatch):
    teacher = load_prompt_encoder(tiny_folder)
    monkeypatch.setattr(teacher.chat, "_line_end", [])
    words = refused(student, teacher)
    assert "a conversation has " in words
    assert "different from id " in words


def test_the_probe_holds_one_image_and_an_answer(student):
    ids, images = probe(student)
    assert len(images) == 1
    student.collapse(ids, images)
    assert ids.count(student.chat.end_id) == 2
