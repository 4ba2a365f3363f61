"""A Stable-Baselines3 callback that draws the learning curve in MLflow.

Importing this module needs the extras ``sb3`` and ``ops``; no other module imports it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import mlflow
import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from ...config.home import find_home, prepare_environment
from .database import make_database

EXPERIMENT = "codedance-sb3"
_WINDOW = 200


class MLflowCurve(BaseCallback):
    """Logs the metrics of each rollout and, at the end, the curve as an image.

    Metrics: ``rewards/mean`` (total reward of an episode), ``rewards/<term>/mean``, ``accuracy``,
    ``episode_length``: means over the newest episodes, by environment steps. Episodes lost to
    infrastructure failures are left out. The environments have to be wrapped in SB3's
    ``Monitor``, as its algorithms and ``make_vec_env`` do by themselves.

    Args:
        run_name: Name of the MLflow run.
        parameters: Parameters to log with the run.
        window: Number of episodes that a mean is taken over.
        rise: Increase of the mean reward over the first rollout's at which learning stops; None
            to take every step.
    """

    def __init__(
        self,
        run_name: str = "ppo",
        *,
        parameters: Mapping[str, Any] | None = None,
        window: int = _WINDOW,
        rise: float | None = None,
    ) -> None:
        super().__init__()
        self._run_name = run_name
        self._parameters = dict(parameters or {})
        self._rise = rise
        self._episodes: deque[dict[str, float]] = deque(maxlen=window)
        self._terms: dict[int, dict[str, float]] = {}
        self.points: list[tuple[int, float, float]] = []
        """Environment steps, mean reward and accuracy after each rollout."""
        self.run_id = ""

    def _on_training_start(self) -> None:
        home = find_home()
        prepare_environment(home)
        make_database(home.mlflow_uri)
        mlflow.set_tracking_uri(home.mlflow_uri)
        if mlflow.get_experiment_by_name(EXPERIMENT) is None:
            mlflow.create_experiment(EXPERIMENT, artifact_location=home.mlflow_artifacts.as_uri())
        mlflow.set_experiment(EXPERIMENT)
        self.run_id = mlflow.start_run(run_name=self._run_name).info.run_id
        mlflow.log_params({"algorithm": type(self.model).__name__, **self._parameters})

    def _on_step(self) -> bool:
        for place, (info, done) in enumerate(
            zip(self.locals["infos"], self.locals["dones"], strict=True)
        ):
            terms = self._terms.setdefault(place, {})
            for name, value in info["reward_terms"].items():
                terms[name] = terms.get(name, 0.0) + value
            if done:
                self._count(self._terms.pop(place), info)
        return not self._has_risen()

    def _on_rollout_end(self) -> None:
        if not self._episodes:
            return
        names = self._episodes[0]
        means = {name: float(np.mean([one[name] for one in self._episodes])) for name in names}
        mlflow.log_metrics(means, step=self.num_timesteps)
        self.points.append((self.num_timesteps, means["rewards/mean"], means["accuracy"]))

    def _on_training_end(self) -> None:
        if self.points:
            mlflow.log_figure(self._drawn(), "learning_curve.png")
        mlflow.end_run()

    def _has_risen(self) -> bool:
        if self._rise is None or not self.points:
            return False
        return self.points[-1][1] - self.points[0][1] >= self._rise

    def _count(self, terms: Mapping[str, float], info: Mapping[str, Any]) -> None:
        if not info["is_valid"]:
            return
        of_terms = {f"rewards/{name}/mean": value for name, value in terms.items()}
        self._episodes.append(
            {
                "rewards/mean": sum(terms.values()),
                "accuracy": float(info["is_success"]),
                "episode_length": float(info["turn"]),
                **of_terms,
            }
        )

    def _drawn(self) -> Any:  # noqa: ANN401 - a matplotlib figure
        from matplotlib.figure import Figure

        steps, rewards, accuracies = zip(*self.points, strict=True)
        figure = Figure(figsize=(7, 4))
        axes = figure.subplots()
        axes.plot(steps, rewards, label="reward of an episode")
        axes.plot(steps, accuracies, label="accuracy")
        axes.set_xlabel("environment steps")
        axes.set_title(f"{self._run_name}: means over the newest episodes")
        axes.grid(visible=True, alpha=0.3)
        axes.legend()
        return figure
