"""The command line of vLLM: what each kind of model and machine needs, and no open control."""

from __future__ import annotations

import importlib.util
import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from codedance.pipelines.serving.engine.command import (
    EngineOptions,
    engine_command,
    engine_environment,
    shell_command,
)
from codedance.pipelines.serving.engine.environment import VARIABLE, EngineError
from codedance.policies.inference.vllm.control import LOADER
from codedance.policies.loading import NANO_FOLDER
from codedance.policies.models.crops import CROP_FAMILIES
from codedance.policies.models.model_folder import QWEN_FAMILIES

NANO = str(NANO_FOLDER)
PYTHON = "/opt/vllm/bin/python"


def value_of(command, flag):
    """Return the value after a flag, which occurs once."""
    assert command.count(flag) == 1, command
    return command[command.index(flag) + 1]


def write_config(folder, **config):
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def test_nano_on_the_cpu():
    command = engine_command(PYTHON, NANO, EngineOptions(port=8123))
    assert command[:4] == [PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model"]
    assert value_of(command, "--model") == NANO
    assert value_of(command, "--host") == "127.0.0.1"
    assert value_of(command, "--port") == "8123"
    assert value_of(command, "--generation-config") == "vllm"
    assert value_of(command, "--worker-extension-cls") == LOADER
    assert json.loads(value_of(command, "--mm-processor-kwargs")) == {"do_resize": False}
    assert value_of(command, "--block-size") == "32"
    assert {"--enable-scale-out", "--enable-prompt-tokens-details", "--enforce-eager"} <= {*command}
    assert "--tensor-parallel-size" not in command
    assert "--gpu-memory-utilization" not in command
    found = engine_environment(EngineOptions(cache_gigabytes=3))
    assert found["VLLM_CPU_KVCACHE_SPACE"] == "3"
    assert "CUDA_VISIBLE_DEVICES" not in found


def test_a_pair_of_gpus_shares_the_model():
    options = EngineOptions(gpus=(2, 5), memory_share=0.85)
    command = engine_command(PYTHON, NANO, options)
    assert value_of(command, "--tensor-parallel-size") == "2"
    assert value_of(command, "--gpu-memory-utilization") == "0.85"
    assert not {"--enforce-eager", "--block-size", "--max-num-seqs"} & {*command}
    found = engine_environment(options)
    assert found["CUDA_VISIBLE_DEVICES"] == "2,5"
    assert "VLLM_CPU_KVCACHE_SPACE" not in found


def test_a_server_that_shares_its_gpu_can_sleep_and_on_a_cpu_has_nothing_to_release():
    shares = EngineOptions(gpus=(0,), memory_share=0.57, colocated=True)
    command = engine_command(PYTHON, NANO, shares)
    assert "--enable-sleep-mode" in command
    assert value_of(command, "--gpu-memory-utilization") == "0.57"
    assert "--enable-sleep-mode" not in engine_command(PYTHON, NANO, EngineOptions(gpus=(0,)))
    assert "--enable-sleep-mode" not in engine_command(PYTHON, NANO, EngineOptions(colocated=True))


def test_gpus_are_counted_as_this_process_sees_them():
    """Else training and server would not be on one card."""
    found = engine_environment(EngineOptions(gpus=(1, 0)), visible="5, GPU-8932f937")
    assert found["CUDA_VISIBLE_DEVICES"] == "GPU-8932f937,5"
    with pytest.raises(EngineError, match="GPU 2 is not visible: CUDA_VISIBLE_DEVICES=5,6 shows 2"):
        engine_environment(EngineOptions(gpus=(2,)), visible="5,6")


@pytest.mark.parametrize("family", QWEN_FAMILIES)
def test_models_of_any_image_size_get_images_as_they_are(tmp_path, family):
    command = engine_command(PYTHON, write_config(tmp_path, model_type=family), EngineOptions())
    assert json.loads(value_of(command, "--mm-processor-kwargs")) == {"do_resize": False}


@pytest.mark.parametrize("family", CROP_FAMILIES)
def test_crop_families_resize_on_the_servers_side(tmp_path, family):
    command = engine_command(PYTHON, write_config(tmp_path, model_type=family), EngineOptions())
    assert "--mm-processor-kwargs" not in command
    assert "do_resize" not in " ".join(command)


def test_a_hub_id_that_cannot_be_read_is_left_to_vllm(monkeypatch):
    import transformers

    def offline(name, **_):
        raise OSError(f"no connection to look up {name}")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", offline)
    command = engine_command(PYTHON, "owner/name", EngineOptions(context=5000))
    assert value_of(command, "--model") == "owner/name"
    assert value_of(command, "--dtype") == "auto"
    assert value_of(command, "--max-model-len") == "5000"


def test_adapters_alone_are_refused(tmp_path):
    write_config(tmp_path, model_type="qwen2_5_vl")
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "nano"}')
    with pytest.raises(EngineError) as raised:
        engine_command(PYTHON, str(tmp_path), EngineOptions())
    said = str(raised.value)
    assert said.startswith(f"{tmp_path} holds adapters alone, which vLLM does not serve")
    assert "merge them into their base model" in said


