"""The fingerprint of a run covers exactly what determines its result."""

import json
import shutil
from dataclasses import fields, replace
from pathlib import Path

import pytest
from codedance.envs import register_reward_term
from codedance.envs.rewards.presets import PRESETS
from codedance.envs.rewards.registry import unregister_reward_term
from codedance.envs.types import AnswerKind, Difficulty, Task
from codedance.policies.inference.model_files import hub_commit
from codedance.policies.training.grpo.config import GRPOConfig
from codedance.policies.training.run_fingerprint import LAYOUT, run_fingerprint, task_digest
from codedance.policies.training.sft import SFTConfig
from codedance.policies.training.training_state import folder_digest

from ..tiny import noise

TASK = Task("toy/0", "toy", "toy", "train", "How many?", (noise(0),), "5")
NEW_TASK = {
    "id": "toy/1",
    "suite": "other",
    "family": "other",
    "question": "How many now?",
    "images": (noise(1),),
    "answer": "6",
    "answer_kind": AnswerKind.INTEGER,
    "tolerance": 0.05,
    "choices": ("5", "6"),
    "difficulty": Difficulty.HARD,
    "pass_rate": 0.25,
    "needs_picture": False,
}
FIXED = ("reward_terms", "top_p", "top_k", "teacher", "distillation_weight")
"""The first is in the scoring, two never change, and the last two have a test of their own."""
UNREAD = {"split": "test", "provenance": {"file": "/elsewhere/tasks.jsonl"}}
NEW_TEXT = {
    "lr_scheduler_type": "cosine",
    "loss_type": "grpo",
    "deterministic": False,
    "importance_sampling_level": "sequence",
    "vllm_importance_sampling_mode": "sequence_mask",
    "scale_rewards": "none",
    "curriculum": "learnability",
    "interface": "box",
    "lora_target_modules": ".*q_proj",
    "reward": "bat_paper",
}


def changed(config, name):
    """Return the configuration with another valid value of one setting."""
    value = getattr(config, name)
    if name in NEW_TEXT:
        other = NEW_TEXT[name]
    elif isinstance(value, bool):
        other = not value
    elif isinstance(value, int):
        other = value + 1
    elif isinstance(value, float):
        other = value / 2 if value else 0.25
    elif isinstance(value, tuple):
        other = ("</answer>",)
    else:
        assert value is None, f"{name}: add another value to this test"
        other = 0.5
    return replace(config, **{name: other})


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "qwen2_vl", "_name_or_path": "/old"}')
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def of(model, config, tasks=(TASK,)):
    scoring = config.scoring if isinstance(config, GRPOConfig) else None
    return run_fingerprint(model, config, map(task_digest, tasks), scoring=scoring)


@pytest.mark.parametrize("config", [GRPOConfig(), SFTConfig()], ids=["grpo", "sft"])
def test_every_setting_counts_except_how_the_work_is_distributed(model, config):
    first = of(model, config)
    same = set()
    for one in fields(config):
        if one.name not in FIXED and of(model, changed(config, one.name)) == first:
            same.add(one.name)
    assert same == LAYOUT


@pytest.mark.parametrize("name", [one.name for one in fields(Task)])
def test_every_field_of_a_task_that_training_reads_counts(name):
    other = replace(TASK, **{name: {**NEW_TASK, **UNREAD}[name]})
    assert (task_digest(other) == task_digest(TASK)) == (name in UNREAD)


def test_order_and_number_of_the_tasks_count(model):
    other = replace(TASK, id="toy/1")
    found = {
        of(model, GRPOConfig(), tasks)
        for tasks in ([TASK], [TASK, TASK], [TASK, other], [other, TASK], [])
    }
    assert len(found) == 5


def test_images_count_by_their_pixels_and_in_their_order():
    one, two = noise(0), noise(1)
    pairs = [(one, two), (two, one), (one, one), (one,)]
    assert len({task_digest(replace(TASK, images=pair)) for pair in pairs}) == 4
    again = (one.copy(), two.copy())
    assert task_digest(replace(TASK, images=again)) == task_digest(replace(TASK, images=pairs[0]))


