"""A few steps under TensorFlow's profiler, for TensorBoard's profile page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf


class ProfileSteps(keras.callbacks.Callback):
    """Writes the operations of some updates, with their times, into a TensorBoard directory.

    Args:
      directory: of the run's TensorBoard files; `plugins/profile/TIME/HOST.xplane.pb` is written there.
      steps: first and last update to profile, counted over the whole run from 1.
      first_step: updates that earlier processes of this run have done.
    """

    def __init__(self, directory: Path, steps: tuple[int, int], first_step: int) -> None:
        super().__init__()
        self._directory = directory
        self._first, self._last = steps
        self._step = first_step  # the update that is under way, or the last one
        self._is_running = False
        self._trace: Any = None  # of the update that is under way; TensorBoard divides the profile into steps by it

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._step += 1
        if not self._first <= self._step <= self._last:
            return
        if not self._is_running:
            tf.profiler.experimental.start(str(self._directory))
            self._is_running = True
        self._trace = tf.profiler.experimental.Trace("train", step_num=self._step, _r=1)
        self._trace.__enter__()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        if self._is_running:
            self._trace.__exit__(None, None, None)
        if self._step == self._last:
            self._stop()

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._is_running:
            tf.profiler.experimental.stop()
            self._is_running = False
