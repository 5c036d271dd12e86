"""An export on disk: its versions, and one of them loaded to be asked. Nothing but the SavedModel is read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401 (registers the operations of the tokenizer)

from tf_bert.errors import InputError, UsageError

DEFAULT = "serving_default"
SAVED_MODEL = "saved_model.pb"

Inputs = Mapping[str, Sequence[Any] | np.ndarray]


class Exported:
    """One version of an export.

    Args:
      directory: of the version.

    Raises:
      InputError: if it cannot be loaded.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        try:
            self._loaded = tf.saved_model.load(str(directory))  # which owns what the signatures need
        except Exception as error:  # of many kinds, for what TensorFlow finds in a damaged directory
            raise InputError(f"{directory}: cannot be loaded: {_first_line(error)}; export the model again") from error
        self.signatures: Mapping[str, Any] = dict(self._loaded.signatures)
        """Concrete functions of named tensors, by the name of the signature."""

    @property
    def version(self) -> int:
        """Its number, also while it is being written."""
        return int(self.directory.name.partition(".")[0])

    def inputs(self, signature: str = DEFAULT) -> dict[str, tf.TensorSpec]:
        """What a signature takes, by name; the first axis is the batch.

        Raises:
          UsageError: if there is no such signature.
        """
        if signature not in self.signatures:
            raise UsageError(f"signature: found {signature!r}, expected one of {', '.join(sorted(self.signatures))}")
        specs: dict[str, tf.TensorSpec] = self.signatures[signature].structured_input_signature[1]
        return specs

    def __call__(self, inputs: Inputs, signature: str = DEFAULT) -> dict[str, np.ndarray]:
        """Answers to a batch.

        Args:
          inputs: lists or arrays by name, all of the same length.
          signature: whose inputs they are.

        Returns:
          Arrays [batch, ...] by name; strings are bytes.

        Raises:
          UsageError: if there is no such signature, or it has other inputs.
        """
        specs = self.inputs(signature)
        if set(inputs) != set(specs):
            raise UsageError(f"{signature}: found the inputs {_names(inputs)}, expected {_names(specs)}")
        tensors = {name: tf.constant(value, specs[name].dtype) for name, value in inputs.items()}
        return {name: value.numpy() for name, value in self.signatures[signature](**tensors).items()}


def load_export(directory: str | Path) -> Exported:
    """The newest version of an export, or one version whose own directory is named.

    Raises:
      InputError: if there is none, or it cannot be loaded.
    """
    directory = Path(directory)
    if (directory / SAVED_MODEL).exists():
        return Exported(directory.resolve())
    found = versions(directory)
    if not found:
        what = "holds no version of an export" if directory.is_dir() else "no such directory"
        raise InputError(f"{directory}: {what}; expected a directory that `tf-bert export` has written")
    return Exported(directory / str(found[-1]))


def versions(directory: Path) -> list[int]:
    """The numbers of an export's versions that are complete, the newest last; none if there is no such directory."""
    found = directory.iterdir() if directory.is_dir() else ()
    return sorted(int(path.name) for path in found if path.name.isdecimal() and (path / SAVED_MODEL).exists())


def _names(names: Mapping[str, Any]) -> str:
    return ", ".join(sorted(names)) or "(none)"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
