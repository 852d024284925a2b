"""Valid files, changed in hundreds of ways: each ends in a report or in one line, never in a traceback or a hang."""

from __future__ import annotations

import copy
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskx_tf import cli
from maskx_tf.data.checks import check
from maskx_tf.data.formats.readers import DataFiles, for_training, read
from maskx_tf.errors import BadInput
from tests.data.samples import SAMPLES, coco_keypoints

VALUES: list[Any] = [
    None, True, -1, 0, 3.7, 1e308, 10**30, float("nan"), float("inf"), float("-inf"), "", " ", "text", "-5", "1e999",
    "NaN", "\ud800", "a\0b", "ü" * 300, "../x", "/", [], {}, [[[]]], [1] * 7, {"a": 1}, [float("nan")] * 4, [9**9] * 4,
]  # fmt: skip
FUZZED = {**SAMPLES, "coco_keypoints": coco_keypoints}
ROUNDS, SLOW_ROUNDS = 2, 150  # by default and in all, of each
OTHER_ROUNDS = {"coco_keypoints": (4, 200)}
SECONDS = 60  # generous, for machines that have much else to do


def _nodes(data: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a tree of mappings and lists, as its parent and key."""
    for key, value in list(data.items()) if isinstance(data, dict) else list(enumerate(data)):
        yield data, key
        if isinstance(value, dict | list):
            yield from _nodes(value)


def _change_json(path: Path, random: np.random.RandomState) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    for _ in range(random.randint(1, 4)):
        places = list(_nodes(data))
        if not places:
            break
        parent, key = places[random.randint(len(places))]
        action = random.randint(4)
        if action == 0:
            del parent[key]
        elif action == 1 and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[key]))
        elif action == 2:
            parent[key] = [parent[key]]
        else:
            parent[key] = copy.deepcopy(VALUES[random.randint(len(VALUES))])
    path.write_text(json.dumps(data))


def _change_text(path: Path, random: np.random.RandomState) -> None:
    """Another word in place of one of XML or CSV."""
    text = path.read_text(encoding="utf-8")
    separators = "<>" if path.suffix == ".xml" else ",\n"
    starts = [place + 1 for place, letter in enumerate(text) if letter in separators]
    start = starts[random.randint(len(starts))]
    stop = min([len(text), *(place for place in range(start, len(text)) if text[place] in separators)])
    word = str(VALUES[random.randint(len(VALUES))])
    path.write_bytes((text[:start] + word + text[stop:]).encode(errors="surrogatepass"))


def _change_bytes(path: Path, random: np.random.RandomState) -> None:
    data = bytearray(path.read_bytes())
    action = random.randint(4)
    if action == 0:
        del data[random.randint(len(data)) :]
    elif action == 1:
        for _ in range(random.randint(1, 30)):
            data[random.randint(len(data))] = random.randint(256)
    elif action == 2:
        start = random.randint(len(data))
        data[start : start + random.randint(1, 200)] = b""
    else:
        data[:] = b"" if random.randint(2) else random.bytes(100)
    path.write_bytes(bytes(data))


def change(folder: Path, random: np.random.RandomState) -> str:
    """Changes one file of a data set; says how."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    texts = [path for path in paths if path.suffix in (".json", ".xml", ".csv", ".txt")]
    path = (
        (texts or paths)[random.randint(len(texts or paths))]
        if random.randint(3)
        else paths[random.randint(len(paths))]
    )
    if random.randint(12) == 0:
        path.unlink()
        return f"unlink {path.name}"
    if path.suffix == ".json" and random.randint(5):
        _change_json(path, random)
    elif path.suffix in (".xml", ".csv") and random.randint(5):
        _change_text(path, random)
    else:
        _change_bytes(path, random)
    return path.name


@pytest.fixture
def _no_hang() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError(f"not done after {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def _refusal(source: DataFiles) -> str | None:
    """What training says instead of starting."""
    try:
        for_training([source], "all")
    except BadInput as error:
        return str(error)
    return None


def _cases() -> list[Any]:
    """The names of the samples, each with its seeds."""
    rounds = {name: OTHER_ROUNDS.get(name, (ROUNDS, SLOW_ROUNDS)) for name in FUZZED}
    return [
        pytest.param(name, seed, marks=() if seed < usual else pytest.mark.slow)
        for name, (usual, every) in rounds.items()
        for seed in range(every)
    ]


@pytest.mark.usefixtures("_no_hang")
@pytest.mark.parametrize(("name", "seed"), _cases())
def test_a_changed_file_ends_in_a_report_or_in_one_line(
    name: str, seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.RandomState([seed, list(FUZZED).index(name)])
    source = FUZZED[name](tmp_path / "in")
    changed = change(tmp_path / "in", random)
    refusal = _refusal(source)
    assert refusal is None or refusal.isprintable(), "one line that any screen shows"
    try:
        wrong = check(source)[1].wrong > 0
    except BadInput:
        wrong = True
    assert wrong or refusal is None, (changed, refusal)

    where = ["--images", str(source.images), "--annotations", str(source.annotations), "--format", source.format]
    (tmp_path / "out").mkdir()
    for command in (
        ["check", *where, *(["--json"] * (seed % 2))],
        ["stats", *where, *(["--json"] * (seed % 2))],
        ["show", *where, "--out", str(tmp_path / "out" / "sheet.png")],
        ["convert", *where, "--out", str(tmp_path / "out" / "all.json")],
    ):
        code = cli.run(["data", *command])
        captured = capsys.readouterr()
        assert code == (0 if captured.err == "" else 2), (changed, captured.err)
        assert captured.err.count("\n") <= 1
        captured.out.encode()
        if command[0] == "check":
            assert code == 2 * wrong, (changed, captured.out)
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written <= {"sheet.png", "all.json"}
    if "all.json" in written:
        assert read(DataFiles(source.images, tmp_path / "out" / "all.json")).class_names


def test_the_changes_do_change(tmp_path: Path) -> None:
    """At least half of the changed files are worse than the samples, or the test above would show little."""
    worse = 0
    for seed in range(40):
        name = list(FUZZED)[seed % len(FUZZED)]
        source = FUZZED[name](tmp_path / str(seed))
        before = check(source)[1].counts
        change(tmp_path / str(seed), np.random.RandomState(seed))
        try:
            worse += check(source)[1].counts != before
        except BadInput:
            worse += 1
    assert worse >= 20, sys.argv
