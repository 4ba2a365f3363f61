"""Our own engine in a thread, with weights of its own: it replies while the trained ones change.

New weights are taken over between replies: none begins from then on, those in generation are
finished with the old ones, and all keys and values are discarded.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Generator, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from ....inference.partial_replies import ask_each
from ....inference.reply_stream import VisionLanguageStream
from ....inference.vlm import VisionLanguagePolicy
from ....interface import Conversation, Reply, Sampling
from ....models.model_folder import ModelNotes
from ....models.trained_setting import TrainedSetting
from ...trained_model import TrainedModel

_ENDED = "the engine that replies while weights are updated has ended"
_ROUND = 8  # tokens drawn per reply between two points at which others can join


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """A reply that was asked for."""

    conversation: Conversation
    reply: Future[Reply] = field(default_factory=Future[Reply])


class BackgroundEngine(TrainedSetting):
    """Generates replies in a thread, with a copy of a trained model.

    Args:
        trained: Model in training, whose weights are not sharded.
        notes: Setting that it was trained in.
        slots: Limit of replies in generation.
    """

    def __init__(self, trained: TrainedModel, *, notes: ModelNotes, slots: int) -> None:
        super().__init__("grpo", notes)
        self._trained = trained
        self._copy = trained.whole_copy()
        self._copy.model.model.to(trained.model.device)
        self._slots = slots
        self._version = ""
        self._stream: VisionLanguageStream | None = None
        self._change = threading.Condition()
        self._waiting: deque[_Asked] = deque()
        self._writing: dict[int, _Asked] = {}
        self._is_paused = False
        self._is_running = False
        self._is_closed = False

    def follow(self, step: int) -> None:
        """Take over the trained weights, as soon as the replies in generation are finished."""
        with self._paused():
            self._trained.copy_to(self._copy)
            self._version = f"step-{step}"
            if self._stream is not None:
                self._stream.change_weights(self._version)

    def reply(self, conversations: Sequence[Conversation], *, sampling: Sampling) -> list[Reply]:
        """Generate the next turn of each conversation; append its ids to `Conversation.tokens`."""
        return ask_each(self, conversations, sampling)

    @asynccontextmanager
    async def connect(self, *, sampling: Sampling) -> AsyncGenerator[_Replies]:
        """Run the engine while the context lasts, once at a time."""
        self._is_closed, self._is_running = False, True
        thread = threading.Thread(target=self._run, args=(sampling,), name="stream-engine")
        thread.start()
        try:
            yield _Replies(self)
        finally:
            with self._change:
                self._is_closed = True
                self._change.notify_all()
            await asyncio.to_thread(thread.join)

    def ask(self, conversation: Conversation) -> Future[Reply]:
        """Ask for the next turn of a conversation."""
        asked = _Asked(conversation)
        with self._change:
            if self._is_running:
                self._waiting.append(asked)
                self._change.notify_all()
            else:
                asked.reply.set_exception(RuntimeError(_ENDED))
        return asked.reply

    def forget(self, conversation: Conversation) -> None:
        """Discard the keys and values of a conversation that is over."""
        if self._stream is not None:
            self._stream.forget(conversation)

    @contextmanager
    def _paused(self) -> Generator[None]:
        """Let no reply begin while the context lasts; it is entered when none is in generation."""
        with self._change:
            self._is_paused = True
            self._change.wait_for(lambda: not self._writing)
            try:
                yield
            finally:
                self._is_paused = False
                self._change.notify_all()

    def _run(self, sampling: Sampling) -> None:
        """Generate until the connection is closed; an error ends every reply that is due."""
        policy = VisionLanguagePolicy(self._copy.model, policy_id=self.id, notes=self.notes)
        try:
            with policy.stream(sampling=sampling, slots=self._slots) as stream:
                stream.change_weights(self._version)
                self._stream = stream
                while self._join(stream):
                    self._write(stream)
        except Exception as error:  # noqa: BLE001 - raised by each reply that is due
            self._end(error)
        finally:
            self._stream = None
            self._end(RuntimeError(_ENDED))

    def _join(self, stream: VisionLanguageStream) -> bool:
        """Wait until there is something to do; return whether there is."""
        with self._change:
            self._change.wait_for(
                lambda: self._is_closed or self._writing or (self._waiting and not self._is_paused)
            )
            joining: list[_Asked] = []
            while self._waiting and not self._is_paused and len(joining) < stream.free:
                asked = self._waiting.popleft()
                if asked.reply.set_running_or_notify_cancel():
                    joining.append(asked)
            self._writing |= {id(one.conversation): one for one in joining}
            is_closed = self._is_closed
        if not is_closed:
            stream.join([one.conversation for one in joining])
        return not is_closed

    def _write(self, stream: VisionLanguageStream) -> None:
        """Draw a round of tokens; hand finished replies out."""
        for _ in range(_ROUND):
            for conversation, reply in stream.advance():
                with self._change:
                    asked = self._writing.pop(id(conversation))
                    self._change.notify_all()
                asked.reply.set_result(reply)
            if not self._writing:
                break

    def _end(self, error: Exception) -> None:
        """End all replies that are due by an error."""
        with self._change:
            self._is_running = False
            due = [*self._writing.values(), *self._waiting]
            self._writing.clear()
            self._waiting.clear()
            self._change.notify_all()
        for one in due:
            if not one.reply.done():
                one.reply.set_exception(error)


@dataclass(frozen=True, slots=True)
class _Replies:
    """Replies of an engine, each by itself."""

    engine: BackgroundEngine

    async def reply(self, conversation: Conversation) -> Reply:
        """Return the next turn of a conversation; see `ReplySource`."""
        return await asyncio.wrap_future(self.engine.ask(conversation))

    def forget(self, conversation: Conversation) -> None:
        """Discard the keys and values of a conversation that is over."""
        self.engine.forget(conversation)
