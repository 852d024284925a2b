"""Loads the versions of a model as they appear on disk, and drops those that disappear, while requests are answered."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from maskx_tf.checkpoints.folder import GRAPH
from maskx_tf.errors import BadInput
from maskx_tf.protocol import messages
from maskx_tf.protocol.tensors import from_proto
from maskx_tf.serving.status import NOT_FOUND, UNAVAILABLE, ServingError, quoted

SETTLED = 2.0
UNSEEN = "a file in it has just gone, or may not be looked at"
log = logging.getLogger("maskx.serving")


class Version:
    """One SavedModel in memory.

    Args:
        number: the number of the version.
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
        self.labels = _read_list(path, "labels.json")
        self.skeleton = _read_list(path, "skeleton.json")
        self.users = 0
        self._warm_up(path / messages.WARM_UP_FILE)

    def run(self, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
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


class Snapshot(NamedTuple):
    """The contents of a folder at one moment.

    Attributes:
        files: names, sizes and times of all files and folders in it.
        changed: when one of them was written or moved last, in seconds since 1970.
    """

    files: frozenset[tuple[str, int, int]]
    changed: float


class Versions:
    """The newest versions of one model, at least one of them loaded at any time after the first.

    Args:
        base: folder of the versions.
        name: the name of the model.
        keep: how many versions, the newest ones, are served.
        settled: a version is complete when nothing in its folder changed for so many seconds.
    """

    def __init__(self, base: Path, name: str, keep: int, settled: float = SETTLED) -> None:
        self.base, self.name, self.keep, self.settled = base, name, keep, settled
        self._lock = threading.Condition()
        self._loaded: dict[int, Version] = {}
        self._states: dict[int, tuple[int, str]] = {}  # and what is wrong
        self._seen: dict[int, tuple[frozenset[tuple[str, int, int]], float]] = {}  # and since when it is so
        self._failed: dict[int, frozenset[tuple[str, int, int]]] = {}  # what could not be loaded
        self._ignored: set[str] = set()
        self._stop = threading.Event()
        self._watcher: threading.Thread | None = None

    def open(self) -> None:
        """Loads the first versions, and waits for one that is being copied.

        Raises:
            BadInput: none can be loaded.
        """
        while not self._loaded:
            require_versions(self.base)
            self.check()
            on_disk = find_versions(self.base)
            if on_disk and on_disk.keys() <= self._failed.keys():
                number, path = max(on_disk.items())
                raise BadInput(f"{path}: cannot be loaded: {self._states[number][1]}")
            self._stop.wait(0.0 if self._loaded else 0.1)

    def check(self) -> None:
        """Loads what is new and then drops what is old; call it from one thread at a time."""
        on_disk = find_versions(self.base)
        for name in too_high(self.base) - self._ignored:
            self._ignored.add(name)
            log.warning("%s: ignored, expected a version of at most %d", self.base / name, messages.HIGHEST_VERSION)
        good = 0
        for number in sorted(on_disk, reverse=True):
            if good == self.keep:
                break
            good += number in self._loaded or self._try(number, on_disk[number])
        with self._lock:
            for number, (state, _) in self._states.items():
                if state == messages.START and number not in on_disk:
                    self._states[number] = (messages.END, "")
            # The newest ones that could be loaded: a version that cannot be loaded replaces none.
            kept = sorted(number for number in self._loaded if number in on_disk)[-self.keep :]
            old = [self._loaded.pop(number) for number in sorted(self._loaded) if kept and number not in kept]
        for version in old:
            self._unload(version)

    def watch(self, seconds: float) -> None:
        """Checks again and again in another thread, until `close`."""

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
                raise ServingError(NOT_FOUND, f"no model of the name {quoted(name)}, expected {self.name!r}")
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
        """Returns the state and the problem of every version that was ever seen."""
        with self._lock:
            return dict(self._states)

    def _numbers(self) -> str:
        return ", ".join(map(str, sorted(self._loaded))) or "none yet"

    def _try(self, number: int, path: Path) -> bool:
        """Loads a version if it is complete and did not fail as it is; returns whether it is loaded."""
        found = _look(path)
        if found is None:
            if self._states.get(number) != (messages.START, UNSEEN):
                log.warning("%s: is not loaded yet: %s", path, UNSEEN)
                self._set(number, messages.START, UNSEEN)
            return False
        if found.files == self._failed.get(number):
            return False
        self._failed.pop(number, None)
        now = time.monotonic()
        files, since = self._seen.get(number, (None, 0.0))
        if files != found.files:
            self._seen[number], since = (found.files, now), now
        # A copy may keep a file's time of writing, never that of its last change here.
        if max(now - since, time.time() - found.changed) < self.settled:
            if files is None:
                log.info("%s: is loaded when nothing in it has changed for %g s", path, self.settled)
            return False
        self._set(number, messages.LOADING)
        try:
            version = Version(number, path)
        except Exception as error:  # whatever is wrong with the files, the loaded versions go on
            log.exception("%s: cannot be loaded", path)
            self._failed[number] = found.files
            self._set(number, messages.END, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
            return False
        if _look(path) != found:
            log.warning("%s: changed while it was loaded; it is loaded again when it is complete", path)
            self._set(number, messages.START)
            return False
        with self._lock:
            self._loaded[number] = version
        self._set(number, messages.AVAILABLE)
        log.info("%s: version %d is served", self.name, number)
        return True

    def _unload(self, version: Version) -> None:
        self._set(version.number, messages.UNLOADING)
        with self._lock:
            self._lock.wait_for(lambda: version.users == 0)
        self._set(version.number, messages.END)
        log.info("%s: version %d is no longer served", self.name, version.number)

    def _set(self, number: int, state: int, problem: str = "") -> None:
        with self._lock:
            self._states[number] = (state, problem)


def find_versions(base: Path) -> dict[int, Path]:
    """The versions in a folder: SavedModels in folders with numbers for names."""
    return {int(entry.name): entry for entry in _numbered(base) if int(entry.name) <= messages.HIGHEST_VERSION}


def too_high(base: Path) -> set[str]:
    """Folders that would be versions, if TF Serving's protocol had such numbers."""
    return {entry.name for entry in _numbered(base) if int(entry.name) > messages.HIGHEST_VERSION}


def _numbered(base: Path) -> list[Path]:
    if not base.is_dir():
        return []
    entries = (entry for entry in base.iterdir() if entry.name.isdecimal() and entry.name.isascii())
    return [entry for entry in entries if (entry / GRAPH).is_file()]


def _look(path: Path) -> Snapshot | None:
    """Returns the contents of a folder; None while something in it disappears, or may not be looked at."""
    try:
        found = [(str(entry.relative_to(path)), _stat(entry)) for entry in (path, *path.rglob("*"))]
    except OSError:
        return None
    files = frozenset((name, stat.st_size, stat.st_mtime_ns) for name, stat in found)
    return Snapshot(files, max(stat.st_ctime for _, stat in found))


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError:
        return path.lstat()  # a link to a file that is not there, as git-annex and DVC leave them


def require_versions(base: Path) -> None:
    """Raises BadInput if a folder holds no version.

    Raises:
        BadInput: the message says what was expected.
    """
    if not base.is_dir():
        raise BadInput(f"{base}: expected a folder of versions, as maskx export saved-model writes it")
    if (base / GRAPH).exists():
        raise BadInput(f"{base}: is one version, expected the folder that holds it: {base.resolve().parent}")
    if not find_versions(base):
        raise BadInput(f"{base}: expected versions such as {base / '1' / GRAPH}, found none")


def _read_list(path: Path, name: str) -> list[Any]:
    """Reads the list in an asset; empty for a SavedModel of another program, which does not have it."""
    file = path / "assets" / name
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
