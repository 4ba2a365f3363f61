"""The alarms of a training in TRL's trainers, and in others that are built on transformers'."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .watching import AlarmWatch


class AlarmCallback(TrainerCallback):
    """Watches what a trainer logs: ``GRPOTrainer(…, callbacks=[AlarmCallback()])``.

    A step of `AlarmConfig.window` is a log, of ``logging_steps`` updates. A run that is resumed
    goes on from the logs in its checkpoint. Of several processes, the first one watches.

    Args:
        watch: The alarms; None for the default thresholds, logged as warnings.
        stop_at: Names of alarms that end the training, such as ``tool_calls``.
    """

    def __init__(self, watch: AlarmWatch | None = None, *, stop_at: Collection[str] = ()) -> None:
        self.watch = AlarmWatch() if watch is None else watch
        self._stop_at = frozenset(stop_at)

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,  # noqa: ANN401 - the trainer's objects
    ) -> None:
        """Process the logs of a run that is resumed, without reporting their alarms."""
        for line in state.log_history:
            self.watch.replay(int(line.get("step", 0)), line)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,  # noqa: ANN401 - the trainer's objects
    ) -> None:
        """Process the metrics of a log."""
        if not state.is_world_process_zero or not logs:
            return
        found = self.watch.observe(state.global_step, logs)
        if self._stop_at & {alarm.name for alarm in found}:
            control.should_training_stop = True
