"""Files of other programs, written here byte by byte, without those programs."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Tensors = dict[str, np.ndarray]
ENDS = {"f4": "FloatStorage", "f2": "HalfStorage", "i8": "LongStorage", "u2": "BFloat16Storage"}


def random_tensors(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> Tensors:
    """Numbers of a size that keeps a deep network's features finite; what must be positive is."""
    generator = np.random.default_rng(seed)
    tensors = {}
    for name, shape in shapes.items():
        fan_in = int(np.prod(shape[1:])) or 1
        values = generator.standard_normal(shape, np.float32) * np.float32(fan_in**-0.5)
        tensors[name] = np.abs(values) + 0.5 if name.endswith(("running_var", "_bn_s", "norm.weight")) else values
    return tensors


def write_safetensors(path: Path, tensors: Tensors, kind: str = "F32") -> Path:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = bytearray()
    for name, array in tensors.items():
        content = (array.view(np.uint32) >> 16).astype("<u2") if kind == "BF16" else array
        header[name] = {
            "dtype": kind,
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + content.nbytes],
        }
        data += content.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


class _Tensor:
    """What torch's pickler sees: a view of a storage."""

    def __init__(self, array: np.ndarray, key: str, kind: str) -> None:
        self.array, self.key, self.kind = array, key, kind

    def __reduce__(self) -> Any:
        storage = _Storage(self.key, self.kind, self.array.size)
        strides = tuple(step // self.array.itemsize for step in self.array.strides)
        return sys.modules["torch._utils"]._rebuild_tensor_v2, (
            *(storage, 0, self.array.shape, strides, False, OrderedDict()),
        )


class _Storage:
    def __init__(self, key: str, kind: str, size: int) -> None:
        self.key, self.kind, self.size = key, kind, size


class _TorchPickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, _Storage):
            return "storage", getattr(sys.modules["torch"], value.kind), value.key, "cpu", value.size
        return None


@contextlib.contextmanager
def _pretended_torch() -> Iterator[None]:
    """Modules of torch's names, for the pickler to name: they hold nothing that works."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for kind in ENDS.values():
        setattr(torch, kind, type(kind, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2(*_: Any) -> None:
        raise AssertionError

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2  # type: ignore[attr-defined]
    with contextlib.ExitStack() as stack:
        for module in (torch, utils):
            assert module.__name__ not in sys.modules
            sys.modules[module.__name__] = module
            stack.callback(sys.modules.pop, module.__name__)
        yield


def write_torch(path: Path, tensors: Tensors, *, wrap: str = "", extra: Mapping[str, bytes] = {}) -> Path:
    """A zip as torch.save writes it; uint16 arrays stand for bfloat16.

    Args:
        path: of the file.
        tensors: the state dict.
        wrap: the key under which it lies; empty: it is the file.
        extra: further members.
    """
    state = OrderedDict(
        (name, _Tensor(array, str(index), ENDS[array.dtype.str[1:]]))
        for index, (name, array) in enumerate(tensors.items())
    )
    state._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
    program = io.BytesIO()
    with _pretended_torch():
        _TorchPickler(program, protocol=2).dump({wrap: state, "epoch": 3} if wrap else state)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights/data.pkl", program.getvalue())
        archive.writestr("weights/byteorder", b"little")
        archive.writestr("weights/version", b"3\n")
        for index, array in enumerate(tensors.values()):
            base = array if array.base is None or array.flags.c_contiguous else array.base
            archive.writestr(f"weights/data/{index}", base.tobytes())
        for name, content in extra.items():
            archive.writestr(f"weights/{name}", content)
    return path


def python2_pickle(value: Any) -> bytes:
    """Protocol 2 as Python 2 writes it: its text is bytes, and so are the contents of arrays."""
    return b"\x80\x02" + _python2(value) + b"."


def _python2(value: Any) -> bytes:
    if isinstance(value, str):
        text = value.encode("latin1")
        return b"T" + struct.pack("<i", len(text)) + text
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if value is None:
        return b"N"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(_python2, value)) + b"t"
    if isinstance(value, dict):
        return b"}(" + b"".join(_python2(part) for item in value.items() for part in item) + b"u"
    assert isinstance(value, np.ndarray)
    kind = b"cnumpy\ndtype\n" + _python2((value.dtype.str[1:], 0, 1)) + b"R"
    kind += _python2((3, "<", None, None, None, -1, -1, 0)) + b"b"
    made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + _python2((0,)) + _python2("b") + b"tR"
    order = not value.flags.c_contiguous
    content = b"T" + struct.pack("<i", value.nbytes) + value.tobytes("F" if order else "C")
    return made + b"(" + _python2(1) + _python2(value.shape) + kind + _python2(order) + content + b"tb"


def resnet_shapes(
    blocks: tuple[int, ...], name: Any, norms: tuple[str, ...], *, groups: int = 1, group_width: int = 64
) -> dict[str, tuple[int, ...]]:
    """Every convolution of a ResNet and what normalises it (spec/mask_rcnn.md, section 8; spec/maskx.md, section 10).

    Args:
        blocks: of res2 to res5.
        name: stage, block and part to the names of the convolution's weight and the start of its norm's; the stem is
            stage 1.
        norms: endings of the norm's tensors.
        groups: of the 3x3 convolutions.
        group_width: channels a group in res2.
    """
    conv, norm = name(1, 0, "stem")
    shapes: dict[str, tuple[int, ...]] = {conv: (64, 3, 7, 7), **{norm + end: (64,) for end in norms}}
    inputs = 64
    for stage, count in enumerate(blocks, start=2):
        scale = 2 ** (stage - 2)
        width, outputs = groups * group_width * scale, 256 * scale
        for block in range(count):
            parts = {
                "conv1": (width, inputs, 1, 1),
                "conv2": (width, width // groups, 3, 3),
                "conv3": (outputs, width, 1, 1),
            }
            if block == 0:
                parts["shortcut"] = (outputs, inputs, 1, 1)
            for part, shape in parts.items():
                conv, norm = name(stage, block, part)
                shapes |= {conv: shape, **{norm + end: (shape[0],) for end in norms}}
            inputs = outputs
    return shapes


def layers(shapes: Mapping[str, tuple[int, ...]], ends: tuple[str, str] = (".weight", ".bias")) -> dict[str, Any]:
    """Weight and bias of each layer; the bias has as many numbers as the weight has rows."""
    weight, bias = ends
    return {
        name: shape for key, value in shapes.items() for name, shape in ((key + weight, value), (key + bias, value[:1]))
    }
