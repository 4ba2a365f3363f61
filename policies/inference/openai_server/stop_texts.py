"""Stop texts behind a server: one meaning, whatever a server does with them.

Our own engine ends a turn with the stop text in it. Servers of OpenAI's interface leave it out, up
to four of them are accepted, and few say which one it was. A reply is made the same from all:

1. A stop text that is in the text ends the reply there: the server keeps stop texts (vLLM is asked
   to, by ``include_stop_str_in_output``), was not told this one, or ignores them.
2. Otherwise, a stop text that the server names (``stop_reason`` of vLLM, ``matched_stop`` of
   SGLang) is appended; where it says that there was none, nothing is.
3. Otherwise it cannot be known whether the model ended its turn or a stop text did. The stop text
   that closes what the reply left open is appended: ``</code>`` after an open ``<code>``, of
   several the one of the innermost tag. A model that ended its turn there by itself is treated as
   though it had closed it. With nothing open the text stays as it is.

What a last token holds beyond the stop text (a line end, say) is in a reply of our own engine, and
not in one of a server.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ....envs.text.unicode_text import escape_surrogates
from ..chat_completion import Completion

_MOST_SENT = 4  # OpenAI and our own server refuse more
_CLOSING_TAG = re.compile(r"</([A-Za-z][\w-]*)>")


def sent_stops(stop: Sequence[str]) -> list[str]:
    """Return the stop texts to send: the first four; further ones are looked for in the reply."""
    return [escape_surrogates(text) for text in stop[:_MOST_SENT]]


def finish_text(answer: Completion, stop: Sequence[str]) -> tuple[str, bool]:
    r"""Return the text of a reply with the stop text that ended it, and whether a limit cut it.

    >>> finish_text(Completion("<code>\nprint(1)\n"), ("</code>",))
    ('<code>\nprint(1)\n</code>', False)
    >>> finish_text(Completion("<code>1</code> and more", is_cut=True), ("</code>",))
    ('<code>1</code>', False)
    >>> finish_text(Completion("4", named_stop="\n", names_end=True), ("\n",))
    ('4\n', False)
    """
    stops = [escape_surrogates(text) for text in stop]
    ends = [at + len(one) for one in stops if (at := answer.text.find(one)) >= 0]
    if ends:
        return answer.text[: min(ends)], False
    if answer.is_cut:
        return answer.text, True
    if answer.named_stop in stops:
        return answer.text + answer.named_stop, False
    if answer.names_end and answer.named_stop is None:
        return answer.text, False
    return answer.text + _closing(answer.text, stops), False


def _closing(text: str, stops: Sequence[str]) -> str:
    """Return the stop text that closes the innermost open tag; empty where none does."""
    found = [(_opened(text, one), len(one), one) for one in stops]
    place, _, chosen = max(found, default=(-1, 0, ""))
    return chosen if place >= 0 else ""


def _opened(text: str, stop: str) -> int:
    """Return where the tag that a stop text closes was opened; -1 where it is not open."""
    tag = _CLOSING_TAG.search(stop)
    if tag is None:
        return -1
    place = text.rfind(f"<{tag[1]}>")
    return place if place > text.rfind(tag[0]) else -1
