"""PyTorch's files without PyTorch: a zip with a pickle of tensors and the bytes of each storage (since torch 1.6)."""

from __future__ import annotations

import io
import math
import zipfile
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from maskx_tf.checkpoints import npz
from maskx_tf.errors import BadInput, reason
from maskx_tf.importers.pickles import ArrayUnpickler, unpickle

# How a file of torch before 1.6 begins: a pickle of this number.
LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
STORAGES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "b1",
}


def bfloat16(data: bytes | memoryview) -> np.ndarray:
    """Float32 of little-endian bfloat16, which is its upper half."""
    return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)


class _Storage(NamedTuple):
    """Numbers that tensors are views of."""

    number_type: str
    key: str


class _TorchUnpickler(ArrayUnpickler):
    """Reads tensors as arrays."""

    def __init__(self, file: IO[bytes], archive: zipfile.ZipFile, prefix: str) -> None:
        super().__init__(file)
        self._archive = archive
        self._prefix = prefix
        self._loaded: dict[_Storage, np.ndarray] = {}

    def names(self) -> dict[tuple[str, str], Any]:
        return {
            **super().names(),
            **{("torch", name): number_type for name, number_type in STORAGES.items()},
            ("torch._utils", "_rebuild_tensor_v2"): self.tensor,
            ("torch._utils", "_rebuild_parameter"): self.parameter,
            ("torch", "Size"): self.size,
        }

    def persistent_load(self, pid: Any) -> _Storage:
        """The storage that the pickle points to."""
        kind, number_type, key, _, _ = pid
        if kind != "storage":
            raise ValueError(f"a pointer to {kind}, expected storage")
        return _Storage(number_type, str(key))

    # Methods, for the reason that ArrayUnpickler gives.
    def tensor(self, storage: _Storage, offset: int, size: Any, stride: Any, *_: Any) -> np.ndarray:
        """A view of a storage."""
        flat, size, stride = self._values(storage), tuple(size), tuple(stride)
        if min(size, default=1) < 0 or min(stride, default=1) < 0 or offset < 0 or len(size) != len(stride):
            raise ValueError(f"a tensor of size {size}, stride {stride} and offset {offset}")
        reach = offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True))
        if math.prod(size) and reach >= len(flat):
            raise ValueError(f"a tensor of size {size} ends beyond its storage of {len(flat)}")
        if not math.prod(size):
            return np.zeros(size, flat.dtype)
        steps = tuple(step * flat.itemsize for step in stride)
        return np.lib.stride_tricks.as_strided(flat[offset:], size, steps, writeable=False)

    def parameter(self, data: Any, *_: Any) -> Any:
        """A parameter is its tensor."""
        return data

    def size(self, sides: Any) -> tuple[int, ...]:
        """The shape of a tensor."""
        return tuple(sides)

    def _values(self, storage: _Storage) -> np.ndarray:
        if storage not in self._loaded:
            data = self._archive.read(f"{self._prefix}data/{storage.key}")
            if storage.number_type == "bfloat16":
                self._loaded[storage] = bfloat16(data)
            else:
                self._loaded[storage] = np.frombuffer(data, f"<{storage.number_type}")
        return self._loaded[storage]


def read_torch(path: Path, archive: zipfile.ZipFile) -> Any:
    """The containers and tensors of a torch file.

    Raises:
        BadInput: it is a TorchScript program, damaged, or holds something else; nothing of it was run.
    """
    names = archive.namelist()
    prefix = next(name for name in names if name.endswith("data.pkl")).removesuffix("data.pkl")
    if f"{prefix}constants.pkl" in names:
        raise BadInput(f"{path}: a TorchScript program, expected weights: save its state_dict() with torch.save")
    try:
        order = archive.read(f"{prefix}byteorder").decode() if f"{prefix}byteorder" in names else "little"
        program = archive.read(f"{prefix}data.pkl")
        if order != "little":
            raise ValueError(f"numbers are {order}-endian, expected little-endian")
        return unpickle(_TorchUnpickler(io.BytesIO(program), archive, prefix), path)
    except npz.DAMAGE as error:
        raise BadInput(f"{path}: damaged: {reason(error)}") from None
