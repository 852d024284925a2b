"""The synthetic benchmark: its rules for classes, scenes and files, and that it is reproducible."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from maskx_tf.data.checks import check
from maskx_tf.data.dataset import bitmap
from maskx_tf.data.formats.readers import DataFiles, for_evaluation, for_training
from maskx_tf.errors import BadInput
from maskx_tf.masks import rle
from maskx_tf.synthetic import generate as module
from maskx_tf.synthetic.generate import generate
from maskx_tf.synthetic.materials import HUE_CIRCLE, MATERIALS, TEXTURES, rgb
from maskx_tf.synthetic.painter import Pose, patch, shrink, turn, visible_masks
from maskx_tf.synthetic.parameters import LEAST_A, Recipe, usual_a
from maskx_tf.synthetic.recipe import LEAST_OF_MATERIAL, a_classes, classes, follows_rule, sizes
from maskx_tf.synthetic.scene import scene
from maskx_tf.synthetic.silhouettes import SILHOUETTES, area
from tests import disk

SMALL = Recipe(images=20, size=64)


def digest(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def source(folder: Path, part: str) -> DataFiles:
    return DataFiles(folder / part, folder / f"instances_{part}.json", masks_b=folder / f"masks_b_{part}.json")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "bench"
    generate(SMALL, folder)
    return folder


def test_two_runs_and_any_number_of_processes_write_the_same_bytes(bench: Path, tmp_path: Path) -> None:
    generate(SMALL, tmp_path / "again")
    assert digest(tmp_path / "again") == digest(bench)
    advanced: list[int] = []
    generate(SMALL, tmp_path / "two", workers=2, advance=lambda: advanced.append(1))
    assert digest(tmp_path / "two") == digest(bench)
    assert len(advanced) == SMALL.images
    generate(SMALL._replace(seed=1), tmp_path / "other")
    assert not set(digest(tmp_path / "other").values()) & set(digest(bench).values())


def test_pixels_and_classes_are_those_of_every_other_machine() -> None:
    # These were computed on Linux, x86-64 with AVX-512, NumPy 2.4. If a change of the generator is meant, say so under
    # "Numerical changes" and write the new ones here.
    recipe = Recipe()
    drawn = [scene(recipe, classes(recipe), part, index) for part in ("train", "test") for index in (0, 999_999)]
    pixels = hashlib.sha256(b"".join(one.pixels.tobytes() for one in drawn)).hexdigest()
    masks = hashlib.sha256(b"".join(np.packbits(o.mask).tobytes() for one in drawn for o in one.objects)).hexdigest()
    names = hashlib.sha256("|".join(sorted(a_classes(recipe))).encode()).hexdigest()
    assert (pixels[:16], masks[:16], names[:16]) == ("5e861a0c4ab59b3e", "8da00cf8a0a42cd2", "d092bb1327c996ec")


def test_scenes_do_not_depend_on_how_many_there_are() -> None:
    many, few = Recipe(images=5000), Recipe(images=10)
    one, other = (scene(recipe, classes(recipe), "val", 0) for recipe in (many, few))
    np.testing.assert_array_equal(one.pixels, other.pixels)
    assert [each.label for each in one.objects] == [each.label for each in other.objects]


@pytest.mark.parametrize("count", [20, 23, 40, 61, 80])
@pytest.mark.parametrize("seed", [0, 1])
def test_silhouettes_and_materials_occur_equally_often(count: int, seed: int) -> None:
    recipe = Recipe(classes=count, a=usual_a(count), seed=seed)
    every = classes(recipe)
    assert len(set(every)) == len({one.name for one in every}) == count
    for values, of in (((one.silhouette for one in every), 10), ((one.material for one in every), 8)):
        times = Counter(values)
        assert len(times) == of
        assert max(times.values()) - min(times.values()) <= 1


@pytest.mark.parametrize(("count", "a"), [(40, 28), (40, 20), (40, 16), (40, 39), (80, 16), (20, 16)])
@pytest.mark.parametrize("seed", [0, 1])
def test_b_shares_silhouettes_and_materials_with_a(count: int, a: int, seed: int) -> None:
    recipe = Recipe(classes=count, a=a, seed=seed)
    names = a_classes(recipe)
    chosen = [one for one in classes(recipe) if one.name in names]
    assert len(names) == len(chosen) == a
    assert follows_rule(chosen)
    assert min(Counter(one.material for one in chosen).values()) >= LEAST_OF_MATERIAL == LEAST_A // len(MATERIALS)


def test_the_split_depends_on_the_seed() -> None:
    assert len({a_classes(Recipe(seed=seed)) for seed in range(5)}) == 5


def test_eight_hues_are_far_apart_and_each_texture_has_two() -> None:
    angles = sorted(one.angle for one in MATERIALS)
    assert set(np.diff([*angles, angles[0] + HUE_CIRCLE])) == {HUE_CIRCLE // 8}
    assert Counter(one.texture for one in MATERIALS) == dict.fromkeys(TEXTURES, 2)


@pytest.mark.parametrize(
    ("hue", "colour"), [(0, (200, 0, 0)), (256, (200, 200, 0)), (512, (0, 200, 0)), (1024, (0, 0, 200))]
)
def test_colours(hue: int, colour: tuple[int, int, int]) -> None:
    assert max(abs(a - b) for a, b in zip(rgb(hue, 255, 200), colour, strict=True)) <= 1
    assert rgb(hue, 0, 200) == (200, 200, 200)


def test_turns_are_exact_and_go_all_around() -> None:
    generator = np.random.default_rng(0)
    turns = [turn(generator) for _ in range(500)]
    assert all(cosine**2 + sine**2 == norm**2 for cosine, sine, norm in turns)
    angles = np.degrees([np.arctan2(sine, cosine) for cosine, sine, _ in turns])
    assert np.histogram(angles, 8, (-180, 180))[0].min() > 30


@pytest.mark.parametrize("name", SILHOUETTES)
def test_silhouettes_keep_their_area_in_any_pose(name: str) -> None:
    generator = np.random.default_rng(1)
    for _ in range(10):
        radius = int(generator.integers(60, 130))
        spot = patch(Pose(400, 400, radius, *turn(generator), True), SILHOUETTES[name], 200)
        assert spot.inside.sum() == pytest.approx(area(name) * (radius / 2 / 1024) ** 2, rel=0.05)
        assert not spot.inside[[0, -1]].any()
        assert not spot.inside[:, [0, -1]].any()


def test_silhouettes_are_ten_different_shapes() -> None:
    pose = Pose(400, 400, 200, 1, 0, 1)
    shapes = [patch(pose, one, 200).inside for one in SILHOUETTES.values()]
    for index, shape in enumerate(shapes):
        for other in shapes[:index]:
            assert (shape & other).sum() < 0.9 * (shape | other).sum()
    hollow = [
        name
        for name, shape in zip(SILHOUETTES, shapes, strict=True)
        if not shape[shape.shape[0] // 2, shape.shape[1] // 2]
    ]
    assert {"ring", "frame"} <= set(hollow)


def test_canvas_and_owners_shrink_to_pixels() -> None:
    canvas = np.array([[[0], [10]], [[20], [30]]], np.int32)
    assert shrink(canvas).tolist() == [[[15]]]
    owners = np.array([[1, 1, 1, 2, 0, 0], [2, 2, 1, 1, 0, 2]], np.int32)
    first, second = visible_masks(owners, 2)
    assert (first.tolist(), second.tolist()) == ([[False, True, False]], [[True, False, False]])


def test_masks_are_the_visible_part_and_boxes_lie_tight(bench: Path) -> None:
    counts = []
    for part in ("train", "val", "test"):
        for image in for_evaluation([source(bench, part)]).images:
            masks = [bitmap(one.segmentation, 64, 64) for one in image.instances]
            assert np.sum(masks, axis=0).max() == 1
            for one, mask in zip(image.instances, masks, strict=True):
                assert one.box == rle.extent(rle.encode(mask))
            counts.append(len(masks))
    assert min(counts) >= 2
    assert max(counts) <= 6


def test_companions_overlap_and_can_be_left_out() -> None:
    def crowded(recipe: Recipe) -> tuple[float, float]:
        """The share of boxes with another object on a tenth of them, and the objects of a scene."""
        found = []
        scenes = [scene(recipe, classes(recipe), "train", index).objects for index in range(60)]
        for objects in scenes:
            masks = np.array([one.mask for one in objects])
            for number, mask in enumerate(masks):
                rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
                inside = np.delete(masks, number, 0)[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
                found.append(inside.any(0).mean() > 0.1)
        return float(np.mean(found)), float(np.mean([len(objects) for objects in scenes]))

    usual, alone = crowded(Recipe()), crowded(Recipe(companions=0.0))
    assert usual[0] > 0.5
    assert alone[0] < 0.1
    assert usual[1] > 1.5 * alone[1]
    assert crowded(Recipe(companions=1.0, offset=1.0))[0] < 0.3
    assert crowded(Recipe(companions=1.0, offset=2.0))[1] > 2  # many places lie outside the image


def test_the_files_keep_the_masks_of_b_apart(bench: Path) -> None:
    names = a_classes(SMALL)
    for part, images in sizes(SMALL).items():
        data = json.loads((bench / f"instances_{part}.json").read_text())
        apart = json.loads((bench / f"masks_b_{part}.json").read_text())
        assert len(data["images"]) == len(list((bench / part).glob("*.png"))) == images
        a_ids = {one["id"] for one in data["categories"] if one["name"] in names}
        assert len(a_ids) == SMALL.a
        for one in data["annotations"]:
            assert ("segmentation" in one) == (one["category_id"] in a_ids)
            assert one["area"] <= one["bbox"][2] * one["bbox"][3]
            if "segmentation" not in one:
                assert one["area"] == one["bbox"][2] * one["bbox"][3], "the area of the mask would say something of it"
        assert {one["category_id"] for one in apart["annotations"]}.isdisjoint(a_ids)
        assert len(apart["annotations"]) == sum("segmentation" not in one for one in data["annotations"])


def test_training_gets_the_masks_of_b_by_the_oracle_alone(bench: Path) -> None:
    names = a_classes(SMALL)
    for policy, expected in (("all", names), ("oracle", {one.name for one in classes(SMALL)})):
        dataset = for_training([source(bench, "train")], policy)
        with_masks = {
            dataset.class_names[o.label - 1] for image in dataset.images for o in image.instances if o.has_mask
        }
        without = {dataset.class_names[o.label - 1] for image in dataset.images for o in image.instances} - with_masks
        assert with_masks <= expected
        assert without.isdisjoint(expected)


def test_the_checks_find_nothing_wrong(bench: Path) -> None:
    for part in ("train", "val", "test"):
        _, findings = check(source(bench, part))
        assert set(findings.counts) <= {"rectangle_mask", "unused_class"}


def test_the_recipe_is_written_next_to_the_data(bench: Path) -> None:
    text = (bench / "README.md").read_text()
    assert "--images 20 --size 64 --classes 40 --a 28 --companions 0.7 --offset 0.35 --seed 0" in text
    assert all(one.name in text for one in classes(SMALL))


@pytest.mark.parametrize(
    "changes",
    [{"images": 9}, {"size": 63}, {"size": 2000}, {"classes": 19}, {"classes": 81}, {"a": 15}, {"a": 40}, {"seed": -1},
     {"companions": 1.1}, {"companions": float("nan")}, {"offset": 0.0}, {"offset": float("inf")}],
)  # fmt: skip
def test_parameters_that_cannot_be(changes: dict[str, float], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=f"--{next(iter(changes))} .*: expected "):
        generate(SMALL._replace(**changes), tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    for out in (tmp_path / "out", tmp_path / "out" / "mine"):
        with pytest.raises(BadInput, match="expected a new folder, or an empty one"):
            generate(SMALL, out)
    with pytest.raises(BadInput, match="cannot be written: Not a directory"):
        generate(SMALL, tmp_path / "out" / "mine" / "below")
    assert os.listdir(tmp_path / "out") == ["mine"]


@disk.each_error
def test_what_fails_leaves_nothing(error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Each scene is drawn once, and not again for every step.
    monkeypatch.setattr(module, "scene", functools.cache(scene))

    def write() -> None:
        generate(SMALL._replace(images=10), tmp_path / "out")

    steps = 0
    for steps in disk.each_step(write, error, BadInput if isinstance(error, OSError) else KeyboardInterrupt):  # noqa: B007
        assert os.listdir(tmp_path) in ([], ["out"])
        assert not os.listdir(tmp_path) or (tmp_path / "out" / "README.md").exists()
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
    assert steps > 50


def test_worker_processes_on_a_full_disk_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"out: cannot be written: File too large$"), disk.no_room_beyond(500):
        generate(SMALL._replace(images=10), tmp_path / "out", workers=2)
    assert os.listdir(tmp_path) == []


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    generate(SMALL._replace(images=10), tmp_path / "out")
    assert (tmp_path / "out" / "README.md").exists()
    assert module.PARTS == ("train", "val", "test")
