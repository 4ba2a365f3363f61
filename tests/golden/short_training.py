"""Train a nano model for a few steps by SFT, then the shipped one by GRPO; print the digests.

Run in its own process, because the floating-point kernels are selected when torch is imported:
without processor-specific vector instructions, the weights are the same on every x86-64 machine
with the same version of torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path

KERNELS = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
"""Environment of this process: kernels that run on every x86-64 processor, one thread."""
SEED = 0


def main() -> None:
    """Print one line of JSON: a digest of the tokenizer and of the weights after each training."""
    import torch

    torch.set_num_threads(1)
    torch.backends.mkldnn.enabled = False
    with tempfile.TemporaryDirectory() as scratch:
        sys.stdout.write(json.dumps(trained(Path(scratch))) + "\n")


def trained(scratch: Path) -> dict[str, str]:
    """Return the digests of both trainings."""
    from codedance.envs import load_suite
    from codedance.policies import rollout
    from codedance.policies.interface import Demonstration
    from codedance.policies.loading import NANO_FOLDER
    from codedance.policies.models.nano import NanoConfig, build_nano
    from codedance.policies.scripted.teacher import TeacherPolicy
    from codedance.policies.training.grpo.config import GRPOConfig
    from codedance.policies.training.grpo.loop import train_grpo
    from codedance.policies.training.sft import SFTConfig, train_sft
    from codedance.sandbox import open_sandbox

    suite = load_suite("nano", split="train")
    tasks = [suite[index] for index in range(14)]
    with open_sandbox("local") as sandbox:
        played = rollout(TeacherPolicy(), tasks, sandbox=sandbox, seed=SEED)
        shown = [
            Demonstration(task, one.conversation()) for task, one in zip(tasks, played, strict=True)
        ]
        corpus = (message.text for one in shown for message in one.messages)
        sizes = NanoConfig(
            width=32, text_layers=2, vision_width=32, vision_layers=1, vocabulary=384
        )
        base = build_nano(scratch / "base", corpus, sizes)
        sft = SFTConfig(steps=4, batch_size=4, warmup_steps=1, muon_factor=1.0, seed=SEED)
        cold = train_sft(base, shown, sft, folder=scratch / "sft")
        grpo = GRPOConfig(
            steps=2, tasks_per_step=3, num_generations=4, learning_rate=1e-3, temperature=1.2,
            max_new_tokens=120, reward="bat", seed=SEED,
        )  # fmt: skip
        reinforced = train_grpo(NANO_FOLDER, tasks, grpo, sandbox=sandbox, folder=scratch / "grpo")
    found = {"tokenizer": _digest([base / "tokenizer.json"])}
    for name, folder in (("base", base), ("sft", cold), ("grpo", reinforced)):
        found[name] = _digest(sorted(folder.glob("*.safetensors")))
    return found


def _digest(paths: list[Path]) -> str:
    sha = hashlib.sha256()
    for path in paths:
        sha.update(path.read_bytes())
    return sha.hexdigest()[:16]


if __name__ == "__main__":
    if any(os.environ.get(name) != value for name, value in KERNELS.items()):
        raise SystemExit(f"expected these environment variables: {KERNELS}")
    main()
