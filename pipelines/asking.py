"""What ``codedance ask`` needs to know: which questions a model was taught, and how it acts."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence

from ..envs.episode import Episode
from ..envs.types import Turn
from ..policies.interface import Policy, Sampling
from ..policies.running_episode import RunningEpisode

PLACEHOLDER = re.compile(r"\\\{\w+\\\}")
FILLER = r"[\\w-]{1,40}"  # bounded: placeholders side by side would try every way to share a word


def match_family(question: str, families: Mapping[str, Sequence[str]]) -> str | None:
    """Give the family whose phrasing a question is; None when it is none's.

    A phrase may hold placeholders: ``How many {colour} dots are there?``

    >>> match_family("how many red dots", {"count": ["How many {colour} dots?"]})
    'count'
    """
    asked = _plain(question)
    for family, phrases in families.items():
        for phrase in phrases:
            pattern = PLACEHOLDER.sub(FILLER, re.escape(_plain(phrase)))
            if re.fullmatch(pattern, asked):
                return family
    return None


def play_turns(policy: Policy, episode: Episode, sampling: Sampling) -> Iterator[Turn]:
    """Let a policy act until the episode is over; give each turn as it happens."""
    one = RunningEpisode.begin(episode)
    while not one.is_over:
        begun = time.monotonic()
        (reply,) = policy.reply([one.conversation], sampling=sampling)
        one.take(reply.timed(time.monotonic() - begun))
        yield episode.turns[-1]


def _plain(text: str) -> str:
    return " ".join(text.casefold().rstrip(" ?.!").split())
