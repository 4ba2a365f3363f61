"""Helpers of ``codedance ask``: the questions that a model was trained on, and its turns."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence

from ....envs.episode import Episode
from ....envs.suites.nano.suite import FAMILIES
from ....envs.types import Turn
from ....policies.interface import Policy, Sampling
from ....policies.rollouts.running_episode import RunningEpisode

PLACEHOLDER = re.compile(r"\\\{(\w+)\\\}")
NO_WORD = r"(?!)"


def match_family(question: str, families: Mapping[str, Sequence[str]]) -> str | None:
    """Return the family whose phrases match a question; None if none does.

    A phrase may have placeholders, ``How many {colour} dots are there?``, which match only the
    words that the family's questions have there: a model trained on red and green was not trained
    on orange.

    >>> match_family("how many red dots", {"count": ["How many {colour} dots?"]})
    'count'
    >>> match_family("how many orange dots", {"count": ["How many {colour} dots?"]})
    """
    asked = _plain(question)
    for family, phrases in families.items():
        words = _words(family)
        for phrase in phrases:
            pattern = PLACEHOLDER.sub(
                lambda found, words=words: words.get(found[1], NO_WORD), re.escape(_plain(phrase))
            )
            if re.fullmatch(pattern, asked):
                return family
    return None


def play_turns(policy: Policy, episode: Episode, sampling: Sampling) -> Iterator[Turn]:
    """Let a policy act until the episode is over; yield each turn as it happens."""
    one = RunningEpisode.begin(episode)
    while not one.is_over:
        begun = time.monotonic()
        (reply,) = policy.reply([one.conversation], sampling=sampling)
        one.take(reply.timed(time.monotonic() - begun))
        yield episode.turns[-1]


def _words(family: str) -> dict[str, str]:
    """Return the pattern of each placeholder in a family's phrases, from the nano suite."""
    known = FAMILIES.get(family)
    if known is None or not known.colours:
        return {}
    return {"colour": "(?:" + "|".join(map(re.escape, known.colours)) + ")"}


def _plain(text: str) -> str:
    return " ".join(text.casefold().rstrip(" ?.!").split())
