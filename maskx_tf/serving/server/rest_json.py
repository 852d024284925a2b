"""TF Serving's JSON: rows under "instances", or columns under "inputs"; bytes as {"b64": "..."}."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from maskx_tf.serving import status as codes
from maskx_tf.serving.server.batching import Arrays
from maskx_tf.serving.server.service import SERVING_DEFAULT
from maskx_tf.serving.server.versions import Version
from maskx_tf.serving.status import ServingError


class Request:
    """The body of a request, read as far as it can be without knowing the model.

    Args:
        body: JSON.

    Raises:
        ServingError: it is no JSON, or no request.
    """

    def __init__(self, body: bytes) -> None:
        try:
            content = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise _invalid(f"the body is no JSON: {str(error)[:100]}") from None
        if not isinstance(content, dict):
            raise _invalid('the body is no JSON object, expected {"instances": [...]} or {"inputs": {...}}')
        unknown = set(content) - {"signature_name", "instances", "inputs"}
        if unknown or ("instances" in content) == ("inputs" in content):
            raise _invalid(f"the body has the keys {sorted(content)}, expected signature_name and instances, or inputs")
        self.signature = content.get("signature_name", "")
        if not isinstance(self.signature, str):
            raise _invalid("signature_name is no text")
        self.rows: Any = content.get("instances")
        self.columns: Any = content.get("inputs")
        if "instances" in content and (not isinstance(self.rows, list) or not self.rows):
            raise _invalid("instances is no list of at least one")

    def inputs(self, version: Version) -> Arrays:
        """The arrays that the signature takes.

        Raises:
            ServingError: values that are none, or of another shape or type.
        """
        specs = version.inputs[self.signature or SERVING_DEFAULT]
        columns = self.columns if self.rows is None else self._columns(specs)
        if not isinstance(columns, dict) or set(columns) == {"b64"}:
            if len(specs) != 1:
                raise _invalid(f"expected the inputs by their names: {', '.join(specs)}")
            columns = {next(iter(specs)): columns}
        for name in columns:
            if name not in specs:
                raise _invalid(f"no input {name!r}, expected {', '.join(specs)}")
        return {name: _array(name, values, specs[name]) for name, values in columns.items()}

    def answer(self, outputs: Arrays) -> bytes:
        """The body of the answer, in rows or columns as the request was."""
        columns = {name: _plain(name, value) for name, value in outputs.items()}
        if self.rows is None:
            return json.dumps({"outputs": columns}).encode()
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return json.dumps({"predictions": rows}).encode()

    def _columns(self, specs: dict[str, tf.TensorSpec]) -> dict[str, list[Any]]:
        first = self.rows[0]
        if not isinstance(first, dict) or set(first) == {"b64"}:
            if len(specs) != 1:
                raise _invalid(f"expected each instance with the inputs by their names: {', '.join(specs)}")
            return {next(iter(specs)): self.rows}
        if any(not isinstance(row, dict) or set(row) != set(first) for row in self.rows):
            raise _invalid("the instances have different inputs")
        return {name: [row[name] for row in self.rows] for name in first}


def _array(name: str, values: Any, spec: tf.TensorSpec) -> NDArray[Any]:
    if spec.dtype == tf.string:
        if not isinstance(values, list):
            raise _invalid(f"{name}: expected a list of images")
        array = np.empty(len(values), np.object_)
        array[:] = [_bytes(name, value) for value in values]
        return array
    try:
        found = np.asarray(values)
    except ValueError:
        raise _invalid(f"{name}: the lists in it are not of equal length") from None
    wanted = np.dtype(spec.dtype.as_numpy_dtype)
    if found.dtype.kind not in ("iu" if wanted.kind in "iu" else "iuf") and found.size:
        raise _invalid(f"{name}: expected numbers of type {spec.dtype.name}")
    if wanted.kind in "iu" and found.size:
        limits = np.iinfo(wanted)
        if found.min() < limits.min or found.max() > limits.max:
            raise _invalid(f"{name}: expected numbers in {limits.min}..{limits.max}")
    return found.astype(wanted)


def _bytes(name: str, value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    try:
        return base64.b64decode(value["b64"], validate=True)
    except (TypeError, LookupError, ValueError, binascii.Error):
        raise _invalid(f'{name}: expected {{"b64": "..."}} with bytes in base 64') from None


def _plain(name: str, value: NDArray[Any]) -> Any:
    if value.dtype != np.object_:
        return value.tolist()

    def text(item: Any) -> Any:
        if isinstance(item, list):
            return [text(one) for one in item]
        return {"b64": base64.b64encode(item).decode()} if name.endswith("_bytes") else item.decode("utf-8", "replace")

    return text(value.tolist())


def _invalid(reason: str) -> ServingError:
    return ServingError(codes.INVALID_ARGUMENT, reason)
