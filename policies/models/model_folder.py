"""Model folders: required files, loading and saving."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...envs.parsing import INTERFACES, Interface
from .crops import CROP_FAMILIES
from .prompt_encoder import PromptEncoder, crop_encoder, qwen_encoder
from .token_model import TokenModel

QWEN_FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
FAMILIES = (*QWEN_FAMILIES, *CROP_FAMILIES)
"""``model_type`` of the supported models, whose tokens and positions are exact here."""

NOTES_FILE = "codedance.json"
ADAPTER_FILE = "adapter_config.json"
"""Configuration file of a folder that holds adapters alone; it names their base model."""


class ModelFolderError(ValueError):
    """A model folder is invalid; the message names what is missing or wrong."""


@dataclass(frozen=True, slots=True)
class ModelNotes:
    """Contents of a model folder's `codedance.json`: the setting that the model was trained in.

    Attributes:
        system_prompt: System prompt; None for the interface's own, empty for no system message.
        max_pixels: Largest image that it was trained on; None for the environment's own limit.
        families: Task families that it was trained on, each with phrases of its questions.
        interface: Tool interface that it was trained with; None where that is not known.
    """

    system_prompt: str | None = None
    max_pixels: int | None = None
    families: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, "tuple[str, ...]"])
    interface: Interface | None = None


def check_folder(folder: Path) -> None:
    """Reject a folder that lacks a part of a model.

    Raises:
        ModelFolderError: A file is missing, or the model family is not supported.
    """
    if not folder.is_dir():
        raise ModelFolderError(f"no model folder at {folder}")
    if (folder / ADAPTER_FILE).is_file():
        return
    config = folder / "config.json"
    if not config.is_file():
        raise ModelFolderError(f"{folder} has no config.json: it is not a model folder")
    try:
        family = json.loads(config.read_text(encoding="utf-8")).get("model_type")
    except ValueError as error:
        raise ModelFolderError(f"{config} is not JSON: {error}") from error
    check_family(family)
    if not _has_weights(folder):
        raise ModelFolderError(f"{folder} has no weights (model.safetensors or its index)")
    if not (folder / "tokenizer.json").is_file():
        raise ModelFolderError(
            f"{folder} has no tokenizer.json: save the tokenizer beside the model"
        )
    if not any(
        (folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")
    ):
        raise ModelFolderError(
            f"{folder} has no preprocessor_config.json: save the image processor beside the model"
        )


def check_family(family: str | None) -> None:
    """Reject a model family that this package does not support."""
    if family not in FAMILIES:
        raise ModelFolderError(
            f"model family {family!r} is not supported: image tokens and positions are only known "
            f"for {', '.join(FAMILIES)}"
        )


def load_image_processor(source: str | Path) -> Any:  # noqa: ANN401 - untyped library class
    """Load a folder's image processor on its PIL backend, which needs no torchvision."""
    from transformers import AutoImageProcessor

    return AutoImageProcessor.from_pretrained(str(source), backend="pil")


def load_token_model(source: str | Path, *, device: str | None = None) -> TokenModel:
    """Load model, tokenizer and image processor of a folder, or of a hub id.

    Args:
        source: Folder or hub id; a folder of adapters loads their base model and merges them.
        device: Device of the weights; None for a GPU where there is one.

    Raises:
        ModelFolderError: A local folder lacks a part, its parts do not fit together, or a hub id
            could not be loaded.
    """
    if (Path(source) / ADAPTER_FILE).is_file():
        return _load_with_adapters(Path(source), device)
    return _load_whole(source, device)


def _load_with_adapters(folder: Path, device: str | None) -> TokenModel:
    from peft import PeftModel

    base = _base_of(folder)
    try:
        model = load_token_model(base, device=device)
    except ModelFolderError as error:
        raise ModelFolderError(f"{folder} holds adapters alone, and {error}") from error
    PeftModel.from_pretrained(model.model, str(folder)).merge_and_unload()
    model.model.eval()
    return model


def _base_of(folder: Path) -> str:
    """Return the base model of a folder of adapters."""
    settings = json.loads((folder / ADAPTER_FILE).read_text(encoding="utf-8"))
    base = settings.get("base_model_name_or_path")
    if not base:
        raise ModelFolderError(f"{folder / ADAPTER_FILE} does not name base_model_name_or_path")
    return str(base)


def _load_whole(source: str | Path, device: str | None) -> TokenModel:
    import torch
    from transformers import AutoModelForImageTextToText

    if Path(source).exists():
        check_folder(Path(source))
    model: Any
    with _loading(source):
        parts = _load_parts(source)
        with quiet():
            model = AutoModelForImageTextToText.from_pretrained(str(source), dtype="auto")
        model = model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        model.eval()
        if parts.is_qwen:
            return TokenModel(model, parts.tokenizer, parts.processor)
        from .crop_model import CropTokenModel

        return CropTokenModel(model, parts.tokenizer, parts.processor, template=parts.template())


def load_prompt_encoder(source: str | Path) -> PromptEncoder:
    """Load chat encoding and image preprocessing of a folder, or of a hub id, without weights.

    Args:
        source: Folder or hub id; of a folder of adapters, its base model is read.

    Raises:
        ModelFolderError: A part is missing, the parts do not fit together, or a hub id could not
            be loaded.
    """
    while (Path(source) / ADAPTER_FILE).is_file():
        source = _base_of(Path(source))
    with _loading(source):
        parts = _load_parts(source)
        if parts.is_qwen:
            return qwen_encoder(parts.config, parts.tokenizer, parts.processor)
        return crop_encoder(
            parts.config, parts.tokenizer, parts.processor, template=parts.template()
        )