@pytest.mark.parametrize(
    "switch",
    [
        {"counts_evidence": False},
        {"pays_unsolved": True},
        {"charges_easy_calls": False},
        {"turn_clip": None},
        {"turn_weight": 0.1},
        {"right_weight": 1.4},
        {"format_fault": -0.3},
        {"offset": 0.1},
    ],
    ids=str,
)
def test_a_reward_counts_by_its_numbers(model, switch):
    base = PRESETS["bat"]
    first = of(model, GRPOConfig(reward=base))
    assert of(model, GRPOConfig(reward=replace(base, **switch))) != first


def test_a_reward_is_the_same_by_name_by_value_and_with_another_name(model):
    base = PRESETS["bat"]
    rewards = ["bat", base, replace(base, name="mine")]
    assert len({of(model, GRPOConfig(reward=reward)) for reward in rewards}) == 1


def term_file(folder: Path, text: str) -> str:
    folder.mkdir()
    (folder / "terms.py").write_text(text)
    return f"{folder / 'terms.py'}:{text.split()[1].split('(')[0]}"


def test_a_custom_term_counts_by_weight_and_text_not_by_its_path(model, tmp_path):
    first = term_file(tmp_path / "a", "def fingerprint_a(one):\n    return 1.0\n")
    changed_text = term_file(tmp_path / "b", "def fingerprint_b(one):\n    return 2.0\n")
    found = [
        of(model, GRPOConfig(reward_terms=terms))
        for terms in ({}, {first: 1.0}, {first: 0.5}, {changed_text: 1.0})
    ]
    assert len(set(found)) == 4
    moved = tmp_path / "moved"
    shutil.move(tmp_path / "a", moved)
    unregister_reward_term("fingerprint_a")
    assert (
        of(model, GRPOConfig(reward_terms={f"{moved / 'terms.py'}:fingerprint_a": 1.0}))
        == (found[1])
    )
    for name in ("fingerprint_a", "fingerprint_b"):
        unregister_reward_term(name)


def test_a_term_added_to_every_preset_counts(model):
    first = of(model, GRPOConfig())
    register_reward_term("fingerprint_joined", weight=0.5)(lambda one: 1.0)
    try:
        half = of(model, GRPOConfig())
        register_reward_term("fingerprint_joined", weight=0.25)(lambda one: 1.0)
        assert len({first, half, of(model, GRPOConfig())}) == 3
    finally:
        unregister_reward_term("fingerprint_joined")
    assert of(model, GRPOConfig()) == first


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "model-00002-of-00003.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "pytorch_model-00001-of-00002.bin",
        "pytorch_model.bin.index.json",
        "model.pt",
        "consolidated.00.pth",
        "adapter_model.safetensors",
        "adapter_model.bin",
        "config.json",
        "generation_config.json",
        "adapter_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "vocab.txt",
        "merges.txt",
        "spiece.model",
        "chat_template.jinja",
        "chat_template.json",
        "preprocessor_config.json",
        "processor_config.json",
        "modeling_own.py",
        "weights/shard-1.safetensors",
    ],
)
def test_every_form_of_weights_and_every_part_of_a_model_counts(model, name):
    (model / "weights").mkdir()
    digests = [folder_digest(model)]
    for content in (b'{"a": 1}', b'{"a": 2}'):
        (model / name).write_bytes(content)
        digests.append(folder_digest(model))
    assert len(set(digests)) == 3


@pytest.mark.parametrize(
    "name",
    ["README.md", "LICENSE", ".gitattributes", "training_args.bin", "optimizer.pt", ".cache/x"],
)
def test_documentation_and_leftovers_of_a_trainer_do_not_count(model, name):
    first = folder_digest(model)
    (model / ".cache").mkdir()
    (model / name).write_bytes(b"x")
    assert folder_digest(model) == first


