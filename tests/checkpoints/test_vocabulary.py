"""Surgery on the vocabulary: new classes get their rows, and the others do not change."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from maskx_tf.checkpoints import npz, vocabulary
from maskx_tf.checkpoints.settings import resolve
from maskx_tf.checkpoints.variables import named
from maskx_tf.config import Config
from maskx_tf.errors import BadInput
from maskx_tf.models.rcnn import RCNN
from tests.checkpoints import small
from tests.checkpoints.small import quick_backbone  # noqa: F401  (a fixture)

Model = tuple[RCNN, Config]
BUILDERS: dict[str, Callable[[], Model]] = {
    "mask^x": small.model,
    "mask^x, table": lambda: small.model(table=small.table()),
    "mask": lambda: small.model("mask_rcnn"),
    "mask, softmax": lambda: small.model("mask_rcnn", mask={"activation": "softmax"}),
    "mask, mlp": lambda: small.model("mask_rcnn", mask={"head": "mlp", "mlp_width": 4}),
    "mask, agnostic": lambda: small.model("mask_rcnn", mask={"outputs": "agnostic"}, box={"class_agnostic": True}),
    "faster": lambda: small.model("faster_rcnn"),
}


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    """One of each family; no test changes them."""
    return {}


def get(models: dict[str, Model], name: str) -> Model:
    if name not in models:
        models[name] = BUILDERS[name]()
    return models[name]


def of_class(model: Model, name: str) -> list[np.ndarray]:
    """Score, box and mask of a class in a region of noise, which do not depend on other classes."""
    network, config = model
    generator = np.random.default_rng(5)
    index = config.model.class_names.index(name) + 1
    classes = tf.constant([[index]])
    vectors = tf.constant(generator.standard_normal((1, 1, small.WIDTH)), tf.float32)
    said = [
        network.box.predictor(vectors)[0, 0, index].numpy(),
        network.box.predictor(vectors)[0, 0, 0].numpy(),
        network.box.predictor.deltas(vectors, classes).numpy(),
    ]
    if config.model.family != "faster_rcnn":
        pooled = tf.constant(generator.standard_normal((1, 1, 3, 3, 5)), tf.float32)
        if config.model.mask.activation == "softmax":
            every = network.mask.head.all_outputs(pooled).numpy()
            said += [every[..., 0], every[..., index]]
        else:
            said.append(network.mask.logits(pooled, classes, network.mask.prepare()).numpy())
    return said


def assert_same(ours: list[np.ndarray], theirs: list[np.ndarray]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", BUILDERS)
def test_keep_leaves_the_kept_as_they_are(name: str, models: dict[str, Model]) -> None:
    before = get(models, name)
    after = vocabulary.keep(*before, ["eel", "ape", "gnu"])
    assert after[1].model.class_names == ("eel", "ape", "gnu")
    for kept in after[1].model.class_names:
        assert_same(of_class(after, kept), of_class(before, kept))
    old, new = small.values(before[0]), small.values(after[0])
    changed = {part.variable for part in vocabulary.parts(*before).values()}
    assert changed == {variable for variable in old if old[variable].shape != new[variable].shape}
    for variable in set(old) - changed:
        np.testing.assert_array_equal(new[variable], old[variable])


def test_drop_and_reorder(models: dict[str, Model]) -> None:
    before = get(models, "mask^x")
    fewer = vocabulary.drop(*before, ["bee", "gnu"])
    assert fewer[1].model.class_names == ("ape", "cat", "dog", "eel", "fox")
    assert_same(of_class(fewer, "cat"), of_class(before, "cat"))
    moved = vocabulary.reorder(*before, ["fox", "bee"])
    assert moved[1].model.class_names == ("fox", "bee", "ape", "cat", "dog", "eel", "gnu")
    for name in small.CLASSES:
        assert_same(of_class(moved, name), of_class(before, name))
    back = vocabulary.reorder(*moved, small.CLASSES)
    for name, value in small.values(before[0]).items():
        np.testing.assert_array_equal(named(back[0])[name].numpy(), value)


def test_transfer_gives_new_classes_masks_at_once(models: dict[str, Model]) -> None:
    before = get(models, "mask^x")
    rows = vocabulary.fresh(*before, 2, seed=1)
    after = vocabulary.add(*before, ["yak", "zho"], rows)
    assert after[1].model.class_names == (*small.CLASSES, "yak", "zho")
    embedding = np.concatenate([rows["class_rows"], rows["box_rows"].reshape(2, -1)], axis=1)
    expected = before[0].mask.filters.transfer(tf.constant(embedding))
    (filters,) = after[0].mask.prepare()
    np.testing.assert_allclose(filters[-2:], expected, atol=1e-6)
    np.testing.assert_allclose(filters[:-2], before[0].mask.prepare()[0], atol=1e-6)
    for name in small.CLASSES:
        assert_same(of_class(after, name), of_class(before, name))


@pytest.mark.parametrize("name", BUILDERS)
def test_a_copied_class_has_the_scores_of_its_source(name: str, models: dict[str, Model]) -> None:
    before = get(models, name)
    after = vocabulary.add(*before, ["yak"], vocabulary.like(*before, "dog", 1))
    assert_same(of_class(after, "yak"), of_class(before, "dog"))
    assert_same(of_class(after, "gnu"), of_class(before, "gnu"))
    assert np.all(np.isfinite(small.detections(after[0])[1]))


def test_classes_with_keypoints_follow_the_vocabulary() -> None:
    """New classes have none; a class that is dropped leaves the list, and the last one stays."""

    def classes(names: list[str], *having: str) -> tuple[str, ...]:
        keypoint = {"use": True, "names": ["tip"], "classes": having}
        config = resolve({"model": {"class_names": ["ant", "bee", "cow"], "keypoint": keypoint}})
        return vocabulary._with_names(config, names).model.keypoint.classes

    assert classes(["cow", "ant", "bee"]) == ()
    assert classes(["bee"]) == ()
    assert classes(["ant", "bee", "cow", "yak"]) == ("ant", "bee", "cow")
    assert classes(["ant", "cow"], "bee", "cow") == ("cow",)
    assert classes(["ant", "bee", "cow", "yak"], "bee") == ("bee",)
    with pytest.raises(BadInput, match="expected a class with keypoints to be left, such as bee"):
        classes(["ant", "cow"], "bee")


def test_fresh_rows(models: dict[str, Model]) -> None:
    rows = vocabulary.fresh(*get(models, "mask"), 4000, seed=1)
    assert {kind: array.shape[1:] for kind, array in rows.items()} == {
        "class_rows": (small.WIDTH,),
        "class_bias": (),
        "box_rows": (4, small.WIDTH),
        "box_bias": (4,),
        "mask_rows": (small.CHANNELS,),
        "mask_bias": (),
    }
    deviations = {kind: float(array.std()) for kind, array in rows.items()}
    for kind, deviation in {"class_rows": 0.01, "box_rows": 0.001, "mask_rows": (2 / 7) ** 0.5}.items():
        assert abs(deviations[kind] / deviation - 1) < 0.05
    assert {kind for kind, deviation in deviations.items() if deviation == 0} == {"class_bias", "box_bias", "mask_bias"}
    again, other = (vocabulary.fresh(*get(models, "mask"), 2, seed=seed)["class_rows"] for seed in (1, 2))
    np.testing.assert_array_equal(again, vocabulary.fresh(*get(models, "mask"), 2, seed=1)["class_rows"])
    assert not np.array_equal(again, other)
    with pytest.raises(BadInput, match=r"T reads a table of embeddings: .* with --from FILE.npz"):
        vocabulary.fresh(*get(models, "mask^x, table"), 1, seed=1)


def test_given_rows(models: dict[str, Model], tmp_path: Path) -> None:
    before = get(models, "mask^x, table")
    rows = vocabulary.like(*before, "ape", 2)
    rows["embedding"] = small.table(2) + 7
    rows["class_bias"] = np.float32([3, 4])
    path = tmp_path / "rows.npz"
    npz.write(path, rows.items())
    after = vocabulary.add(*before, ["yak", "zho"], vocabulary.read(path, *before, 2))
    np.testing.assert_array_equal(after[0].mask.filters.embeddings.rows()[-2:], rows["embedding"])
    np.testing.assert_array_equal(after[0].mask.filters.embeddings.rows()[:-2], small.table())
    np.testing.assert_array_equal(named(after[0])["box_predictor/class_bias"][-2:], [3, 4])
    expected = before[0].mask.filters.transfer(tf.constant(rows["embedding"]))
    np.testing.assert_allclose(after[0].mask.prepare()[0][-2:], expected, atol=1e-6)

    del rows["class_bias"]
    npz.write(path, rows.items())
    assert not vocabulary.read(path, *before, 2)["class_bias"].any()
    for change, problem in (
        ({"embedding": small.table(3)}, "embedding: expected shape [2, 9], found [3, 9]"),
        ({"box_rows": np.zeros((2, 4, 6), int)}, "box_rows: expected finite floating point numbers"),
        ({"mask_rows": np.zeros(1)}, "expected box_bias, box_rows, class_bias, class_rows, embedding, found "),
    ):
        npz.write(path, {**rows, **change}.items())
        with pytest.raises(BadInput) as caught:
            vocabulary.read(path, *before, 2)
        assert str(caught.value).startswith(f"{path}: {problem}")
    with pytest.raises(BadInput, match="rows of new classes: class_rows: expected shape"):
        vocabulary.add(*before, ["yak"], vocabulary.like(*before, "ape", 2))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda model: vocabulary.keep(*model, []), "expected at least one class to stay"),
        (lambda model: vocabulary.drop(*model, small.CLASSES), "expected at least one class to stay"),
        (lambda model: vocabulary.drop(*model, ["yak"]), "expected classes of the model, found yak"),
        (lambda model: vocabulary.reorder(*model, ["ape", "ape"]), "expected no class twice, found ape"),
        (lambda model: vocabulary.like(*model, "yak", 1), "expected classes of the model, found yak"),
        (lambda model: vocabulary.add(*model, ["ape"], {}), "expected names that are new, found ape twice"),
        (lambda model: vocabulary.add(*model, ["yak", "yak"], {}), "expected names that are new, found yak twice"),
        (lambda model: vocabulary.add(*model, ["yak"], {}), "rows of new classes: expected box_bias, "),
        (lambda model: vocabulary.attach_masks(*model), "expected a model of family faster_rcnn, found mask_x_rcnn"),
    ],
)
def test_mistakes(change: Callable[[Model], Any], problem: str, models: dict[str, Model]) -> None:
    with pytest.raises(BadInput) as caught:
        change(get(models, "mask^x"))
    assert str(caught.value).startswith(problem)


def test_a_detector_gets_masks(models: dict[str, Model]) -> None:
    before = get(models, "faster")
    overrides = ("model.transfer.layers=3", "model.mask.mlp_branch=lean", "model.transfer.input=cls")
    overrides += ("model.roi.mask_size=4", "model.detections.paste=integer")
    network, config = vocabulary.attach_masks(*before, overrides)
    assert (config.model.family, config.model.transfer.layers) == ("mask_x_rcnn", 3)
    for name, value in small.values(before[0]).items():
        np.testing.assert_array_equal(named(network)[name].numpy(), value)
    new = {name.partition("/")[0] for name in set(named(network)) - set(named(before[0]))}
    assert new == {"mask_head", "transfer"}
    boxes = small.detections(before[0])
    assert_same(small.detections(network)[:4], boxes)
    assert small.detections(network)[4].shape == (1, 10, 8, 8)
    with pytest.raises(BadInput, match="unknown"):
        vocabulary.attach_masks(*before, ["model.transfer.layer=3"])
    with pytest.raises(BadInput, match="expected a family with a mask head"):
        vocabulary.attach_masks(*before, ["model.family=faster_rcnn"])


@pytest.mark.parametrize(
    ("overrides", "changed"),
    [
        (["model.backbone.fpn_channels=6"], "model.backbone"),
        (["model.backbone.neck=c5", "model.anchors.sizes=[[8.0]]"], "model.anchors, model.backbone"),
        (["model.keypoint={use: true, names: [tip], convs: 1, channels: 2}"], "model.keypoint"),
        # The weights would fit, and mean something else.
        (["model.box.delta_weights=[1.0, 1.0, 1.0, 1.0]"], "model.box"),
        (["model.input.pixel_mean=[1.0, 2.0, 3.0]"], "model.input"),
        (["model.anchors.ratios=[0.4, 1.0, 2.0]"], "model.anchors"),
        (["model.roi.aligned=false", "model.roi.mask_size=5"], "model.roi"),
        (["model.class_names=[bee, ape, cat, dog, eel, fox, gnu]"], "model.class_names"),
    ],
)
def test_a_detector_stays_as_it_is(overrides: list[str], changed: str, models: dict[str, Model]) -> None:
    with pytest.raises(BadInput, match=f"expected settings that leave the detector as it is, found .* in {changed}$"):
        vocabulary.attach_masks(*get(models, "faster"), overrides)


def test_policies_of_masks_lose_dropped_classes() -> None:
    def after(names: list[str], masks: str | list[str] | dict[str, dict[str, int]]) -> Any:
        policies = {section: {"masks": copy.deepcopy(masks)} for section in ("data", "evaluate")}
        config = vocabulary._with_names(resolve({"model": {"class_names": ["ant", "bee", "cow"]}, **policies}), names)
        assert config.evaluate.masks == config.data.masks
        return config.data.masks

    assert after(["cow", "bee"], ["ant", "bee"]) == ("bee",)
    assert after(["cow"], ["ant", "bee"]) == "none"
    assert (after(["cow", "yak"], "all"), after(["cow"], "none")) == ("all", "none")
    for masks in ("voc", {"random": {"a": 1}}):
        with pytest.raises(BadInput, match="masks: expected all, none, oracle or a list of classes, found "):
            after(["cow"], masks)


def test_ids_of_the_data_set() -> None:
    assert vocabulary.category_ids([7, 3, 90], ["a", "b", "c"], ["c", "new", "a", "other"]) == [90, 91, 7, 92]
    assert vocabulary.category_ids(None, ["a"], ["b"]) is None
