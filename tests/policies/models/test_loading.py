import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from codedance.envs.types import Message
from codedance.policies import load_policy
from codedance.policies.inference.vlm import VisionLanguagePolicy
from codedance.policies.interface import Conversation, Sampling
from codedance.policies.models.model_folder import (
    ModelFolderError,
    load_image_processor,
    load_token_model,
    read_notes,
    save_token_model,
)

from ..tiny import noise


@pytest.fixture
def broken(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.json", "no config.json"),
        ("model.safetensors", "no weights"),
        ("tokenizer.json", "no tokenizer.json"),
        ("preprocessor_config.json", "no preprocessor_config.json"),
    ],
)
def test_folder_without_a_part_is_rejected_with_the_name_of_the_part(
    broken: Path, missing: str, message: str
):
    (broken / missing).unlink()
    with pytest.raises(ModelFolderError, match=message):
        load_policy(broken)


def test_unsupported_family_is_rejected_with_the_reason(broken: Path):
    config = broken / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "model_type": "llava"}))
    with pytest.raises(ModelFolderError, match=r"'llava' is not supported: .*qwen2_5_vl"):
        load_policy(broken)


def test_configuration_that_is_not_json_is_rejected(broken: Path):
    (broken / "config.json").write_text("{")
    with pytest.raises(ModelFolderError, match="not JSON"):
        load_policy(broken)


def test_truncated_weights_are_rejected(broken: Path):
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelFolderError, match="weights"):
        load_policy(broken)


def test_missing_folder_is_rejected(tmp_path: Path):
    with pytest.raises(ModelFolderError, match="no model folder at"):
        load_policy(tmp_path / "nowhere" / "model")


def test_unknown_name_is_rejected_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'oracle'"):
        load_policy("oracel")


@pytest.mark.slow
def test_unavailable_hub_id_is_one_clear_error():
    program = (
        "from codedance.policies import load_policy\n"
        "try:\n    load_policy('codedance-tests/no-such-model')\n"
        "except ValueError as error:\n    print(type(error).__name__, error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"HF_HUB_OFFLINE": "1", "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("ModelFolderError cannot load 'codedance-tests/no-such-model'")
    assert "check the name and the network" in done.stdout


def test_folder_loads_and_acts_according_to_its_notes(broken: Path):
    notes = {"system_prompt": "", "max_pixels": 784, "families": {"dots": ["How many dots"]}}
    (broken / "codedance.json").write_text(json.dumps(notes))
    policy = load_policy(broken, device="cpu")
    assert isinstance(policy, VisionLanguagePolicy)
    assert (policy.system_prompt, policy.max_pixels) == ("", 784)
    assert policy.notes.families == {"dots": ("How many dots",)}
    assert policy.id == str(broken)
    asked = Conversation([Message("user", (noise(0), "q"))], seed=0)
    assert policy.reply([asked], sampling=Sampling(max_new_tokens=3))[0].new_tokens <= 3


def test_folder_without_notes_has_the_defaults(tiny_folder: Path):
    notes = read_notes(tiny_folder)
    assert (notes.system_prompt, notes.max_pixels, dict(notes.families)) == (None, None, {})


def test_notes_that_are_not_an_object_are_rejected(broken: Path):
    (broken / "codedance.json").write_text("[1]")
    with pytest.raises(ModelFolderError, match="not a JSON object"):
        load_policy(broken)


def test_saved_model_is_unchanged_and_has_its_notes(broken: Path, tmp_path: Path):
    (broken / "codedance.json").write_text('{"system_prompt": ""}')
    model = load_token_model(broken, device="cpu")
    save_token_model(model, tmp_path / "copy", like=broken)
    again = load_token_model(tmp_path / "copy", device="cpu")
    assert read_notes(tmp_path / "copy").system_prompt == ""
    first, second = model.model.state_dict(), again.model.state_dict()
    assert all(first[name].equal(second[name]) for name in first)
    ids = [model.chat.encode_text("é <|im_end|>"), again.chat.encode_text("é <|im_end|>")]
    assert ids[0] == ids[1]


def test_image_processor_needs_no_torchvision(tiny_folder: Path):
    processor = load_image_processor(tiny_folder)
    assert type(processor).__name__ == "Qwen2VLImageProcessorPil"


def test_room_loads_without_torch():
    program = "import sys, codedance.policies; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
