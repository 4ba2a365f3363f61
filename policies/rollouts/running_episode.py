"""A running episode and the policy's view of it."""

from __future__ import annotations

from dataclasses import dataclass

from ...envs.episode import Episode
from ...envs.types import Trajectory
from ..interface import Conversation, Policy, PolicyUnavailableError, Reply


@dataclass(frozen=True, slots=True, eq=False)
class RunningEpisode:
    """An episode and the policy's conversation in it."""

    episode: Episode
    conversation: Conversation

    @classmethod
    def begin(cls, episode: Episode) -> RunningEpisode:
        """Start the policy's conversation in an episode, at its current turn."""
        conversation = Conversation(
            messages=episode.messages,  # the same list: the policy reads the episode's messages
            seed=episode.seed,
            interface=episode.interface,
            turn=len(episode.turns),
        )
        return cls(episode, conversation)

    def take(self, reply: Reply | PolicyUnavailableError) -> None:
        """Apply a reply, or end the episode where the model was unavailable."""
        self.conversation.turn += 1
        if isinstance(reply, PolicyUnavailableError):
            self.episode.fail(reply)
            return
        if reply.is_cut:
            self.episode.cut(reply.text)
        else:
            self.episode.step(reply.text)
        self.episode.note_generation(reply.seconds)

    @property
    def is_over(self) -> bool:
        """Whether the episode has ended."""
        return self.episode.ending is not None

    def trajectory(self, policy: Policy) -> Trajectory:
        """Return the finished episode with the policy's exact tokens."""
        return self.episode.trajectory(policy.id, self.conversation.tokens)
