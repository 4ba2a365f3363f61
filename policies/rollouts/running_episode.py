"""An episode under way and what the policy sees of it."""

from __future__ import annotations

from dataclasses import dataclass

from ...envs.episode import Episode
from ...envs.types import Trajectory
from ..interface import Conversation, Policy, PolicyUnavailableError, Reply


@dataclass(frozen=True, slots=True, eq=False)
class RunningEpisode:
    """The two sides of one episode."""

    episode: Episode
    conversation: Conversation

    @classmethod
    def begin(cls, episode: Episode) -> RunningEpisode:
        """Return the policy's side of an episode, wherever it stands."""
        conversation = Conversation(
            messages=episode.messages,  # the same list: what the episode says, the policy reads
            seed=episode.seed,
            interface=episode.interface,
            turn=len(episode.turns),
        )
        return cls(episode, conversation)

    def take(self, reply: Reply | PolicyUnavailableError) -> None:
        """Run what a reply says, or end the episode where the model could not be asked."""
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
        """Whether the episode has come to its ending."""
        return self.episode.ending is not None

    def trajectory(self, policy: Policy) -> Trajectory:
        """Return the finished episode with the policy's exact tokens."""
        return self.episode.trajectory(policy.id, self.conversation.tokens)
