"""TF Serving's JSON: rows under "instances", or columns under "inputs"; bytes as {"b64": "..."}.

Reading and writing know arrays alone, no model and no TensorFlow. Python's parser holds the interpreter's lock until it
is done, which for many values is seconds in which no thread runs; this module then reads the body in another process.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from maskx_tf.files import Json
from maskx_tf.serving import status as codes
from maskx_tf.serving.status import ServingError, invalid, too_large

KEYS = {"signature_name", "instances", "inputs"}
# In front of every value but the first, and of every letter that takes long.
SEPARATORS = b",[{\\"
MANY_VALUES = 250_000  # values, from which on they are read in another process
STEP = 2**20
# Python's objects take up to 13 times the text of an image; of brackets alone 21 times.
MEMORY, MEMORY_PER_BYTE = 2**28, 16
SMALL_INTEGERS = 256


class Body(NamedTuple):
    """The body of a request.

    Attributes:
        signature: its name; empty for the default.
        in_rows: whether the inputs came as rows, and the answer goes so.
        named: whether they have names; else there is one, under the name "".
        columns: arrays of numbers, or of bytes as objects.
    """

    signature: str
    in_rows: bool
    named: bool
    columns: dict[str, np.ndarray]


def parse(body: bytes | bytearray) -> Body:
    """Reads a request as far as it can be read without knowing the model.

    Raises:
        ServingError: it is no JSON, or no request.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise invalid(f"the body is no JSON: {str(error)[:100]}") from None
    if not isinstance(content, dict):
        raise invalid('the body is no JSON object, expected {"instances": [...]} or {"inputs": {...}}')
    if set(content) - KEYS or ("instances" in content) == ("inputs" in content):
        keys = str(sorted(content))[:200]
        raise invalid(f"the body has the keys {keys}, expected signature_name and instances, or inputs")
    signature = content.get("signature_name", "")
    if not isinstance(signature, str):
        raise invalid("signature_name is no text")
    in_rows = "instances" in content
    columns = _columns(content["instances"]) if in_rows else content["inputs"]
    named = isinstance(columns, dict) and set(columns) != {"b64"}
    arrays = {name: _array(name, values) for name, values in (columns if named else {"": columns}).items()}
    return Body(signature, in_rows, named, arrays)


def is_dense(body: bytes | bytearray) -> bool:
    """Whether a body holds so many values that reading it would keep all threads waiting."""
    count = 0
    for start in range(0, len(body), STEP):
        part = body[start : start + STEP]
        count += len(part) - len(part.translate(None, SEPARATORS))
        if count > MANY_VALUES:
            return True
    return False


def parse_apart(body: bytes | bytearray, seconds: float) -> Body:
    """Does as `parse` does in another process, whose memory is bounded.

    Raises:
        ServingError: as for `parse`; or it took too long, or more memory than it may.
    """
    limit = MEMORY + MEMORY_PER_BYTE * len(body)
    paths = os.pathsep.join(filter(None, sys.path))
    environment = {**os.environ, "PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1"}
    line = [sys.executable, "-P", "-m", __name__, str(limit)]
    try:
        done = subprocess.run(
            line,
            input=body,
            stdout=subprocess.PIPE,
            timeout=seconds,
            env=environment,
            start_new_session=True,  # Ctrl-C stops the server, which still answers what it has accepted
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ServingError(codes.DEADLINE_EXCEEDED, "the deadline passed") from None
    if done.returncode:
        raise too_large(f"reading {len(body)} bytes of JSON takes more than {limit} bytes: send files, or use gRPC")
    found = pickle.loads(done.stdout)
    if isinstance(found, str):
        raise invalid(found)
    return Body(*found)


def answer(outputs: Mapping[str, np.ndarray], *, in_rows: bool) -> bytes:
    """The body of an answer."""
    # One image after the other, so that other threads have their turn between them.
    texts = {name: [json.dumps(_plain(name, row)) for row in value] for name, value in outputs.items()}
    if not in_rows:
        columns = [f"{json.dumps(name)}: [{', '.join(rows)}]" for name, rows in texts.items()]
        return f'{{"outputs": {{{", ".join(columns)}}}}}'.encode()
    names = [json.dumps(name) for name in texts]
    rows = [
        f"{{{', '.join(f'{name}: {text}' for name, text in zip(names, row, strict=True))}}}"
        for row in zip(*texts.values(), strict=True)
    ]
    return f'{{"predictions": [{", ".join(rows)}]}}'.encode()


def _columns(rows: Any) -> Any:
    """The columns of rows: by their names, or the rows themselves, which then are of one unnamed input."""
    if not isinstance(rows, list) or not rows:
        raise invalid("instances is no list of at least one")
    first = rows[0]
    if not isinstance(first, dict) or set(first) == {"b64"}:
        return rows
    if any(not isinstance(row, dict) or set(row) != set(first) for row in rows):
        raise invalid("the instances have different inputs")
    return {name: [row[name] for row in rows] for name in first}


def _array(name: str, values: Any) -> np.ndarray:
    where = f"{name!r}: " if name else ""
    if isinstance(values, list) and values and all(isinstance(value, (str, dict)) for value in values):
        array = np.empty(len(values), np.object_)
        array[:] = [_bytes(where, value) for value in values]
        return array
    try:
        array = np.asarray(values)
    except ValueError:
        raise invalid(f"{where}the lists in it are not of equal length") from None
    if array.dtype.kind not in "iufb":
        raise invalid(f'{where}expected a list of numbers, or of texts and {{"b64": "..."}}')
    if array.dtype.kind in "iu" and array.size and array.min() >= 0 and array.max() < SMALL_INTEGERS:
        return array.astype(np.uint8)  # pixels, in an eighth of the memory
    return array


def _bytes(where: str, value: str | Json) -> bytes:
    try:
        if isinstance(value, str):
            return value.encode()  # but for half of a surrogate pair, which is no character
        if set(value) != {"b64"}:
            raise invalid(f'{where}expected {{"b64": "..."}}, and no other keys')
        text = value["b64"].encode("ascii").translate(None, b" \t\r\n").rstrip(b"=")
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except (AttributeError, ValueError):
        raise invalid(f'{where}expected text, or {{"b64": "..."}} with bytes in base 64') from None


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(name, one) for one in value] if value and isinstance(value[0], (bytes, list)) else value
    if isinstance(value, bytes):
        return (
            {"b64": base64.b64encode(value).decode()} if name.endswith("_bytes") else value.decode("utf-8", "replace")
        )
    return value


def main() -> None:
    """Reads a body from standard input and writes what was found, or what is wrong with it, to standard output."""
    if sys.platform == "linux":
        import resource

        limit = int(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        found: Any = tuple(parse(sys.stdin.buffer.read()))
    except ServingError as error:
        found = error.reason
    except MemoryError:
        sys.exit(1)
    pickle.dump(found, sys.stdout.buffer, protocol=pickle.HIGHEST_PROTOCOL)


if __name__ == "__main__":
    main()
