"""``codedance plan`` for users: no network, 80 columns, clear errors."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from codedance.policies.models.nano import NanoConfig, build_nano

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def plan(monkeypatch, capsys):
    def run(*arguments):
        from codedance.pipelines.cli import main

        monkeypatch.setattr(sys, "argv", ["codedance", "plan", *arguments])
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(SystemExit) as leaving:
            main()
        captured = capsys.readouterr()
        return leaving.value.code, captured.out, captured.err

    return run


def test_seven_billion_parameters_are_planned_for_one_eight_and_sixteen_gpus(plan):
    code, out, _ = plan("Qwen/Qwen2.5-VL-7B-Instruct", "--gpus", "1,8,16")
    assert code == 0
    assert "8,292,166,656 parameters" in out
    assert [f"of {n} h100" in out for n in (8, 16)] == [True, True]
    rows = [line for line in out.splitlines() if line.startswith(("sft ", "grpo "))]
    assert len(rows) == 3 * 2 * 4
    assert max(map(len, out.splitlines())) <= 80
    assert " ! " in rows[0]  # all weights, moments and copies are 150 GB: not on one GPU of 80


def test_whole_copies_of_sharded_weights_and_the_reference_are_counted(plan):
    code, out, _ = plan("Qwen/Qwen2.5-VL-7B-Instruct", "--gpus", "8", "--reference")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    (row,) = [line.split() for line in out.splitlines() if re.match("grpo +all +[0-9]", line)]
    assert row[2] == "6.3"  # 16.6 GB of weights and as many of the reference, on 8, and a layer
    assert row[7] == "16.6"
    code, out, _ = plan("Qwen/Qwen2.5-VL-7B-Instruct", "--gpus", "8", "--served")
    rows = [line.split() for line in out.splitlines() if line.startswith("grpo")]
    assert all(row[-4:-2] == ["0.0", "0.0"] for row in rows if "!" not in row)
    assert "none with vLLM" in out


def test_one_gpu_for_training_and_vllm_is_planned_by_phase_and_by_card(plan):
    words = ("Qwen/Qwen2.5-VL-3B-Instruct", "--gpus", "1", "--colocated", "--gpu-memory", "48")
    code, out, _ = plan(*words)
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert "one GPU of 48 GB, for training and vLLM in turn" in out
    phases = [
        line.split()[:2] for line in out.splitlines() if re.match("(LoRA|all) +(gen|upd)", line)
    ]
    assert phases == [
        ["LoRA", "generate"],
        ["LoRA", "update"],
        ["all", "generate"],
        ["all", "update"],
    ]
    cards = [line.split() for line in out.splitlines() if re.match(r"\d+ GB ", line)]
    assert [row[0] for row in cards if row[2] == "LoRA"] == ["24", "40", "48", "80"]
    assert [row[3] for row in cards if row[2] == "LoRA"] == ["yes"] * 4
    assert ["24", "GB", "all", "no"] in [row[:4] for row in cards]
    assert "rollout.memory_share (--gpu-memory-utilization)" in out


def test_the_page_shows_what_the_command_prints(plan):
    page = (Path(__file__).parents[3] / "docs" / "one-gpu.md").read_text(encoding="utf-8")
    words = page.partition("$ codedance plan ")[2].partition("\n")[0].split()
    table = page.partition("```text\n")[2].partition("\n```")[0]
    code, out, _ = plan(*words)
    assert code == 0
    assert table in out


def test_a_plan_of_one_gpu_is_a_document_too(plan):
    code, out, _ = plan("--gpus", "1", "--colocated", "--json")
    assert code == 0
    found = {
        (one["bytes"]["total"], one["holding"]["lora_r"]): one for one in json.loads(out)["plans"]
    }
    assert found[80e9, 16]["fits"]
    assert not found[24e9, 16]["fits"]  # seven billion parameters, twice
    assert 0.5 < found[80e9, 16]["memory_share"] < 0.8
    assert found[80e9, 16]["peak_bytes"]["update"] < found[80e9, 16]["peak_bytes"]["generate"]


def test_a_configuration_file_is_sufficient(plan, tmp_path):
    folder = build_nano(tmp_path, ["how many?"], NanoConfig())
    (folder / "model.safetensors").unlink()
    for source in (folder, folder / "config.json"):
        code, out, _ = plan(str(source), "--gpus", "1", "--gpu", "4090")
        assert code == 0
        assert "figures in MB" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("Qwen/Qwen9",), "Qwen/Qwen2.5-VL-7B-Instruct"),
        (("--gpus", "0"), "--gpus"),
        (("--gpus", "eight"), "got 'eight'"),
        (("--gpu", "abacus"), "h100"),
        (("--colocated",), "--gpus 1"),
        (("--gpus", "2", "--colocated"), "--gpus 1"),
        (("--tokens", "100", "--own", "90", "--pictures", "90"), "exceed --tokens 100"),
    ],
)
def test_an_impossible_plan_is_an_error_of_one_line(plan, arguments, message):
    code, _, error = plan(*arguments)
    assert code != 0
    assert message in error
    assert "Traceback" not in error
