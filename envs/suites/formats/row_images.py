"""Sources of a row's images: files next to the task file, or content in the row itself.

An image is a path relative to the file, base64 content, a data URL, or the format of Hugging Face
data sets: ``{"bytes": …, "path": …}``. Nothing is downloaded.
"""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

from ...picture import PictureError, check_format
from ..base import SuiteError
from .bad_rows import quoted

ImageSource = Path | bytes
"""Path of an image file, or its content; the first bytes are those of an image format."""

_LONGEST_PATH = 4096
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_DATA_URL = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
_FORMS = "paths of pictures, or pictures in base64"


def image_sources(value: object, folder: Path) -> tuple[ImageSource, ...]:
    """Return the sources of the images in a row's ``image`` or ``images``.

    Args:
        value: JSON value of one image or of a list of images.
        folder: Base folder of relative paths.

    Raises:
        SuiteError: An image is missing, is a URL, or does not start like an image format.
    """
    given = cast(list[object], value) if isinstance(value, list) else [value]
    if not given:
        raise SuiteError(f"'images' holds {_FORMS}, got an empty list")
    sources: list[ImageSource] = []
    faults: list[str] = []
    for one in given:
        try:
            sources.append(_source(one, folder))
        except SuiteError as error:
            faults.append(str(error))
    if faults:
        raise SuiteError("; ".join(dict.fromkeys(faults)))
    return tuple(sources)


def _source(value: object, folder: Path) -> ImageSource:
    if isinstance(value, dict):
        return _from_fields(cast(dict[str, Any], value), folder)
    if not isinstance(value, str):
        raise SuiteError(f"'images' holds {_FORMS}, got {quoted(value)}")
    if value.lstrip()[:5].lower() == "data:":
        return _from_data_url(value.strip())
    if _URL.match(value):
        raise SuiteError(
            f"{quoted(value)} is a URL, and nothing is downloaded: save the picture beside the "
            "file and give its path"
        )
    return _from_text(value, folder)


def _from_fields(fields: dict[str, Any], folder: Path) -> ImageSource:
    """Return the source of Hugging Face's format, in which bytes take precedence over the path."""
    content = fields.get("bytes")
    if isinstance(content, str):
        return _checked(_from_base64(content), "'bytes'")
    if isinstance(content, list):
        try:
            return _checked(bytes(cast(list[int], content)), "'bytes'")
        except (TypeError, ValueError) as error:
            raise SuiteError(f"'bytes' is not a picture: {error}") from None
    if content is None and isinstance(fields.get("path"), str):
        return _source(fields["path"], folder)
    keys = ", ".join(map(quoted, list(fields)[:5])) or "nothing"
    raise SuiteError(f"an image is {{'bytes': base64}} or {{'path': …}}, got one with {keys}")


def _from_data_url(value: str) -> bytes:
    found = _DATA_URL.match(value)
    if found is None:
        raise SuiteError(f"{quoted(value)} is a data URL without base64")
    return _checked(_from_base64(unquote(value[found.end() :])), "the data URL")


def _from_text(value: str, folder: Path) -> ImageSource:
    """Return a path that exists, else the content of a base64 text that is an image."""
    path = _existing(folder, value)
    if path is not None and path.is_file():
        try:
            check_format(path)
        except PictureError as error:
            raise SuiteError(str(error)) from None
        return path
    if path is not None:
        raise SuiteError(f"{quoted(value)} is a folder or a device, not a picture")
    content = _from_base64(value)
    try:
        if content is not None:
            check_format(content)
            return content
    except PictureError:
        pass
    also = "" if content is None else ", and it is not a picture in base64"
    raise SuiteError(f"there is no picture {quoted(value)} beside the file{also}")


def _existing(folder: Path, value: str) -> Path | None:
    """Return the path if it exists, else None; a text may not be a valid path."""
    if len(value) > _LONGEST_PATH:
        return None
    try:
        path = folder / value
        return path if path.exists() else None
    except (OSError, ValueError):
        return None


def _from_base64(text: str) -> bytes | None:
    """Decode base64 of either alphabet, with or without line breaks; None where invalid."""
    plain = "".join(text.split()).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def _checked(content: bytes | None, where: str) -> bytes:
    if content is None:
        raise SuiteError(f"{where} is not base64")
    try:
        check_format(content)
    except PictureError as error:
        raise SuiteError(f"{where} holds no picture: {error}") from None
    return content
