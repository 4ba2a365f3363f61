r"""Text that can always be encoded: lone surrogates are replaced by escapes.

JSON's ``\ud83d``, a broken emoji and a command line in another encoding lead to Python strings
that UTF-8 cannot encode, and that no file, database, tokenizer or request accepts.
"""

from __future__ import annotations

import re

_HALF = re.compile("[\ud800-\udfff]")


def escape_surrogates(text: str) -> str:
    r"""Return the text with each lone surrogate replaced by its escape.

    >>> escape_surrogates("red \ud83d disc")
    'red \\ud83d disc'
    """
    if text.isascii() or _HALF.search(text) is None:
        return text
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def lone_surrogate(text: str) -> str | None:
    r"""Return the escape of the first lone surrogate; None without one.

    >>> lone_surrogate("red \ud83d disc")
    '\\ud83d'
    """
    found = None if text.isascii() else _HALF.search(text)
    return None if found is None else escape_surrogates(found[0])
