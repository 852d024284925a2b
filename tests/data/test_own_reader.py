"""`reader`: the example of docs/data.md, and what is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskx_tf.config import load
from maskx_tf.data import opening
from maskx_tf.data.dataset import Dataset
from maskx_tf.errors import BadInput
from maskx_tf.masks import rle

PAGE = Path(__file__).resolve().parents[2] / "docs" / "data.md"


@pytest.fixture(autouse=True)
def _the_pages_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    example = PAGE.read_text(encoding="utf-8").partition("### A reader of your own")[2].split("```python\n")[1]
    Path("my_reader.py").write_text(
        example.split("```")[0]
        + "\n\ndef broken(images, annotations):\n    return 1 / 0\n\n\nnothing = 3\nchange = dict\n\n\n"
        + "def changed(images, annotations):\n    return change(read(images, annotations))\n",
        encoding="utf-8",
    )
    Path("photos").mkdir()
    Image.fromarray(np.zeros([40, 60, 3], np.uint8)).save("photos/a.png")
    Path("boxes.txt").write_text("a.png 60 40 2 5 6 30 20.5\n", encoding="utf-8")


def training(reader: str) -> opening.Dataset:
    source = f"{{images: photos, annotations: boxes.txt, reader: {reader}}}"
    return opening.training_set(load("own_data", [f"data.train=[{source}]"]).data)


def test_example_of_the_page_is_read() -> None:
    dataset = training("my_reader.read")
    assert dataset.class_names == ("cat", "dog")
    (image,) = dataset.images
    assert (image.file, image.width, image.height) == (Path("photos/a.png"), 60, 40)
    assert [(one.box, one.label, one.has_mask) for one in image.instances] == [((5.0, 6.0, 30.0, 20.5), 2, False)]


def changed(monkeypatch: pytest.MonkeyPatch, change: Callable[[Dataset], Dataset]) -> Dataset:
    """What training sees of a data set that the function changes."""
    sys.modules.pop("my_reader", None)
    monkeypatch.syspath_prepend(".")
    monkeypatch.setattr("my_reader.change", change)
    return training("my_reader.changed")


def with_instance(dataset: Dataset, **values: Any) -> Dataset:
    (image,) = dataset.images
    return dataset._replace(images=(image._replace(instances=(image.instances[0]._replace(**values),)),))


RUNS = {"size": [40, 60], "counts": [0, 40 * 60]}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda data: with_instance(data, label=0),
            "ONE: label: expected a number from 1 to 2, found 0",
        ),
        (
            lambda data: with_instance(data, label=3),
            "ONE: label: expected a number from 1 to 2, found 3",
        ),
        (lambda data: with_instance(data, label=1.5), "ONE: label: expected a whole number"),
        (lambda data: with_instance(data, box=(1, 2, 3)), "ONE: box: expected x1, y1, x2, y2"),
        (lambda data: with_instance(data, box=(9, 2, 3, 4)), "ONE: box: expected x1, y1, x2, y2"),
        (
            lambda data: with_instance(data, box=(1, 2, 3, float("nan"))),
            "ONE: box: expected a number",
        ),
        (
            lambda data: with_instance(data, segmentation=RUNS | {"counts": [5]}),
            "ONE: segmentation.counts: expected runs that add up to 2400, found 5",
        ),
        (
            lambda data: with_instance(data, segmentation=np.ones([40, 60])),
            "ONE: segmentation: expected polygons, run lengths (",
        ),
        (lambda data: with_instance(data, clicks=np.ones([5])), "ONE: clicks: expected an array"),
        (lambda data: data._replace(images=data.images * 2), "id: expected another for each image, found 1"),
        (lambda data: data._replace(images=(data.images[0]._replace(file="a"),)), "image 1: file: expected a pathlib"),
        (lambda data: data._replace(images=(data.images[0]._replace(width=0),)), "image 1: width: expected a number"),
        (lambda data: data._replace(images=None), "expected a Dataset as docs/data.md describes it: 'NoneType'"),
        (lambda data: with_instance(data, box=None), "expected a Dataset as docs/data.md describes it: 'NoneType'"),
        (lambda data: data._replace(category_ids=(1,)), "category_ids: expected a different one for each class"),
        (lambda data: data._replace(category_ids=(1, 1)), "category_ids: expected a different one for each class"),
        (lambda data: data._replace(class_names=("cat",) * 2), "class_names: expected a different one for each class"),
    ],
)
def test_what_a_reader_returns_is_checked(monkeypatch: pytest.MonkeyPatch, change: Any, problem: str) -> None:
    with pytest.raises(BadInput) as refused:
        changed(monkeypatch, change)
    said = str(refused.value).replace("image 1: instances[0]", "ONE")
    assert said.startswith(f"reader: my_reader.changed: {problem}")


def test_numbers_and_masks_may_be_of_any_type(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(dataset: Dataset) -> Dataset:
        return with_instance(dataset, label=np.int64(1), box=np.float32([1, 2, 30, 40]), segmentation=RUNS)

    ((one,),) = (image.instances for image in changed(monkeypatch, change).images)
    assert (one.label, one.box) == (1, (1.0, 2.0, 30.0, 40.0))
    assert rle.area(one.segmentation) == 2400


@pytest.mark.parametrize(
    ("reader", "problem"),
    [
        ("my_reader.raed", "reader: my_reader has no raed; did you mean 'read'?"),
        ("my_reader.broken", "reader: my_reader.broken failed: division by zero"),
        ("my_reader.nothing", "reader: expected a function, found my_reader.nothing"),
        ("os.path.join", "reader: expected a maskx_tf.data.dataset.Dataset of os.path.join, found <class 'str'>"),
    ],
)
def test_mistakes_are_one_line(reader: str, problem: str) -> None:
    with pytest.raises(BadInput) as refused:
        training(reader)
    assert str(refused.value) == problem
