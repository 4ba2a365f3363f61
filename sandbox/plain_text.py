"""Text of a model, a task or a file that is safe in a terminal and in a log."""

from __future__ import annotations

import unicodedata

_JOINERS = "\u200c\u200d"  # of Persian, of Indian scripts, of emoji


def escape_controls(text: str) -> str:
    r"""Return the text with each character that could control a terminal replaced by its escape.

    Every text that a model may have written passes through here before it is printed or logged.
    ``ESC`` begins sequences that move the cursor, set the clipboard or the title, and draw links;
    a carriage return and a backspace overwrite what stands there; C1 controls do the same in one
    character; marks of direction reorder a line. Line feeds and tabs stay.

    >>> escape_controls("red \x1b[2J disc\r\u202e")
    'red \\x1b[2J disc\\r\\u202e'
    """
    if text.isprintable():
        return text
    return "".join(c if _is_harmless(c) else c.encode("unicode_escape").decode() for c in text)


def escape_lines(text: str) -> str:
    r"""Return the text on one line, for a record of a log, which a line feed would end.

    >>> escape_lines("lost\nERROR forged")
    'lost\\nERROR forged'
    """
    return escape_controls(text).replace("\n", "\\n")


def _is_harmless(character: str) -> bool:
    if character in "\n\t" or character.isprintable() or character in _JOINERS:
        return True
    return unicodedata.category(character) == "Zs"  # spaces of other widths
