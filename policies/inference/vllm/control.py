"""Control routes of vLLM: new weights from a folder, and the version that they are known by.

The routes exist where the server was started with ``VLLM_SERVER_DEV_MODE=1``. The order matters:
loading alone would leave the prefix cache, whose hits compute with old keys and values, and the
scheduler's picture cache, whose next hit kills the engine (seen with vLLM 0.32).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ...interface import PolicyUnavailableError
from ..server_words import checked_key, checked_url, short, without_credentials, words_of

if TYPE_CHECKING:
    import httpx

PauseMode = Literal["wait", "keep", "abort"]
"""What becomes of replies in generation: finished first, continued with the new weights, ended."""
MemoryPart = Literal["weights", "kv_cache"]
"""What a sleeping server takes its memory back for."""
LOADER = "codedance_worker.WeightLoader"
"""Extension of the worker that `codedance serve engine` starts vLLM with."""
_SWITCH_SECONDS = 300.0
"""Longest time to fall asleep or to wake up: weights are copied to main memory or back."""


class ControlError(PolicyUnavailableError):
    """A server did not do what it was told; the message names it, and says what to change.

    Attributes:
        is_away: Whether the server gave no answer at all.
        is_gone: Whether nothing listens at its address: it is dead, and holds no memory.
    """

    def __init__(self, message: str, *, is_away: bool = False, is_gone: bool = False) -> None:
        super().__init__(message)
        self.is_away = is_away
        self.is_gone = is_gone


class EngineControl:
    """Controls one server.

    Args:
        url: Base URL; a final ``/v1`` is ignored.
        api_key: API key; empty where the server needs none.
        timeout_seconds: Longest time per step, such as reading all weights.
    """

    def __init__(self, url: str, *, api_key: str = "", timeout_seconds: float = 1800.0) -> None:
        self._url = checked_url(url).removesuffix("/v1").rstrip("/")
        self._key = checked_key(api_key)
        self._timeout = timeout_seconds

    def version(self) -> str:
        """Return the version of the weights that the server names.

        Raises:
            ControlError: The server is unreachable, or has no control routes.
        """
        return str(self._read("/weight_info", "weight_version"))

    def load_weights(
        self, folder: Path, version: str, *, mode: PauseMode = "wait", wakes: bool = False
    ) -> None:
        """Load the weights of a folder; the server stays paused if that fails.

        Args:
            folder: Model folder of the same architecture, readable for the server.
            version: Name of the weights, which is reported with each token from then on.
            mode: What becomes of replies in generation.
            wakes: Whether the server may be asleep, and wakes up: it takes memory for the weights
                first, and for keys and values when they are loaded.

        Raises:
            ControlError: The server is unreachable, has no control routes, does not wake up, or
                could not load it.
        """
        if wakes:
            self.wake_up("weights")
        self.pause(mode)
        self._load(folder)
        self.reset_caches()
        self._call("POST", "/update_weight_version", json={"new_version": version})
        if wakes:
            self.wake_up("kv_cache")
        self.resume()

    def pause(self, mode: PauseMode) -> None:
        """Take no new requests; the server answers them with 503."""
        self._call("POST", "/pause", params={"mode": mode})

    def resume(self) -> None:
        """Take requests again."""
        self._call("POST", "/resume")

    def reset_caches(self) -> None:
        """Empty the caches of prefixes, of processed images and of image features."""
        for cache in ("prefix", "mm", "encoder"):
            running = {"reset_running_requests": "true"} if cache == "prefix" else {}
            self._call("POST", f"/reset_{cache}_cache", params=running)

    def world_size(self) -> int:
        """Return the number of the server's workers."""
        return int(str(self._read("/get_world_size", "world_size")))

    def call(self, path: str, body: Mapping[str, object] | None = None) -> None:
        """Call another control route."""
        self._call("POST", path, json=body or {})

    def load_adapters(
        self, folder: Path, name: str, *, instead_of: str = "", wakes: bool = False
    ) -> None:
        """Load adapters (LoRA) under a name of their own, which requests give as their model.

        A new name for each version keeps the prefix caches of versions apart.

        Args:
            folder: Folder of the adapters, readable for the server.
            name: Name of the adapters; already loaded ones stay as they are.
            instead_of: Name of adapters to unload; empty for none.
            wakes: Whether the server may be asleep, and wakes up, as in `load_weights`.

        Raises:
            ControlError: The server is unreachable, does not wake up, or was started without
                adapters.
        """
        if wakes:
            self.wake_up("weights")
        try:
            self._call(
                "POST",
                "/v1/load_lora_adapter",
                json={"lora_name": name, "lora_path": str(folder)},
            )
        except ControlError as error:
            if "already been loaded" not in str(error):
                raise
        if instead_of and instead_of != name:
            with contextlib.suppress(ControlError):  # a server that was away does not have them
                self.unload_adapters(instead_of)
        if wakes:
            self.wake_up("kv_cache")

    def unload_adapters(self, name: str) -> None:
        """Unload adapters.

        Raises:
            ControlError: The server is unreachable, or has none of that name.
        """
        self._call("POST", "/v1/unload_lora_adapter", json={"lora_name": name})

    def check_sleep(self) -> None:
        """Refuse a server that releases nothing when it sleeps.

        Raises:
            ControlError: The server is unreachable, or was started without sleep mode.
        """
        config = self._config()
        model, device = (config.get(one) or {} for one in ("model_config", "device_config"))
        if not model.get("enable_sleep_mode") and "cpu" not in str(device):
            raise ControlError(
                f"{without_credentials(self._url)} cannot sleep, and would hold the memory that "
                "training needs: start it by `codedance serve engine MODEL --colocated`"
            )

    def sleep(self) -> None:
        """Release the memory of the GPU; the weights stay in main memory, the caches are emptied.

        Replies in generation are ended, and requests that come from now on wait until it wakes up.
        vLLM's level 2, which drops the weights, is not used: adapters would be lost, and a server
        whose weights could not be loaded again would answer with arbitrary ones.

        Raises:
            ControlError: The server is unreachable, or holds its memory still.
        """
        self._switch("/sleep", {"level": "1", "mode": "abort"})

    def wake_up(self, *parts: MemoryPart) -> None:
        """Take memory of the GPU again; no effect on a server that is awake.

        Args:
            parts: What to take memory for; without any, for everything.

        Raises:
            ControlError: The server is unreachable, or finds too little memory.
        """
        self._switch("/wake_up", {"tags": list(parts)} if parts else {})

    def is_asleep(self) -> bool:
        """Return whether the server has released its memory, or is paused."""
        return bool(self._read("/is_sleeping", "is_sleeping"))

    def _switch(self, path: str, params: Mapping[str, str | list[str]]) -> None:
        try:
            self._call("POST", path, params=params, timeout=min(self._timeout, _SWITCH_SECONDS))
        except ControlError as error:
            if error.is_away:
                raise
            raise ControlError(
                f"{error} (its log says why; where the GPU has too little memory, set a smaller "
                "rollout.memory_share, which `codedance plan MODEL --gpus 1 --colocated` prints)"
            ) from error

    def _read(self, path: str, name: str) -> object:
        """Return a value that the server reports."""
        try:
            return self._call("GET", path).json()[name]
        except (ValueError, LookupError, TypeError) as error:
            url = without_credentials(self._url)
            raise ControlError(f"{url}{path} reports no {name}: is it vLLM?") from error

    def _load(self, folder: Path) -> None:
        where = {"weights_path": str(folder)}
        method = "load_folder" if self._has_loader() else "reload_weights"
        self._call("POST", "/collective_rpc", json={"method": method, "kwargs": where})

    def _has_loader(self) -> bool:
        """Return whether the server was started with our extension of its worker."""
        parallel = self._config().get("parallel_config") or {}
        return parallel.get("worker_extension_cls") == LOADER

    def _config(self) -> Mapping[str, Any]:
        """Return the configuration that the server was started with."""
        answer = self._call("GET", "/server_info", params={"config_format": "json"}).json()
        found = answer.get("vllm_config") if isinstance(answer, dict) else None
        return found if isinstance(found, dict) else {}

    def _call(self, method: str, path: str, **content: Any) -> httpx.Response:  # noqa: ANN401 - httpx's arguments
        import httpx

        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        url = without_credentials(self._url)
        # Reading the certificates takes longer than most calls, and a plain address needs none.
        content = {"timeout": self._timeout, "verify": self._url.startswith("https")} | content
        try:
            response = httpx.request(method, self._url + path, headers=headers, **content)
        except httpx.HTTPError as error:
            said = f"{type(error).__name__}: {short(str(error))}"
            is_gone = isinstance(error, httpx.ConnectError)
            raise ControlError(
                f"{url}{path} gave no answer ({said})", is_away=True, is_gone=is_gone
            ) from error
        if response.status_code in (403, 404, 405):
            with_adapters = " --lora-rank R" if "lora" in path else ""
            raise ControlError(
                f"{url} has no {path} ({words_of(response, self._key)}): start it by `codedance "
                f"serve engine MODEL{with_adapters}`; where it serves beyond its own machine, with "
                "--remote-control"
            )
        if not response.is_success:
            raise ControlError(f"{url}{path}: {words_of(response, self._key)}")
        return response


def on_each(
    urls: Sequence[str], tell: Callable[[EngineControl], None], *, api_key: str = ""
) -> list[str]:
    """Tell all servers at once to do something.

    Args:
        urls: Base URLs of the servers.
        tell: Called with each server's control, in a thread.
        api_key: API key of the servers.

    Returns:
        URLs of the servers that did it; the others were away.

    Raises:
        ControlError: A server that answered did not do it, or all are away.
    """
    from concurrent.futures import ThreadPoolExecutor

    def try_one(url: str) -> ControlError | None:
        try:
            tell(EngineControl(url, api_key=api_key))
        except ControlError as error:
            if not error.is_away:
                raise
            return error
        return None

    with ThreadPoolExecutor(max(len(urls), 1), thread_name_prefix="control") as pool:
        away = list(pool.map(try_one, urls))
    done = [url for url, error in zip(urls, away, strict=True) if error is None]
    if not done and away[0] is not None:
        raise away[0]
    return done