@pytest.mark.parametrize(
    ("config", "asked", "dtype"),
    [
        ({"dtype": "float32"}, "auto", "float32"),
        ({"torch_dtype": "bfloat16"}, "auto", "bfloat16"),
        ({"torch_dtype": "torch.float16"}, "auto", "float16"),
        ({"dtype": "float32"}, "bfloat16", "bfloat16"),
        ({"dtype": "float8_e4m3fn"}, "auto", "auto"),
        ({}, "auto", "auto"),
    ],
)
def test_auto_is_the_precision_of_the_weights(tmp_path, config, asked, dtype):
    """vLLM's own ``auto`` would compute float32 weights in 16 bits."""
    folder = write_config(tmp_path, model_type="qwen2_5_vl", **config)
    command = engine_command(PYTHON, folder, EngineOptions(dtype=asked))
    assert value_of(command, "--dtype") == dtype


@pytest.mark.parametrize(
    ("config", "asked", "context"),
    [
        ({"text_config": {"max_position_embeddings": 4096}}, 16_384, 4096),
        ({"text_config": {"max_position_embeddings": 4096}}, 2048, 2048),
        ({"max_position_embeddings": 900}, 16_384, 900),
        ({"text_config": {"max_position_embeddings": 64}, "max_position_embeddings": 900}, 99, 64),
        ({}, 16_384, 16_384),
    ],
)
def test_context_is_limited_by_the_models_positions(tmp_path, config, asked, context):
    folder = write_config(tmp_path, model_type="qwen2_5_vl", **config)
    command = engine_command(PYTHON, folder, EngineOptions(context=asked))
    assert value_of(command, "--max-model-len") == str(context)


@pytest.mark.parametrize("exported", [None, "0", "1"])
@pytest.mark.parametrize(
    ("host", "remote_control", "mode"),
    [
        ("127.0.0.1", False, "1"),
        ("127.8.8.8", False, "1"),
        ("localhost", False, "1"),
        ("::1", False, "1"),
        ("0.0.0.0", False, "0"),
        ("::", False, "0"),
        ("10.1.2.3", False, "0"),
        ("localhost.example", False, "0"),
        ("node-7", False, "0"),
        ("", False, "0"),
        ("0.0.0.0", True, "1"),
        ("node-7", True, "1"),
    ],
)
def test_control_routes_are_open_to_this_machine_alone(
    monkeypatch, exported, host, remote_control, mode
):
    """Also where the user exported the variable: the server's own value replaces it."""
    if exported is not None:
        monkeypatch.setenv("VLLM_SERVER_DEV_MODE", exported)
    options = EngineOptions(host=host, remote_control=remote_control)
    assert engine_environment(options)["VLLM_SERVER_DEV_MODE"] == mode
    assert f"VLLM_SERVER_DEV_MODE={mode} " in shell_command(NANO, options)


def test_further_arguments_stand_last():
    more = ("--seed", "3", "--dtype", "float16")
    plain = engine_command(PYTHON, NANO, EngineOptions())
    assert engine_command(PYTHON, NANO, replace(EngineOptions(), more=more)) == [*plain, *more]


