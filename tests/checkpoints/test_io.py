"""Model folders: what is written can be read, and each error is one line."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from maskx_tf import __version__, cli
from maskx_tf.checkpoints import io, npz
from maskx_tf.checkpoints.folder import find, open_config, read_config
from maskx_tf.config import Config
from maskx_tf.errors import BadInput
from maskx_tf.models.rcnn import RCNN
from tests import disk
from tests.checkpoints import small
from tests.checkpoints.small import quick_backbone  # noqa: F401  (a fixture)


@pytest.fixture(scope="module")
def original() -> tuple[RCNN, Config]:
    """For tests to write, or to read other weights into: its own do not matter."""
    return small.model("faster_rcnn")


@pytest.fixture(scope="module")
def saved(original: tuple[RCNN, Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    io.save(*original, folder, source={"program": "none"}, category_ids=[3, 1, 4, 15, 9, 2, 6])
    return folder


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def refused(function: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(BadInput) as caught:
        function(*arguments)
    assert str(caught.value).isprintable()
    return str(caught.value)


FAMILIES = {
    "mask, softmax": lambda: small.model("mask_rcnn", mask={"activation": "softmax"}),
    "mask^x": lambda: small.model(mask={"mlp_branch": "reference"}),
    "mask^x, table": lambda: small.model(table=small.table()),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_round_trip(family: str, tmp_path: Path) -> None:
    model, config = FAMILIES[family]()
    io.save(model, config, tmp_path / "model", note="ours", category_ids=None)
    loaded = io.load(tmp_path / "model")
    expected, found = small.values(model), small.values(loaded.model)
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    for ours, theirs in zip(small.detections(loaded.model), small.detections(model), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert loaded.meta == {"note": "ours", "category_ids": None}
    assert loaded.config.model.class_names == small.CLASSES
    if family != "mask^x, table":
        assert loaded.config == config


def test_a_folder_with_a_table_can_be_moved(tmp_path: Path) -> None:
    io.save(*small.model(table=small.table()), tmp_path / "model")
    assert small.files(tmp_path / "model") == {"config.yaml", "weights.npz", "model.json", "embedding.npy"}
    moved = (tmp_path / "model").rename(tmp_path / "elsewhere")
    loaded = io.load(moved)
    assert loaded.config.model.transfer.embedding == str(moved / "embedding.npy")
    np.testing.assert_array_equal(loaded.model.mask.filters.embeddings.rows(), small.table())
    np.save(moved / "embedding.npy", small.table() + 1)
    assert refused(io.load, moved) == f"{moved}/embedding.npy: expected the numbers of table in weights.npz"


def test_a_saved_model_does_not_need_its_initial_weights(tmp_path: Path) -> None:
    model, config = small.model("faster_rcnn")
    start = config.model.backbone.model_copy(update={"weights": "gone.h5"})
    config = config.model_copy(update={"model": config.model.model_copy(update={"backbone": start})})
    io.save(model, config, tmp_path / "model")
    assert io.load(tmp_path / "model").config.model.backbone.weights == "none"


def test_facts(saved: Path, original: tuple[RCNN, Config]) -> None:
    facts = json.loads((saved / "model.json").read_text())
    assert (facts["format"], facts["maskx_tf"]) == (1, __version__)
    assert facts["parameters"] == original[0].count_params()
    config, meta = open_config(saved)
    assert config == original[1]
    assert meta["category_ids"] == [3, 1, 4, 15, 9, 2, 6]


def test_model_argument(saved: Path, copy: Path, tmp_path: Path) -> None:
    assert find(copy) == copy
    run = tmp_path / "run"
    run.mkdir()
    assert refused(find, run).endswith("a model folder, or a run folder that holds one, found no model.json")
    (run / "config.yaml").touch()
    shutil.copytree(saved, run / ".best.old.7")  # what an interrupted writer leaves
    shutil.copytree(saved, run / "best")
    assert find(run) == run / "best"
    assert io.open_model(run).config == open_config(copy)[0]
    shutil.copytree(saved, run / "last")
    assert refused(find, run).endswith(f"found several: {run}/best, {run}/last")
    assert refused(find, tmp_path / "none") == f"{tmp_path}/none: no such folder"
    assert refused(find, copy / "config.yaml").endswith("config.yaml: expected a model folder, found a file")


def test_replaces_a_model_and_nothing_else(original: tuple[RCNN, Config], copy: Path, tmp_path: Path) -> None:
    io.save(*original, copy, note="new")
    assert open_config(copy)[1] == {"note": "new"}
    (copy / "notes.txt").touch()
    assert refused(io.save, *original, copy).endswith("or a model folder to replace, found notes.txt")
    other = tmp_path / "photos"
    other.mkdir()
    io.save(*original, other)
    (other / "model.json").unlink()
    assert "found config.yaml, weights.npz" in refused(io.save, *original, other)
    assert refused(io.save, *original, copy / "notes.txt").endswith("notes.txt: expected a folder, found a file")
    assert {path.name for path in tmp_path.iterdir()} == {"model", "photos"}


def test_spares_the_folder_that_one_is_in(
    original: tuple[RCNN, Config], copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copy)
    assert refused(io.save, *original, ".") == ".: expected another folder than the one you are in"
    monkeypatch.chdir(copy.parent)
    io.save(*original, "here/below")
    assert find("here/below") == Path("here/below")


@disk.each_error
def test_a_writer_that_fails_leaves_the_old_model(
    error: BaseException, original: tuple[RCNN, Config], copy: Path
) -> None:
    def contents() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in copy.iterdir()}

    def write() -> None:
        io.save(*original, copy, note="new")

    before, states = contents(), []
    expected = BadInput if isinstance(error, OSError) else KeyboardInterrupt
    for _ in disk.each_step(write, error, expected):
        assert os.listdir(copy.parent) == ["model"]
        states.append(contents() == before)
        assert states[-1] or open_config(copy)[1] == {"note": "new"}
    assert states.index(False) > 10  # what comes after the last renaming: everything before keeps the old one
    assert False not in states[: states.index(False)]


def test_a_disk_that_is_full_for_weights(original: tuple[RCNN, Config], copy: Path) -> None:
    with disk.no_room_beyond(5000):
        assert refused(io.save, *original, copy) == f"{copy}: cannot be written: File too large"
    assert os.listdir(copy.parent) == ["model"]
    io.load(copy)


def test_damaged_weights(original: tuple[RCNN, Config], copy: Path) -> None:
    model, path = original[0], copy / "weights.npz"
    io.read_weights(model, path)
    whole, expected = path.read_bytes(), small.values(model)
    generator, recognised = np.random.default_rng(0), 0
    for place in generator.choice(len(whole), 60, replace=False):
        damaged = bytearray(whole)
        damaged[place] ^= 64
        path.write_bytes(damaged)
        try:
            io.read_weights(model, path)
        except BadInput as error:
            recognised += str(error).startswith(f"{path}: ")
        else:  # no number was hit, but a date or the like
            for name, value in small.values(model).items():
                np.testing.assert_array_equal(value, expected[name])
            recognised += 1
        path.write_bytes(whole[:place])
        assert refused(io.read_weights, model, path).startswith(f"{path}: cut short or damaged: ")
    assert recognised == 60


def test_missing_files(copy: Path) -> None:
    (copy / "weights.npz").unlink()
    assert refused(io.load, copy) == f"{copy}/weights.npz: no such file"
    (copy / "config.yaml").unlink()
    assert refused(io.load, copy) == f"{copy}/config.yaml: cannot be read: No such file or directory"
    (copy / "model.json").unlink()
    assert refused(io.load, copy) == f"{copy}/model.json: cannot be read: No such file or directory"


DAMAGED_FACTS = {
    b"": "expected JSON: line 1: Expecting value",
    b"{": "expected JSON: line 1: Expecting property name",
    b'{"format": 1, "category_ids": [3, 1': "expected JSON: line 1: Expecting ',' delimiter",
    b"\x00" * 100: "expected JSON: line 1: Expecting value",
    b'{"format": 1, "note": "\xff"}': "expected UTF-8 text, found byte 0xff",
    '{"format": 1}'.encode("utf-16"): "expected UTF-8 text, found byte 0xff",
    b"[" * 100_000: "expected JSON: maximum recursion depth exceeded",
    b'{"format": ' + b"1" * 5000 + b"}": "expected JSON: Exceeds the limit",
    b"[]": "expected the facts of a model: expected settings such as",
    b"1": "expected the facts of a model: expected settings such as",
    b"null": "expected the facts of a model: expected settings such as",
    b"{}": "expected the facts of a model: format: expected a value, found none",
    b'{"format": "1"}': "expected the facts of a model: format: expected a whole number, found '1'",
    b'{"format": true}': "expected the facts of a model: format: expected a whole number, found true",
    b'{"format": 1.5}': "expected the facts of a model: format: expected a whole number, found 1.5",
    b'{"format": NaN}': "expected the facts of a model: format: expected a whole number, found nan",
    b'{"format": 0}': "expected the facts of a model: format: expected a number of at least 1, found 0",
    b'{"format": 9, "maskx_tf": "3.0"}': "written in format 9 by maskx_tf '3.0', expected at most 1",
    b'{"format": 9, "maskx_tf": {"a": [1, 2]}}': "written in format 9 by maskx_tf {'a': [1, 2]}, expected at most 1",
    b'{"format": 1, "category_ids": 7}': "expected the facts of a model: category_ids: expected a list, found 7",
    b'{"format": 1, "category_ids": [1, "2"]}': "expected the facts of a model: category_ids: 1: expected a whole",
    b'{"format": 1, "category_ids": [1, 2]}': "category_ids: expected 7 ids, one a class, found 2",
    b'{"format": 1, "a_classes": "ape"}': "expected the facts of a model: a_classes: expected a list, found 'ape'",
    b'{"format": 1, "changes": {}}': "expected the facts of a model: changes: expected a list, found an empty mapping",
    b'{"format": 1, "metrics": [1]}': "expected the facts of a model: metrics: expected a mapping, found [1]",
}


@pytest.mark.parametrize("content", DAMAGED_FACTS, ids=lambda content: repr(content[:40]))
def test_damaged_facts_are_one_line(content: bytes, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "model.json").write_bytes(content)
    assert cli.run(["vocabulary", str(copy), "list"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"maskx: error: {copy}/model.json: {DAMAGED_FACTS[content]}")
    assert captured.err.count("\n") == 1
    assert len(captured.err) < 500


def test_facts_that_are_no_file(copy: Path) -> None:
    for make, problem in ((os.mkfifo, "not a regular file"), (os.mkdir, "Is a directory")):
        (copy / "model.json").unlink()
        make(copy / "model.json")
        assert refused(read_config, copy) == f"{copy}/model.json: cannot be read: {problem}"
        if make is os.mkfifo:
            continue
        (copy / "model.json").rmdir()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda arrays: arrays.pop("rpn/conv/bias"),
            "expected a tensor rpn/conv/bias, as config.yaml has it, found none",
        ),
        (lambda arrays: arrays.update(more=np.zeros(1)), "holds more, which the model of config.yaml does not have"),
        (
            lambda arrays: arrays.update({"rpn/conv/bias": np.zeros(6)}),
            "rpn/conv/bias: expected shape [5], found [6]",
        ),
    ],
)
def test_weights_of_another_model(
    change: Callable[[dict[str, np.ndarray]], object], problem: str, original: tuple[RCNN, Config], copy: Path
) -> None:
    path = copy / "weights.npz"
    with npz.reading(path) as archive:
        arrays = dict(archive.items())
    change(arrays)
    npz.write(path, arrays.items())
    assert refused(io.read_weights, original[0], path).startswith(f"{path}: {problem}")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda value: value.astype(np.float64), "expected float32 numbers, found float64"),
        (lambda value: value.astype(np.int32), "expected float32 numbers, found int32"),
        (lambda value: value[None], r"expected shape \[5\], found \[1, 5\]"),
        (lambda value: np.full_like(value, np.nan), "expected finite numbers, found nan"),
        (lambda value: np.where(value == value[0], -np.inf, value), "expected finite numbers, found -inf"),
    ],
)
def test_weights_that_are_no_weights(
    change: Callable[[np.ndarray], np.ndarray], problem: str, original: tuple[RCNN, Config], copy: Path
) -> None:
    path = copy / "weights.npz"
    with npz.reading(path) as archive:
        arrays = dict(archive.items())
    npz.write(path, {**arrays, "rpn/conv/bias": change(arrays["rpn/conv/bias"])}.items())
    with pytest.raises(BadInput, match=f"^{path}: rpn/conv/bias: {problem}"):
        io.read_weights(original[0], path)
    if "finite" in problem:
        io.read_weights(original[0], path, finite=False)  # as the replay of a failed batch does
        io.read_weights(original[0], saved_weights := _whole(arrays, copy))
        assert saved_weights.exists()


def _whole(arrays: dict[str, np.ndarray], folder: Path) -> Path:
    """Weights as they were, so that the shared model gets them back."""
    npz.write(folder / "whole.npz", arrays.items())
    return folder / "whole.npz"


def test_headers_are_checked_before_numbers_are_read(
    original: tuple[RCNN, Config], copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copy / "weights.npz"
    with npz.reading(path) as archive:
        arrays = dict(archive.items())
    last = list(arrays)[-1]
    npz.write(path, {**arrays, last: np.zeros(3, np.int8)}.items())

    def read(*_: object) -> np.ndarray:
        raise AssertionError("numbers are read")

    monkeypatch.setattr(npz.Archive, "read", read)
    assert refused(io.read_weights, original[0], path).startswith(f"{path}: {last}: expected ")


def test_a_folder_whose_files_are_no_files(original: tuple[RCNN, Config], copy: Path) -> None:
    (copy / "weights.npz").unlink()
    os.mkfifo(copy / "weights.npz")
    assert refused(io.load, copy) == f"{copy}/weights.npz: cannot be read: not a regular file"


@pytest.mark.parametrize("what", ["pipe", "text", "objects", "nan", "absurd"])
def test_a_table_that_is_no_table(what: str, tmp_path: Path) -> None:
    io.save(*small.model(table=small.table()), tmp_path / "model")
    path = tmp_path / "model" / "embedding.npy"
    whole = path.read_bytes()
    path.unlink()
    if what == "pipe":
        os.mkfifo(path)
    elif what == "text":
        path.write_text("hello")
    elif what == "objects":
        np.save(path, np.array([{}, []], object), allow_pickle=True)
    elif what == "nan":
        np.save(path, small.table() * np.nan)
    else:
        path.write_bytes(whole.replace(b"(7, 9)", b"(7, 9000000000000)".ljust(6))[: len(whole)])
    assert refused(io.load, tmp_path / "model").startswith(f"{path}: ")
