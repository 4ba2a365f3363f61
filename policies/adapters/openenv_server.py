"""Our episodes as an OpenEnv environment, with the server for them (tested with 0.10.0).

An action is the policy's text; an observation holds the messages that it brings: the opening at
`reset`, then what the code returned, images as data URLs. The reward of an episode comes with its
last observation; an episode that our infrastructure lost ends with a reward of None::

    app = make_app(EpisodeHost(HostSettings(suite="nano")), sessions=64)  # for uvicorn

Importing this module does not load OpenEnv; the classes are created on first access.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

from ...envs.episode import Episode
from ...envs.episode_factory import EpisodeHost, episode_record
from ..inference.openai_client import openai_message

# Provided by __getattr__.
__all__ = ["CodeAction", "CodeObservation", "VisualCodeEnvironment", "make_app"]  # noqa: F822  # pyright: ignore[reportUnsupportedDunderAll]

_BASE = "openenv.core.env_server"
_PREVIEW = 16


def make_app(host: EpisodeHost, *, sessions: int = 64) -> Any:  # noqa: ANN401 - a FastAPI
    """Return OpenEnv's server of a host's episodes.

    Args:
        host: Host of the episodes; its sandbox is shared by all sessions.
        sessions: Maximum number of episodes at a time.
    """
    http: Any = import_module(f"{_BASE}.http_server")
    own = _classes()

    def environment() -> Any:  # noqa: ANN401 - OpenEnv's Environment
        return own["VisualCodeEnvironment"](host)

    return http.create_fastapi_app(
        environment,
        own["CodeAction"],
        own["CodeObservation"],
        max_concurrent_envs=sessions,
        env_name="codedance",
    )


class Session:
    """The episodes of one client, one after another, in terms of JSON values."""

    def __init__(self, host: EpisodeHost) -> None:
        self.host = host
        self.task_id: str | None = None
        self._episode: Episode | None = None

    def begin(self, task_id: str, *, seed: int) -> list[dict[str, Any]]:
        """Begin an episode, in place of a running one; return its opening messages."""
        self.close()
        self._episode = self.host.open(task_id, seed=seed)
        self.task_id = task_id
        return [openai_message(message) for message in self._episode.opening]

    def step(self, text: str, *, is_cut: bool) -> dict[str, Any]:
        """Execute a turn; return the fields of the observation.

        Raises:
            RuntimeError: No episode is running.
        """
        episode = self._episode
        if episode is None:
            raise RuntimeError("expected a running episode: call reset before step")
        (episode.cut if is_cut else episode.step)(text)
        if episode.ending is None:
            return {"messages": [openai_message(episode.messages[-1])], "reward": 0.0}
        self._episode = None
        trajectory = self.host.finish(episode, "openenv")
        terms = self.host.score(trajectory)
        reward = None if terms is None else sum(terms.values())
        return {"done": True, "reward": reward, "record": episode_record(trajectory, terms)}

    def task(self, split: str, index: int) -> dict[str, Any]:
        """Return the id, family and question of a task.

        Raises:
            IndexError: The host has another split.
        """
        if split != self.host.settings.split:
            raise IndexError(f"expected the split {self.host.settings.split!r}, got {split!r}")
        (task,) = self.host.tasks(1, start=index)
        return {"id": task.id, "index": index, "family": task.family, "text": task.question}

    def close(self) -> None:
        """End the running episode, if there is one."""
        episode, self._episode = self._episode, None
        if episode is not None:
            episode.close()


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a class, created on first access
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _classes()[name]


@cache
def _classes() -> dict[str, Any]:
    made = (*_message_classes(), _environment_class())
    return {one.__name__: one for one in made}


@cache
def _message_classes() -> tuple[Any, Any]:
    types: Any = import_module(f"{_BASE}.types")

    class CodeAction(types.Action):
        """The policy's text of one turn; ``is_cut`` if a token limit ended it."""

        text: str
        is_cut: bool = False

    class CodeObservation(types.Observation):
        """New messages, none at the end; then the episode's record (`episode_record`)."""

        messages: tuple[dict[str, Any], ...] = ()
        record: dict[str, Any] | None = None

    return CodeAction, CodeObservation


@cache
def _environment_class() -> Any:  # noqa: ANN401 - a subclass of OpenEnv's class
    types: Any = import_module(f"{_BASE}.types")
    interfaces: Any = import_module(f"{_BASE}.interfaces")
    _, observation = _message_classes()

    class VisualCodeEnvironment(interfaces.Environment):
        """The episodes of one client; the tasks are those of the host's suite."""

        SUPPORTS_CONCURRENT_SESSIONS = True

        def __init__(self, host: EpisodeHost) -> None:
            super().__init__()
            self.session = Session(host)
            self._state = types.State()

        def reset(
            self,
            seed: int = 0,
            episode_id: str | None = None,
            **options: Any,  # noqa: ANN401 - task_id, or index
        ) -> Any:  # noqa: ANN401 - OpenEnv's own, as below
            """Begin an episode of the task ``task_id``, or of the ``index``-th of the suite."""
            split, index = self.list_splits()[0], options.get("index", seed)
            task_id = options.get("task_id") or self.get_task(split, index)["id"]
            self._state = types.State(episode_id=episode_id, step_count=0, task_id=task_id)
            return observation(messages=self.session.begin(task_id, seed=seed))

        def step(self, action: Any, timeout_s: float | None = None, **_: Any) -> Any:  # noqa: ANN401
            """Execute the policy's text; the time limit is the sandbox's own."""
            self._state.step_count += 1
            return observation(**self.session.step(action.text, is_cut=action.is_cut))

        @property
        def state(self) -> Any:  # noqa: ANN401
            """The episode's id and task, and the number of its turns."""
            return self._state

        def close(self) -> None:
            """End the running episode."""
            self.session.close()

        def list_splits(self) -> list[str]:
            """Return the host's split: OpenEnv's routes of tasks read it, and the next three."""
            return [self.session.host.settings.split]

        def num_tasks(self, split: str) -> int:
            """Return the number of tasks."""
            return len(self.session.host.suite)

        def get_task(self, split: str, index: int) -> dict[str, Any]:
            """Return the id, family and question of a task."""
            return self.session.task(split, index)

        def list_tasks(self, split: str) -> list[dict[str, Any]]:
            """Return the first tasks: a preview, as OpenEnv allows for a large split."""
            return [self.get_task(split, index) for index in range(_PREVIEW)]

    return VisualCodeEnvironment