def parsed(line):
    """Return variables and command of a shell line as a shell reads them."""
    words = shlex.split(line)
    count = next(n for n, word in enumerate(words) if "=" not in word)
    return dict(word.split("=", 1) for word in words[:count]), words[count:]


@pytest.mark.parametrize("gpus", [(), (0, 1)])
def test_the_printed_line_is_the_command_that_would_be_started(tmp_path, monkeypatch, gpus):
    monkeypatch.setenv(VARIABLE, f"{tmp_path}/my vllm/bin/python")
    folder = tmp_path / "it's a $MODEL; here"
    folder.mkdir()
    write_config(folder, model_type="qwen2_5_vl")
    options = EngineOptions(host="::1", gpus=gpus)
    line = shell_command(str(folder), options)
    variables, command = parsed(line)
    assert "\n" not in line
    assert variables == engine_environment(options)
    assert command == engine_command(f"{tmp_path}/my vllm/bin/python", str(folder), options)
    assert value_of(command, "--host") == "::1"


def test_the_printed_line_names_the_interpreter_of_the_variable(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert parsed(shell_command(NANO, EngineOptions()))[1][0] == "python"
    monkeypatch.setenv(VARIABLE, PYTHON)
    assert parsed(shell_command(NANO, EngineOptions()))[1][0] == PYTHON


def test_only_the_workers_extension_is_on_vllms_path():
    """Our own modules would replace some of vLLM's environment."""
    module, _, name = LOADER.partition(".")
    (folder,) = engine_environment(EngineOptions())["PYTHONPATH"].split(":")
    assert [one.name for one in Path(folder).glob("*.py")] == [f"{module}.py"]
    spec = importlib.util.spec_from_file_location(module, Path(folder) / f"{module}.py")
    assert spec is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    assert hasattr(getattr(loaded, name), "load_folder")


def test_serve_engine_prints_the_line_and_starts_nothing(codedance, home):
    code, out, error = codedance(
        "serve", "engine", "nano", "--print", "--gpus", "none", "--port", "8123"
    )
    assert (code, error) == (0, "")
    (line,) = out.splitlines()
    variables, command = parsed(line)
    options = EngineOptions(port=8123)
    assert variables == engine_environment(options)
    assert command[1:] == engine_command("python", NANO, options)[1:]
    assert not (home.root / "logs").exists()


def test_serve_engine_prints_remote_control_only_where_it_is_asked_for(codedance, home):
    words = ("serve", "engine", "nano", "--print", "--gpus", "0,1", "--host", "0.0.0.0")
    _, closed, _ = codedance(*words)
    _, opened, _ = codedance(*words, "--remote-control")
    assert parsed(closed)[0]["VLLM_SERVER_DEV_MODE"] == "0"
    assert parsed(opened)[0] == {**parsed(closed)[0], "VLLM_SERVER_DEV_MODE": "1"}
    assert parsed(opened)[0]["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert parsed(opened)[1] == parsed(closed)[1]


def test_serve_engine_needs_the_share_that_a_training_leaves(codedance, home):
    words = ("serve", "engine", "nano", "--print", "--gpus", "0", "--colocated")
    code, _, error = codedance(*words)
    assert code == 2
    assert "codedance plan MODEL --gpus 1 --colocated" in " ".join(error.replace("│", " ").split())
    code, out, _ = codedance(*words, "--memory-share", "0.57")
    assert code == 0
    assert "--gpu-memory-utilization 0.57 --enable-sleep-mode" in out
    code, out, _ = codedance(*words[:-3], "--gpus", "none", "--colocated")
    assert code == 0
    assert "sleep" not in out
    code, out, _ = codedance(*words[:-1])
    assert "--gpu-memory-utilization 0.9" in out


def test_serve_engine_refuses_gpus_that_are_no_indices(codedance, home):
    code, _, error = codedance("serve", "engine", "nano", "--print", "--gpus", "all")
    assert code == 2
    assert "indices of GPUs such as 0,1, or none; got 'all'" in " ".join(error.split())
