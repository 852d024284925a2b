"""`reader`: the example of docs/data.md, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskx_tf.config import load
from maskx_tf.data import opening
from maskx_tf.errors import BadInput

PAGE = Path(__file__).resolve().parents[2] / "docs" / "data.md"


@pytest.fixture(autouse=True)
def _the_pages_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    example = PAGE.read_text(encoding="utf-8").partition("### A reader of your own")[2].split("```python\n")[1]
    Path("my_reader.py").write_text(
        example.split("```")[0] + "\n\ndef broken(images, annotations):\n    return 1 / 0\n\n\nnothing = 3\n",
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
