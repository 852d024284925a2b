"""Several data sets become one, by the names of their classes."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskx_tf.data.dataset import Dataset, ImageRecord, Instance
from maskx_tf.data.formats.join import join, read_names
from maskx_tf.data.formats.readers import for_training
from maskx_tf.errors import BadInput
from tests.data import samples


def dataset(name: str, *class_names: str) -> Dataset:
    """One image with an instance of each class."""
    instances = tuple(Instance((0, 0, 9, 9), label) for label in range(1, len(class_names) + 1))
    ids = tuple(10 * label for label in range(1, len(class_names) + 1))
    return Dataset(name, class_names, ids, (ImageRecord(7, Path(name), 9, 9, instances),))


def shown(joined: Dataset) -> list[list[str]]:
    return [[joined.class_names[one.label - 1] for one in image.instances] for image in joined.images]


def test_equal_names_become_one_class() -> None:
    joined = join([dataset("x", "dog", "cat"), dataset("y", "cow", "dog")])
    assert joined.name == "x + y"
    assert joined.class_names == ("dog", "cat", "cow")
    assert shown(joined) == [["dog", "cat"], ["cow", "dog"]]
    assert [image.id for image in joined.images] == [1, 2]
    assert joined.category_ids == (1, 2, 3)


def test_one_data_set_stays_as_it_is() -> None:
    assert join([dataset("x", "dog", "cat")]) == dataset("x", "dog", "cat")


def test_names_are_changed_merged_and_dropped() -> None:
    names = {"sofa": "couch", "settee": "couch", "ghost": None}
    joined = join([dataset("x", "ghost", "sofa", "settee", "couch", "cat")], names)
    assert joined.class_names == ("couch", "cat")
    assert joined.category_ids == (20, 50)
    assert shown(joined) == [["couch", "couch", "couch", "cat"]]
    joined = join([dataset("x", "couch"), dataset("y", "ghost", "sofa", "settee")], names)
    assert shown(joined) == [["couch"], ["couch", "couch"]]


def test_names_that_do_not_fit() -> None:
    with pytest.raises(BadInput, match="expected a class of x, found 'sfoa'; did you mean 'sofa'"):
        join([dataset("x", "sofa")], {"sfoa": "couch"})
    with pytest.raises(BadInput, match="expected some class of x to be left"):
        join([dataset("x", "sofa")], {"sofa": None})


def test_the_file_of_names(tmp_path: Path) -> None:
    path = tmp_path / "names.yaml"
    path.write_text("sofa: couch  # as COCO says\nghost: null\nküche: gnome\n", encoding="utf-8")
    assert read_names(path) == {"sofa": "couch", "ghost": None, "küche": "gnome"}
    for text, what in [
        ("- a", "expected lines such as"),
        ("a: 1", "a: expected a name or null, found 1"),
        ("a: [", "YAML"),
    ]:
        path.write_text(text)
        with pytest.raises(BadInput, match=what):
            read_names(path)
    with pytest.raises(BadInput, match="cannot be read"):
        read_names(tmp_path / "none.yaml")


def test_a_policy_uses_the_new_names(tmp_path: Path) -> None:
    sources = [samples.coco(tmp_path / "a"), samples.masks(tmp_path / "b")]
    joined = for_training(sources, ("hound",), {"dog": "hound", "traffic light": None})
    assert joined.class_names == ("hound",)
    assert [[one.has_mask for one in image.instances] for image in joined.images] == [
        [True, False],
        [True],
        [True, True],
        [],
        [],
    ]
