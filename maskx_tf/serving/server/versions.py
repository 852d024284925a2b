"""The versions of a model on disk, loaded as they come and dropped as they go, while requests are answered."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from maskx_tf.errors import BadInput
from maskx_tf.protocol import messages
from maskx_tf.protocol.tensors import from_proto
from maskx_tf.serving.status import NOT_FOUND, UNAVAILABLE, ServingError

WARM_UP = Path("assets.extra") / "tf_serving_warmup_requests"
SAVED_MODEL = "saved_model.pb"
log = logging.getLogger("maskx.serving")


class Version:
    """One SavedModel in memory.

    Args:
        number: of the version.
        path: its folder.
    """

    def __init__(self, number: int, path: Path) -> None:
        self.number = number
        self._root = tf.saved_model.load(str(path))
        self._signatures = dict(self._root.signatures)
        self.inputs: dict[str, dict[str, tf.TensorSpec]] = {}
        self.outputs: dict[str, dict[str, tf.TensorSpec]] = {}
        for name, function in self._signatures.items():
            self.inputs[name] = dict(function.structured_input_signature[1])
            self.outputs[name] = dict(function.structured_outputs)
        self.labels = _read_labels(path)
        self.users = 0
        self._warm_up(path / WARM_UP)

    def run(self, signature: str, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The outputs of a signature."""
        tensors = {name: tf.constant(value) for name, value in inputs.items()}
        return {name: np.asarray(value.numpy()) for name, value in self._signatures[signature](**tensors).items()}

    def _warm_up(self, path: Path) -> None:
        if not path.exists():
            return
        for record in tf.data.TFRecordDataset(str(path)):
            request = messages.PredictionLog.FromString(record.numpy()).predict_log.request
            inputs = {name: from_proto(message) for name, message in request.inputs.items()}
            self.run(request.model_spec.signature_name, inputs)


class Versions:
    """The newest versions of one model, at least one of them loaded at any time after the first.

    Args:
        base: folder of the versions.
        name: of the model.
        keep: how many versions, the newest ones, are served.
    """

    def __init__(self, base: Path, name: str, keep: int) -> None:
        self.base, self.name, self.keep = base, name, keep
        self._lock = threading.Condition()
        self._loaded: dict[int, Version] = {}
        self._states: dict[int, tuple[int, str]] = {}  # and what is wrong
        self._failed: dict[int, int] = {}  # when the folder was changed that could not be loaded
        self._stop = threading.Event()
        self._watcher: threading.Thread | None = None

    def check(self) -> None:
        """Loads what is new and then drops what is old; call it from one thread at a time."""
        on_disk = find_versions(self.base)
        wanted = sorted(on_disk)[-self.keep :]
        for number in sorted(wanted, reverse=True):
            if number not in self._loaded and self._failed.get(number) != on_disk[number].stat().st_mtime_ns:
                self._load(number, on_disk[number])
        with self._lock:
            # The newest that could be loaded: one that cannot takes no other's place.
            good = sorted(number for number in self._loaded if number in on_disk)[-self.keep :]
            old = [self._loaded.pop(number) for number in sorted(self._loaded) if good and number not in good]
        for version in old:
            self._unload(version)

    def watch(self, seconds: float) -> None:
        """Checks again and again in a thread of its own, until `close`."""

        def loop() -> None:
            while not self._stop.wait(seconds):
                try:
                    self.check()
                except Exception:  # the next check may find the disk in a better state
                    log.exception("%s: the versions could not be checked", self.base)

        self._watcher = threading.Thread(target=loop, name="versions", daemon=True)
        self._watcher.start()

    def close(self) -> None:
        """Stops watching."""
        self._stop.set()
        if self._watcher is not None:
            self._watcher.join()

    @contextmanager
    def using(self, name: str, number: int | None) -> Iterator[Version]:
        """A version that stays while it is used: the one of this number, or the newest.

        Raises:
            ServingError: there is none.
        """
        with self._lock:
            if name not in ("", self.name):
                raise ServingError(NOT_FOUND, f"no model of the name {name!r}, expected {self.name!r}")
            if number is not None and number not in self._loaded:
                raise ServingError(NOT_FOUND, f"no version {number} of {self.name!r}, expected {self._numbers()}")
            if not self._loaded:
                raise ServingError(UNAVAILABLE, f"no version of {self.name!r} is loaded yet")
            version = self._loaded[max(self._loaded) if number is None else number]
            version.users += 1
        try:
            yield version
        finally:
            with self._lock:
                version.users -= 1
                self._lock.notify_all()

    def states(self) -> dict[int, tuple[int, str]]:
        """The versions that were ever looked at: state and what is wrong with them."""
        with self._lock:
            return dict(self._states)

    def _numbers(self) -> str:
        return ", ".join(map(str, sorted(self._loaded))) or "none yet"

    def _load(self, number: int, path: Path) -> None:
        changed = path.stat().st_mtime_ns
        self._set(number, messages.LOADING)
        try:
            version = Version(number, path)
        except Exception as error:  # whatever is wrong with the files, the versions that stand go on
            log.exception("%s: cannot be loaded", path)
            self._failed[number] = changed
            self._set(number, messages.END, f"{type(error).__name__}: {str(error).splitlines()[0]}")
            return
        with self._lock:
            self._loaded[number] = version
        self._set(number, messages.AVAILABLE)
        log.info("%s: version %d is served", self.name, number)

    def _unload(self, version: Version) -> None:
        self._set(version.number, messages.UNLOADING)
        with self._lock:
            self._lock.wait_for(lambda: version.users == 0)
        self._set(version.number, messages.END)
        log.info("%s: version %d is served no longer", self.name, version.number)

    def _set(self, number: int, state: int, problem: str = "") -> None:
        with self._lock:
            self._states[number] = (state, problem)


def find_versions(base: Path) -> dict[int, Path]:
    """The versions in a folder: whole SavedModels in folders with numbers for names."""
    if not base.is_dir():
        return {}
    return {
        int(entry.name): entry
        for entry in base.iterdir()
        if entry.name.isdecimal() and entry.name.isascii() and (entry / SAVED_MODEL).is_file()
    }


def require_versions(base: Path) -> None:
    """Objects to a folder that holds no version.

    Raises:
        BadInput: with what was expected.
    """
    if not base.is_dir():
        raise BadInput(f"{base}: expected a folder of versions, as maskx export saved-model writes it")
    if (base / SAVED_MODEL).exists():
        raise BadInput(f"{base}: is one version, expected the folder that holds it: {base.resolve().parent}")
    if not find_versions(base):
        raise BadInput(f"{base}: expected versions such as {base / '1' / SAVED_MODEL}, found none")


def _read_labels(path: Path) -> list[dict[str, Any]]:
    file = path / "assets" / "labels.json"
    if not file.exists():  # a SavedModel of another origin
        return []
    labels: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    return labels
