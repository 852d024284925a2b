"""Runs a LiteRT or ONNX folder with NumPy and its interpreter: image in, `Detections` in the image's own pixels out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskx_tf.errors import BadInput, reason
from maskx_tf.files import Json, read_json
from maskx_tf.structures import ADDED_FIELDS, Detections

DESCRIPTION = "lite.json"  # the name in `litert` and `onnx`, which import TensorFlow; this file must not
NamedArrays = dict[str, np.ndarray]


class Runner:
    """A LiteRT or ONNX model that is ready to run.

    Args:
        folder: written by `litert.write` or `onnx.write`.
        threads: the number of threads of the interpreter.
        openvino: run an ONNX model with OpenVINO rather than ONNX Runtime.

    Raises:
        BadInput: the folder is none, or ai-edge-litert, onnxruntime or openvino is missing.
    """

    def __init__(self, folder: Path, threads: int = 2, *, openvino: bool = False) -> None:
        try:
            self.facts: Json = read_json(folder / DESCRIPTION)
            self.labels: list[Json] = read_json(folder / "labels.json")
            read = _read_litert
            if self.facts["form"] == "onnx":
                read = _read_openvino if openvino else _read_onnx
            # The interpreters have to outlive the runners of their signatures.
            self._interpreters = {name: read(folder / name, threads) for name in self.facts["graphs"]}
        except ImportError as error:
            raise BadInput(f"{error.name} is missing: pip install 'maskx_tf[litert]' or 'maskx_tf[onnx]'") from None
        except (BadInput, OSError, TypeError, ValueError, LookupError) as error:
            raise BadInput(f"{folder}: expected the folder of a LiteRT or ONNX model: {reason(error)}") from None
        self._graphs = {name: one.get_signature_runner() for name, one in self._interpreters.items()}

    def __call__(self, image: NDArray[np.uint8]) -> Detections:
        """Detections of uint8 [H, W, 3]: only the valid ones, best first; boxes [D, 4]; what it lacks is None."""
        facts = self.facts
        rounding = facts.get("rounding", "exact")  # older folders do not have this key
        canvas, size = letterbox(image, tuple(facts["canvas"]), facts["short_side"], facts["long_side"], rounding)
        is_integer = facts["form"] == "int8"
        pixels = canvas.astype(np.float32)
        seen = normalise(canvas, size, **facts["pixels"]) if is_integer else pixels
        outputs = self._run({"image": seen[None], "pixels": pixels[None], "size": size[None]})
        count = int(outputs["count"][0])
        height, width = image.shape[:2]
        ratio = np.array([width / size[1], height / size[0]] * 2, np.float32)
        added = {key: outputs[key][0, :count] for key in ADDED_FIELDS if key in outputs}
        if "keypoints" in added:
            added["keypoints"] = added["keypoints"] * ratio[:2]
        return Detections(
            boxes=outputs["boxes"][0, :count] * ratio,
            scores=outputs["scores"][0, :count],
            classes=outputs["classes"][0, :count],
            valid=np.ones(count, bool),
            **added,
        )

    def _run(self, inputs: NamedArrays) -> NamedArrays:
        """Runs the graphs in turn; each receives the values that it needs."""
        values = dict(inputs)
        for graph in self._graphs.values():
            values |= graph(**{key: values[key] for key in graph.get_input_details()})
        return values


def _read_litert(path: Path, threads: int) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(f"{path}.tflite", num_threads=threads)


def _read_onnx(path: Path, threads: int) -> _Session:
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = threads
    content = Path(f"{path}.onnx").read_bytes()
    try:
        return _Session(InferenceSession(content, options, providers=["CPUExecutionProvider"]))
    except Exception as error:  # onnxruntime's have no other class in common
        raise ValueError(str(error)) from None


class _Session:
    """A session of ONNX Runtime, called as LiteRT's runners are."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def get_signature_runner(self) -> _Session:
        return self

    def get_input_details(self) -> list[str]:
        """The names of the inputs."""
        return [one.name for one in self._session.get_inputs()]

    def __call__(self, **inputs: np.ndarray) -> NamedArrays:
        names = [one.name for one in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, inputs), strict=True))


def _read_openvino(path: Path, threads: int) -> _Compiled:
    from openvino import Core

    # In float32, as the others: by itself OpenVINO computes in bfloat16 where the processor can.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    try:
        return _Compiled(Core().compile_model(f"{path}.onnx", "CPU", settings))
    except RuntimeError as error:
        raise ValueError(str(error)) from None


class _Compiled:
    """A model that OpenVINO compiled, called as LiteRT's runners are."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def get_signature_runner(self) -> _Compiled:
        return self

    def get_input_details(self) -> list[str]:
        """Returns the names of the inputs."""
        return [name for one in self._model.inputs for name in one.names]

    def __call__(self, **inputs: np.ndarray) -> NamedArrays:
        return {name: values for output, values in self._model(inputs).items() for name in output.names}


def letterbox(
    image: NDArray[np.uint8], canvas: tuple[int, int], short_side: int, long_side: int, rounding: str = "exact"
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """`ops.images.letterbox` in NumPy: uint8 [height, width, 3] and float32 [2], the size inside it."""
    height, width = image.shape[:2]
    scale = min(short_side / min(height, width), long_side / max(height, width))
    scale = min(scale, canvas[0] / height, canvas[1] / width)
    slack = 0.0 if rounding == "torchvision" else 1e-6  # as in ops.images.ROUNDINGS
    size = [max(math.floor(side * scale + slack), 1) for side in (height, width)]
    pixels = image.astype(np.float32)
    # Columns first, and all in float32: TensorFlow's order, or halves would be rounded in other directions.
    for axis, old, new in ((1, width, size[1]), (0, height, size[0])):
        at = (np.arange(new, dtype=np.float32) + 0.5) * np.float32(old / new) - 0.5
        low = np.floor(at)
        share = (at - low).reshape([-1, 1, 1] if axis == 0 else [1, -1, 1])
        first = np.take(pixels, np.maximum(low, 0).astype(np.int64), axis)
        last = np.take(pixels, np.minimum(np.ceil(at), old - 1).astype(np.int64), axis)
        pixels = first + (last - first) * share
    result = np.zeros([*canvas, 3], np.uint8)
    result[: size[0], : size[1]] = np.round(pixels)
    return result, np.array(size, np.float32)


def normalise(
    canvas: NDArray[np.uint8], size: NDArray[np.float32], *, mean: Sequence[float], std: Sequence[float], bgr: bool
) -> NDArray[np.float32]:
    """`ops.images.normalise` of one canvas [H, W, 3] in NumPy."""
    pixels = canvas[..., ::-1] if bgr else canvas
    height, width = (int(side) for side in size)
    result = np.zeros(canvas.shape, np.float32)
    result[:height, :width] = (pixels[:height, :width] - np.array(mean, np.float32)) / np.array(std, np.float32)
    return result
