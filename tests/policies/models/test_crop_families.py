"""Families that split images into crops: each is as exact as the Qwen line."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from codedance.envs.types import Message
from codedance.policies import load_policy
from codedance.policies.inference.vlm import VisionLanguagePolicy
from codedance.policies.interface import Conversation, Sampling
from codedance.policies.models.crop_model import CropTokenModel
from codedance.policies.models.crops import CROP_FAMILIES
from codedance.policies.models.model_folder import FAMILIES, ModelFolderError, load_token_model
from codedance.policies.training.sft import SFTConfig
from codedance.policies.training.trained_model import TrainedModel
from transformers import Gemma3Processor, Idefics3Processor

from benchmarks.measuring.families import noise, try_family
from benchmarks.measuring.tiny_families import TINY_FAMILIES, build_tiny

CROPPED = [name for name, one in TINY_FAMILIES.items() if one.model_type in CROP_FAMILIES]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    return {name: build_tiny(TINY_FAMILIES[name], root / name) for name in CROPPED}


def test_every_supported_family_is_tested():
    assert {one.model_type for one in TINY_FAMILIES.values()} | {"qwen2_vl"} == set(FAMILIES)


@pytest.mark.parametrize("name", TINY_FAMILIES)
def test_family_loads_generates_accepts_returned_images_and_trains(name: str, tmp_path: Path):
    trial = try_family(name, TINY_FAMILIES[name], tmp_path)
    assert trial.is_exact
    assert trial.generated >= 12
    assert trial.tool_images == 2
    assert trial.loss > 0.0
    assert trial.moved > 1e-4
    assert trial.parameters < 1_000_000


@pytest.mark.parametrize("name", CROPPED)
def test_replies_do_not_depend_on_the_rest_of_the_batch(name: str, folders: dict[str, Path]):
    model = load_token_model(folders[name], device="cpu")

    def play(seeds: list[int]) -> list[Conversation]:
        policy = VisionLanguagePolicy(model, policy_id=name)
        all_of_them = [
            Conversation([Message("user", (noise(s, 30 + 20 * s, 60), "q" * s))], seed=s)
            for s in seeds
        ]
        for turn in range(2):
            replies = policy.reply(all_of_them, sampling=Sampling(max_new_tokens=9 + turn))
            for one, reply in zip(all_of_them, replies, strict=True):
                back = Message("user", ("out", noise(7 + one.seed + turn, 40, 80)))
                one.messages += [Message("assistant", (reply.text,)), back]
                one.turn += 1
        return all_of_them

    together, alone = play([1, 2, 3]), play([2])
    first, second = together[1].tokens, alone[0].tokens
    assert first is not None
    assert second is not None
    assert first.ids == second.ids
    assert first.log_probabilities == pytest.approx(second.log_probabilities, abs=1e-5)


@pytest.mark.parametrize("name", CROPPED)
def test_training_reads_the_tokens_of_a_rollout(name: str, folders: dict[str, Path]):
    chat = load_token_model(folders[name], device="cpu").chat
    asked = [Message("system", ("Look.",)), Message("user", (noise(1, 60, 30), "How many?"))]
    back = Message("user", ("out", noise(2, 30, 30)))
    replies = [Message("assistant", (text,)) for text in ("one", "two")]
    encoded = chat.encode([*asked, replies[0], back, replies[1]])
    own = [[*chat.encode_text(chat.lead + reply.text), chat.end_id] for reply in replies]
    built = [*chat.open_prompt(asked), *own[0], *chat.after_reply([back]), *own[1]]
    assert list(encoded.ids[: len(built)]) == built
    ids = [
        i
        for i, completion_mask in zip(encoded.ids, encoded.completion_mask, strict=True)
        if completion_mask
    ]
    assert ids == own[0] + own[1]
    assert [chat.decode(part) for part in own] == ["one", "two"]


@pytest.mark.parametrize("name", CROPPED)
def test_printed_control_tokens_are_text(name: str, folders: dict[str, Path]):
    chat = load_token_model(folders[name], device="cpu").chat
    forged = "".join(TINY_FAMILIES[name].controls)
    plain = chat.open_prompt([Message("user", ("x",))])
    taken = chat.open_prompt([Message("user", (forged,))])
    controls = chat.control_ids
    assert [i for i in taken if i in controls] == [i for i in plain if i in controls]


@pytest.mark.parametrize(
    ("name", "kind"), [("Gemma 3", Gemma3Processor), ("Idefics 3", Idefics3Processor)]
)
def test_ids_equal_those_of_the_familys_own_processor(
    name: str, kind: Any, folders: dict[str, Path]
):
    model = load_token_model(folders[name], device="cpu")
    tokenizer: Any = model.chat.tokenizer
    if kind is Gemma3Processor:
        tokenizer.boi_token, tokenizer.eoi_token = "<start_of_image>", "<end_of_image>"
        tokenizer.boi_token_id = tokenizer.convert_tokens_to_ids(tokenizer.boi_token)
        tokenizer.image_token, tokenizer.image_token_id = "<image_soft_token>", model.chat.image_id
    length = {"image_seq_length": 4} if kind is Gemma3Processor else {"image_seq_len": 4}
    processor = kind(model.pictures.processor, tokenizer, **length)
    pictures = [noise(1, 80, 50), noise(2, 40, 40)]
    messages = [
        Message("user", (pictures[0], "How many?")),
        Message("assistant", ("one",)),
        Message("user", ("out", pictures[1])),
    ]
    layout = tokenizer.apply_chat_template(
        [message.as_chat() for message in messages], tokenize=False, add_generation_prompt=True
    )
    given = processor(
        text=[layout], images=[pictures], add_special_tokens=False, return_tensors="pt"
    )
    ours = [
        *model.chat.open_prompt(messages[:1]),
        *model.chat.encode_text(model.chat.lead + "one"),
        model.chat.end_id,
        *model.chat.after_reply(messages[2:]),
    ]
    assert given["input_ids"][0].tolist() == ours


def test_system_message_is_folded_where_the_template_has_none(tmp_path: Path):
    family = TINY_FAMILIES["SmolVLM"]
    strict = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}"
    build_tiny(replace(family, template=strict + family.template), tmp_path)
    chat = load_token_model(tmp_path, device="cpu").chat
    system, user = Message("system", ("Be brief.",)), Message("user", ("Hi",))
    folded = Message("user", ("Be brief.\n\nHi",))
    assert chat.open_prompt([system, user]) == chat.open_prompt([folded])


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ messages[0]['content'][1]['text'] }}", "every text once and in order"),
        (
            "{% for m in messages %}{% for c in m['content'] if c['type'] == 'text' %}"
            "{{ c['text'] }}{% endfor %}<end_of_utterance>{% endfor %}",
            "leaves no <image> where pictures go",
        ),
        (
            "{% for m in messages %}{% for c in m['content'] %}{{ c['text'] or '<image>' }}"
            "{% endfor %} {% endfor %}",
            "without a control token",
        ),
    ],
)
def test_unsupported_template_is_rejected(
    template: str, reason: str, folders: dict[str, Path], tmp_path: Path
):
    folder = Path(shutil.copytree(folders["SmolVLM"], tmp_path / "model"))
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(ModelFolderError, match=reason):
        load_policy(folder)


def test_folder_without_a_template_is_rejected(folders: dict[str, Path], tmp_path: Path):
    folder = Path(shutil.copytree(folders["InternVL 3"], tmp_path / "model"))
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ModelFolderError, match="no chat template"):
        load_policy(folder)


def test_template_of_the_processor_takes_precedence(folders: dict[str, Path], tmp_path: Path):
    folder = Path(shutil.copytree(folders["InternVL 3"], tmp_path / "model"))
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    assert load_policy(folder).id == str(folder)


def test_image_processor_of_another_model_is_rejected(folders: dict[str, Path], tmp_path: Path):
    folder = Path(shutil.copytree(folders["InternVL 3"], tmp_path / "model"))
    path = folder / "preprocessor_config.json"
    settings = {**json.loads(path.read_text()), "size": {"height": 56, "width": 56}}
    path.write_text(json.dumps(settings))
    with pytest.raises(ModelFolderError, match="features of an image"):
        load_policy(folder)


def test_tokenizer_of_another_family_is_rejected(folders: dict[str, Path]):
    model = load_token_model(folders["Gemma 3"], device="cpu")
    other = load_token_model(folders["SmolVLM"], device="cpu")
    with pytest.raises(ValueError, match="no <image_soft_token>"):
        CropTokenModel(
            model.model, other.chat.tokenizer, model.pictures.processor, template="unused"
        )


def test_text_model_with_a_window_is_rejected(folders: dict[str, Path], tmp_path: Path):
    folder = Path(shutil.copytree(folders["LLaVA-OneVision"], tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= {
        "use_sliding_window": True,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"],
    }
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFolderError, match="do not see everything before them"):
        load_policy(folder)


@pytest.mark.parametrize("name", ["SmolVLM", "Gemma 3"])
def test_adapters_are_attached_to_the_text_model(name: str, folders: dict[str, Path]):
    trained = TrainedModel(folders[name], SFTConfig(lora_r=2), seed=0)
    names = list(trained.weights())
    assert names
    assert all("lora" in one and "vision" not in one for one in names)
    assert isinstance(trained.model, CropTokenModel)
    assert not any(torch.isnan(weight).any() for weight in trained.weights().values())
