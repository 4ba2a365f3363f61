"""Command line of vLLM for a model folder: what exact ids and following weights need."""

from __future__ import annotations

import ipaddress
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ....policies.inference.vllm.control import LOADER
from .environment import VARIABLE, EngineError

MEMORY_SHARE = 0.9
"""Share of each GPU's memory, unless another is set."""
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM takes
_WORKER = Path(__file__).parent / "worker"
_CPU_FLAGS = ("--enforce-eager", "--max-num-seqs", "64", "--block-size", "32")
"""Blocks of 128 tokens, the default there, hardly ever hit the prefix cache."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Options of a vLLM server.

    Attributes:
        host: Address to listen on.
        port: Port.
        gpus: Indices of the GPUs that share the model; empty for the CPU.
        dtype: Precision: ``auto`` (that of the weights), ``float32``, ``bfloat16``, ``float16``.
        context: Longest prompt and reply together, in tokens.
        memory_share: Share of each GPU's memory for weights and cache.
        colocated: Whether a training shares the GPU, and puts the server to sleep.
        lora_rank: Rank of adapters that are loaded later; 0 for none.
        adapters: Number of versions of adapters that replies are generated with at the same time.
        transfer: How a training hands weights over: ``folder`` or ``nccl``.
        cache_gigabytes: Size of the cache of keys and values on a CPU.
        remote_control: Whether its control routes (weights, sleep, cache) are served beyond this
            machine.
        more: Further arguments, as they stand.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    gpus: tuple[int, ...] = ()
    dtype: str = "auto"
    context: int = 16_384
    memory_share: float = MEMORY_SHARE
    colocated: bool = False
    lora_rank: int = 0
    adapters: int = 4
    transfer: str = "folder"
    cache_gigabytes: int = 1
    remote_control: bool = False
    more: Sequence[str] = ()


def engine_command(python: Path | str, model: str, options: EngineOptions) -> list[str]:
    """Return the command line that serves a model.

    Args:
        python: Interpreter of vLLM's environment.
        model: Model folder or hub id.
        options: Options.

    Raises:
        EngineError: The folder holds adapters alone, or no model.
    """
    from ....policies.models.model_folder import QWEN_FAMILIES

    config = _config(model)
    family = config.get("model_type")
    # The module instead of the program `vllm`, whose CPU build does not find its own package.
    command = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", model]
    command += ["--host", options.host, "--port", str(options.port)]
    command += ["--enable-scale-out", "--enable-prompt-tokens-details"]
    command += ["--generation-config", "vllm", "--dtype", _dtype(config, options)]
    command += ["--logprobs-mode", "processed_logprobs"]  # of what tokens are sampled from
    command += ["--worker-extension-cls", LOADER]
    command += ["--max-model-len", str(min(options.context, _positions(config) or options.context))]
    if family is None or family in QWEN_FAMILIES:
        # Images arrive at the model's size, and its rule for sizes applied twice is another one.
        command += ["--mm-processor-kwargs", json.dumps({"do_resize": False})]
    if options.transfer == "nccl":
        command += ["--weight-transfer-config", json.dumps({"backend": "nccl"})]
    if options.lora_rank:
        rank = next((one for one in _RANKS if one >= options.lora_rank), _RANKS[-1])
        command += ["--enable-lora", "--max-lora-rank", str(rank)]
        command += ["--max-loras", str(options.adapters)]
    if options.gpus:
        command += ["--tensor-parallel-size", str(len(options.gpus))]
        command += ["--gpu-memory-utilization", f"{options.memory_share:g}"]
        if options.colocated:  # on a CPU, where vLLM refuses it, sleeping has no effect
            command += ["--enable-sleep-mode"]
    else:
        command += _CPU_FLAGS
    return [*command, *options.more]


def shell_command(model: str, options: EngineOptions) -> str:
    """Return the command line for a shell, variables included.

    Its interpreter is that of `CODEDANCE_VLLM_PYTHON`, or ``python`` of an environment with vLLM.
    """
    python = os.path.expanduser(os.environ.get(VARIABLE) or "python")
    variables = [f"{k}={shlex.quote(v)}" for k, v in engine_environment(options).items()]
    return " ".join([*variables, shlex.join(engine_command(python, model, options))])


def engine_environment(options: EngineOptions, *, visible: str = "") -> dict[str, str]:
    """Return the variables that a server needs beyond those of this process.

    The control routes are served only to this machine, unless they are asked for: whoever reaches
    them controls the server.

    Args:
        options: Options.
        visible: This process's CUDA_VISIBLE_DEVICES, by which it counts the GPUs; empty where it
            sees all.

    Raises:
        EngineError: A GPU is not visible.
    """
    found = {"DO_NOT_TRACK": "1", "VLLM_NO_USAGE_STATS": "1"}
    found["PYTHONPATH"] = str(_WORKER)  # only what vLLM's worker imports
    found["PYTHONSAFEPATH"] = "1"  # no `vllm` of the current folder
    is_controlled = options.remote_control or _is_loopback(options.host)
    found["VLLM_SERVER_DEV_MODE"] = "1" if is_controlled else "0"
    if options.lora_rank:
        found["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1" if is_controlled else "0"
    if options.gpus:
        found["CUDA_VISIBLE_DEVICES"] = ",".join(_names(options.gpus, visible))
    else:
        found["VLLM_CPU_KVCACHE_SPACE"] = str(options.cache_gigabytes)
    return found


def _names(gpus: Sequence[int], visible: str) -> list[str]:
    """Return the names of GPUs: those of this process's first, second, … visible one."""
    if not visible:
        return [str(index) for index in gpus]
    names = [one.strip() for one in visible.split(",")]
    if max(gpus) >= len(names):
        raise EngineError(
            f"GPU {max(gpus)} is not visible: CUDA_VISIBLE_DEVICES={visible} shows {len(names)}, "
            "counted from 0"
        )
    return [names[index] for index in gpus]


def _config(model: str) -> Mapping[str, object]:
    """Return the configuration of a model folder or hub id; empty where it cannot be read."""
    from ....policies.models.model_folder import ADAPTER_FILE

    folder = Path(model)
    if (folder / ADAPTER_FILE).is_file():
        raise EngineError(
            f"{folder} holds adapters alone, which vLLM does not serve as a model: merge them into "
            "their base model, or serve that"
        )
    if folder.is_dir():
        try:
            return json.loads((folder / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise EngineError(f"{folder} is no model folder: config.json: {error}") from error
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(model).to_dict()
    except (OSError, ValueError):  # vLLM says why
        return {}


def _dtype(config: Mapping[str, object], options: EngineOptions) -> str:
    """Return the precision: vLLM's own ``auto`` would compute float32 weights in 16 bits."""
    found = config.get("dtype") or config.get("torch_dtype")
    named = str(found).removeprefix("torch.")
    is_known = named in ("float32", "bfloat16", "float16")
    return named if options.dtype == "auto" and is_known else options.dtype


def _positions(config: Mapping[str, object]) -> int | None:
    """Return the number of positions that a model was made for, where it is known."""
    text = config.get("text_config")
    for part in (text if isinstance(text, Mapping) else {}, config):
        count = part.get("max_position_embeddings")
        if isinstance(count, int):
            return count
    return None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
