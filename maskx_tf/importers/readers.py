"""Reads tensors from files of every form that the sources use; the first bytes decide the form, not the name."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskx_tf.checkpoints import npz
from maskx_tf.errors import BadInput, listed, reason
from maskx_tf.files import Json, open_regular
from maskx_tf.importers.pickles import read_pickle
from maskx_tf.importers.torch_zip import LEGACY_MAGIC, bfloat16, read_torch

# Where programs that train keep the weights of a model in their checkpoints, outermost first,
WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights")
# and what stands before the name of each tensor when the model was itself wrapped: for several devices, compiled, or as
# the member of a trainer.
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
LONGEST_HEADER = 100_000_000  # the limit of safetensors' own reader
# safetensors' types, as NumPy's.
SAFETENSORS_TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "bfloat16",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}


def read(path: Path) -> Any:
    """Reads a file's contents: containers, text, numbers and arrays, nested as in the file.

    Raises:
        BadInput: no such file, a form that is not read here, or damage. Nothing that the file holds is run.
    """
    try:
        with open_regular(path) as file:
            start = file.read(512)
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {reason(error)}") from None
    if start.startswith(b"PK"):
        return _read_zip(path)
    if start.startswith(HDF5_MAGIC):
        raise BadInput(f"{path}: a Keras file (HDF5), expected the source keras for it")
    if start.startswith(LEGACY_MAGIC) or start[257:262] == b"ustar":
        raise BadInput(
            f"{path}: a torch file from before torch 1.6, expected its zip form: "
            "load it in a newer torch and save it again with torch.save"
        )
    if start[8:9] == b"{":
        return _read_safetensors(path)
    return read_pickle(path)


def tensors_of(path: Path, content: Any, keys: Sequence[str] = WRAPPERS) -> dict[str, np.ndarray]:
    """The named tensors in what a file holds: at its top, or under some of these keys, without a prefix of all names.

    Raises:
        BadInput: there are none.
    """
    while isinstance(content, Mapping):
        inner = next((content[key] for key in keys if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping):
        raise BadInput(f"{path}: holds a {type(content).__name__}, expected named tensors")
    tensors = {name: value for name, value in content.items() if isinstance(value, np.ndarray)}
    if not tensors or not all(isinstance(name, str) for name in tensors):
        found = listed(map(str, content)) or "nothing"
        raise BadInput(f"{path}: holds {found}, expected named tensors, perhaps under {' or '.join(keys)}")
    while prefix := next((one for one in PREFIXES if all(name.startswith(one) for name in tensors)), ""):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _read_zip(path: Path) -> Any:
    with npz.open_zip(path) as archive:
        names = archive.namelist()
        if any(name.endswith("data.pkl") for name in names):
            return read_torch(path, archive)
        if names and all(name.endswith(".npy") for name in names):
            return dict(npz.Archive(path, archive).items())
    raise BadInput(f"{path}: a zip of {listed(names) or 'nothing'}, expected a .npz or a torch file")


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Eight bytes with the length of a JSON header, the header, then the tensors' bytes."""
    try:
        with open_regular(path) as file:
            length = int.from_bytes(file.read(8), "little")
            entries: Json = json.loads(file.read(min(length, LONGEST_HEADER)))
            entries.pop("__metadata__", None)
            size = os.fstat(file.fileno()).st_size - file.tell()
            for entry in entries.values():  # all of them before any number is read
                _check_safetensor(size, **entry)
            data = memoryview(file.read())
        return {name: _safetensor(data, **entry) for name, entry in entries.items()}
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise BadInput(f"{path}: cut short, damaged or no safetensors: {reason(error)}") from None


def _check_safetensor(size: int, dtype: str, shape: list[int], data_offsets: tuple[int, int]) -> None:
    """Raises ValueError or LookupError for a tensor that does not fit into so many bytes."""
    first, end = data_offsets
    width = 2 if dtype == "BF16" else np.dtype(SAFETENSORS_TYPES[dtype]).itemsize
    if not 0 <= first <= end <= size:
        raise ValueError(f"a tensor lies at {first} to {end} of {size} bytes")
    if min(shape, default=1) < 0 or math.prod(shape) * width != end - first:
        raise ValueError(f"a tensor {dtype} of shape {shape} has {end - first} bytes")


def _safetensor(data: memoryview, dtype: str, shape: list[int], data_offsets: tuple[int, int]) -> np.ndarray:
    part = data[slice(*data_offsets)]
    values = bfloat16(part) if dtype == "BF16" else np.frombuffer(part, SAFETENSORS_TYPES[dtype])
    return values.reshape(shape)