def test_weights_that_differ_only_in_the_middle_are_different(model):
    """A model with frozen first and last tensors differs only in the middle of the file."""
    size = 24 * 2**20
    found = set()
    for midst in (b"a", b"b"):
        weights = bytearray(size)
        weights[size // 2 : size // 2 + 1] = midst
        (model / "model.safetensors").write_bytes(weights)
        found.add(folder_digest(model))
    assert len(found) == 2


def test_two_files_differ_from_their_concatenation(tmp_path):
    found = []
    for number, files in enumerate([{"a.bin": b"xy"}, {"a.bin": b"x", "b.bin": b"y"}]):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        found.append(folder_digest(folder))
    assert found[0] != found[1]


def test_a_moved_folder_is_the_same_model(model, tmp_path):
    first = folder_digest(model)
    moved = shutil.copytree(model, tmp_path / "elsewhere")
    assert folder_digest(moved) == first
    (moved / "config.json").write_text('{"_name_or_path": "/new", "model_type": "qwen2_vl"}')
    assert folder_digest(moved) == first
    (moved / "config.json").write_text('{"_name_or_path": "/new", "model_type": "qwen3_vl"}')
    assert folder_digest(moved) != first


def test_only_prompt_and_image_size_of_the_notes_count(model):
    found = []
    for notes in (
        {},
        {"interface": "code", "families": {"count": ["How many"]}},
        {"system_prompt": "Look."},
        {"max_pixels": 1000},
    ):
        (model / "codedance.json").write_text(json.dumps(notes))
        found.append(folder_digest(model))
    assert found[0] == found[1]
    assert len(set(found)) == 3


def test_adapters_count_together_with_their_base_model(model, tmp_path):
    adapters = tmp_path / "adapters"
    adapters.mkdir()
    (adapters / "adapter_model.safetensors").write_bytes(b"low rank")

    def digest(base: Path) -> bytes:
        settings = {"r": 8, "base_model_name_or_path": str(base)}
        (adapters / "adapter_config.json").write_text(json.dumps(settings))
        return folder_digest(adapters)

    first = digest(model)
    moved = shutil.copytree(model, tmp_path / "moved")
    assert digest(moved) == first
    (moved / "model.safetensors").write_bytes(b"other weights")
    assert digest(moved) != first


def test_a_teacher_counts_by_its_weight_and_its_files_not_by_its_path(model, tmp_path):
    def digest(teacher: Path | None, weight: float = 0.0) -> str:
        name = None if teacher is None else str(teacher)
        config = GRPOConfig(teacher=name, distillation_weight=weight)
        return run_fingerprint(model, config, [], scoring=config.scoring, teacher=teacher)

    teacher = shutil.copytree(model, tmp_path / "teacher")
    found = [digest(None), digest(teacher, 1.0), digest(teacher, 0.5)]
    moved = shutil.move(teacher, tmp_path / "moved")
    assert digest(moved, 1.0) == found[1]
    (moved / "model.safetensors").write_bytes(b"other weights")
    assert len({*found, digest(moved, 1.0)}) == 4


def test_two_hub_ids_are_two_models():
    names = ["Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen2.5-VL-7B-Instruct", "/no/such/folder"]
    assert len({folder_digest(name) for name in names}) == 3
    assert folder_digest(names[0]) == folder_digest(names[0])


def test_a_hub_id_counts_with_its_cached_commit(monkeypatch, tmp_path):
    name = "codedance-tests/no-such-model"
    digests = {folder_digest(name)}
    repository = tmp_path / "models--codedance-tests--no-such-model"
    (repository / "refs").mkdir(parents=True)
    for commit in ("a" * 40, "b" * 40):
        (repository / "refs" / "main").write_text(commit)
        (repository / "snapshots" / commit).mkdir(parents=True)
        (repository / "snapshots" / commit / "config.json").write_text("{}")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        assert hub_commit(name) == commit
        digests.add(folder_digest(name))
    assert len(digests) == 3
