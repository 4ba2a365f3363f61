"""Normal forms of a text: one for the parsers, one for comparison.

`readable_text` unifies variants of the same sign (full-width forms, minus signs, quotation marks,
superscripts, vulgar fractions, simple LaTeX) and keeps case and punctuation; numbers, options and
verdicts are parsed from it. `plain_text` also normalises case, whitespace, emphasis and outer
punctuation; two answers of kind TEXT are the same if their plain texts are equal.

Every pattern here matches in time linear in the length of the text.
"""

from __future__ import annotations

import re
import unicodedata

_SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻"
_POWER = re.compile(f"[{_SUPERSCRIPTS}]+")
_AS_DIGITS = str.maketrans(_SUPERSCRIPTS, "0123456789+-")
_VULGAR_FRACTION = re.compile("(?<=\\w)[\u00bc-\u00be\u2150-\u215e\u2189]")
_SAME_SIGN = str.maketrans(
    {
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d", "-"),
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u02bc\u2032`\u00b4", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\u300c\u300d\u300e\u300f\u2033", '"'),
        **dict.fromkeys("\u200b\u2060\ufeff\u00ad\u200e\u200f", None),
        "\u2044": "/",
        "\u3002": ".",
        "\u066b": ".",
        "\u066c": ",",
    }
)

_SUPERSCRIPT_TAG = re.compile(r"<sup>\s{0,3}([-+]?\d+)\s{0,3}</sup>", re.IGNORECASE)
_ROOT_CALL = re.compile(r"(?<![\w\\])sqrt\s?\(\s?(\w+)\s?\)", re.IGNORECASE)
_LATEX = (
    (re.compile(r"\\sqrt\s*(?:\{\s*(\w+)\s*\}|(\d))"), r"√\1\2"),
    (re.compile(r"\\sqrt\s*\{([^{}]*)\}"), r"√(\1)"),
    (re.compile(r"\\[dt]?frac\s?(\d)\s?(\d)(?!\d)"), r"\\frac{\1}{\2}"),
    (re.compile(r"(?<=\d)\s*\\[dt]?frac\s*\{(\d+)\}\s*\{(\d+)\}"), r" \1/\2"),
    (re.compile(r"\\[dt]?frac\s*\{\s*([-+]?\d+)\s*\}\s*\{\s*(\d+)\s*\}"), r"\1/\2"),
    (re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"(\1)/(\2)"),
    (re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-z]))|\\degree(?![a-z])"), "°"),
    (re.compile(r"\\(?:text|math)(?:rm|bf|it|up)?\s*\{([^{}\\]*)\}"), r"\1"),
    (re.compile(r"\\(?:boxed|operatorname)\s*\{([^{}]*)\}"), r"\1"),
    (re.compile(r"\^\s*\{\s*([-+]?\d+)\s*\}"), r"^\1"),
    (re.compile(r"\\textdollar(?![a-z])"), "$"),
    (re.compile(r"\\(?:times|cdot)(?![a-z])"), "×"),
    (re.compile(r"\\pi(?![a-z])"), "π"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\[,;:!]|\\(?:left|right)(?![a-z])"), ""),
    (re.compile(r"\\([%$&#_ ])"), r"\1"),
)
_EMPHASIS = re.compile(r"(?<![\w*])(\*{1,3}|_{1,3}|~~)(?=[^\s*_~])([^*_~]*[^\s*_~])\1(?![\w*])")
_BRACKETED = re.compile(r"[(\[{]([\w ]+)[)\]}]")
_MOST_WRAPPINGS = 8
"""Maximum number of layers of quotation marks and the like to remove; keeps time linear."""


def readable_text(text: str) -> str:
    """Return a text with one sign per meaning; case and punctuation are kept.

    >>> readable_text("9 m\u00b2, \u22125, 2\u00bd and \uff17")
    '9 m^2, -5, 2 1/2 and 7'
    """
    text = _POWER.sub(lambda found: "^" + found[0].translate(_AS_DIGITS), text)
    text = _VULGAR_FRACTION.sub(lambda found: " " + found[0], text)
    text = unicodedata.normalize("NFKC", text).translate(_SAME_SIGN)
    text = _SUPERSCRIPT_TAG.sub(r"^\1", text)
    text = _ROOT_CALL.sub(r"√\1", text)
    return _without_latex(text) if "\\" in text or "^" in text or "{,}" in text else text


def plain_text(text: str) -> str:
    """Return the form in which texts are compared.

    Case, whitespace, Unicode form, emphasis, paired quotation marks and closing punctuation are
    removed; the content inside stays significant. A text of nothing but such signs is kept.

    >>> plain_text("**Black.**"), plain_text("U.S."), plain_text("?")
    ('black', 'u.s', '?')
    """
    text = unicodedata.normalize("NFKC", readable_text(text).casefold())
    whole = " ".join(text.split())
    plain = whole
    for _ in range(_MOST_WRAPPINGS):
        inner = _unwrapped(plain)
        if inner == plain:
            break
        plain = inner
    return plain or whole


def _unwrapped(text: str) -> str:
    """Remove one layer of emphasis, quotation marks, brackets and outer punctuation."""
    text = _EMPHASIS.sub(r"\2", text.rstrip(" .,;:!?").lstrip(" \u00a1\u00bf"))
    for mark in "\"'$":
        inner = text[1:-1].strip(mark) if mark != "$" else text[1:-1]
        if len(text) > 2 and text[0] == text[-1] == mark and mark not in inner:
            text = inner
    bracketed = _BRACKETED.fullmatch(text)
    return (bracketed[1] if bracketed else text).strip()


def _without_latex(text: str) -> str:
    text = text.replace("~", " ") if "\\" in text else text  # a tie, as in 5~cm
    for _ in range(2):  # \boxed{\text{A}}
        for pattern, plain in _LATEX:
            text = pattern.sub(plain, text)
    return text