@dataclass(frozen=True, slots=True)
class _Parts:
    """Configuration, tokenizer and image processor of a model."""

    source: str
    config: Any
    tokenizer: Any
    processor: Any

    @property
    def is_qwen(self) -> bool:
        return self.config.model_type in QWEN_FAMILIES

    def template(self) -> str:
        """Return the chat template, which is saved with the tokenizer from then on."""
        template = _chat_template(self.source) or self.tokenizer.chat_template
        if not isinstance(template, str):
            raise ValueError("it has no chat template to format its turns")
        self.tokenizer.chat_template = template
        return template


def _load_parts(source: str | Path) -> _Parts:
    from transformers import AutoConfig, AutoTokenizer

    name = str(source)
    with quiet():
        config = AutoConfig.from_pretrained(name)
        check_family(config.model_type)
        tokenizer = AutoTokenizer.from_pretrained(name)
        return _Parts(name, config, tokenizer, load_image_processor(name))


@contextlib.contextmanager
def _loading(source: str | Path) -> Generator[None]:
    """Raise the libraries' errors as `ModelFolderError`."""
    from safetensors import SafetensorError

    try:
        yield
    except ModelFolderError:
        raise
    except SafetensorError as error:
        raise ModelFolderError(f"{source}: the weights cannot be read ({error})") from error
    except OSError as error:
        if Path(source).exists():
            raise ModelFolderError(f"{source}: {_first_line(error)}") from error
        raise ModelFolderError(
            f"cannot load {str(source)!r}: there is no such folder, and it could not be "
            f"downloaded from the model hub ({_first_line(error)}); check the name and the "
            "network, or give a local folder"
        ) from error
    except RuntimeError as error:  # the sizes of weights and configuration differ
        raise ModelFolderError(f"{source}: {_first_line(error)}") from error
    except ValueError as error:
        raise ModelFolderError(f"{source}: {error}") from error


def _chat_template(source: str) -> str | None:
    """Return the processor's chat template, which supports images."""
    from transformers.utils.hub import cached_file

    missing_is_fine = {
        "_raise_exceptions_for_missing_entries": False,
        "_raise_exceptions_for_connection_errors": False,
    }
    found = cached_file(source, "chat_template.json", **missing_is_fine)
    if found is not None:
        return json.loads(Path(found).read_text(encoding="utf-8")).get("chat_template")
    found = cached_file(source, "chat_template.jinja", **missing_is_fine)
    return None if found is None else Path(found).read_text(encoding="utf-8")


def save_token_model(model: TokenModel, folder: Path, *, like: str | Path | None = None) -> None:
    """Write a standard Hugging Face folder; `codedance.json` is copied from ``like``."""
    with quiet():
        model.model.save_pretrained(folder)
    _save_companions(model, folder, like)


def save_adapter(
    adapters: Any,  # noqa: ANN401 - a peft model
    model: TokenModel,
    folder: Path,
    *,
    like: str | Path | None = None,
) -> None:
    """Write adapters alone, with tokenizer and image processor; they name their base model."""
    with quiet():
        # Else peft asks the hub whether the vocabulary, which stays as it is, was changed.
        adapters.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card
    _save_companions(model, folder, like)


def _save_companions(model: TokenModel, folder: Path, like: str | Path | None) -> None:
    with quiet():
        model.chat.tokenizer.save_pretrained(folder)
        model.pictures.processor.save_pretrained(folder)
    if like is not None and (Path(like) / NOTES_FILE).is_file():
        shutil.copyfile(Path(like) / NOTES_FILE, folder / NOTES_FILE)


def read_notes(folder: str | Path) -> ModelNotes:
    """Read `codedance.json` of a folder; without one, the notes are empty.

    Raises:
        ModelFolderError: The file is not a JSON object, or names an unknown interface.
    """
    path = Path(folder) / NOTES_FILE
    data = _read_notes(path)
    families: dict[str, Any] = data.get("families") or {}
    interface = data.get("interface")
    if interface is not None and interface not in INTERFACES:
        raise ModelFolderError(
            f"{path}: interface is {interface!r}, expected one of {', '.join(INTERFACES)}"
        )
    return ModelNotes(
        system_prompt=data.get("system_prompt"),
        max_pixels=data.get("max_pixels"),
        families={name: tuple(phrases) for name, phrases in families.items()},
        interface=interface,
    )


def note_interface(folder: str | Path, interface: Interface) -> None:
    """Write the tool interface that a model was trained with into its `codedance.json`."""
    path = Path(folder) / NOTES_FILE
    data = _read_notes(path)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(data | {"interface": interface}, indent=2) + "\n", encoding="utf-8")
    fresh.replace(path)


def _read_notes(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ModelFolderError(f"{path} is not a JSON object: {error}") from error


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason")


def _has_weights(folder: Path) -> bool:
    return any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*.bin"))


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """Disable transformers' progress bars, which would interfere with our own."""
    from transformers.utils import logging

    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()
