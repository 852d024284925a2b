"""From image files to detections in their own pixels, and the `maskx predict` command around it."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from pycocotools import mask as coco_mask

from maskx_tf.cli import run
from maskx_tf.config import Config, ModelConfig
from maskx_tf.data.dataset import ImageRecord
from maskx_tf.data.images import load_pixels
from maskx_tf.errors import BadInput
from maskx_tf.masks.paste import paste, paste_crops
from maskx_tf.masks.results import coco_results
from maskx_tf.masks.rgb import read_image
from maskx_tf.masks.steps import MaskSteps
from maskx_tf.models.build import build
from maskx_tf.prediction import engines
from maskx_tf.prediction.images import ImagePredictor, View, pixels_of
from maskx_tf.prediction.views import Look, agreed
from maskx_tf.structures import Detections
from maskx_tf.tasks.images import at_least, find_images, image_ids, picture_files
from maskx_tf.tasks.models import Model, opened
from maskx_tf.tasks.predict import predict
from tests.models.small import predict_eagerly

SETTINGS = {
    "family": "mask_x_rcnn",
    "class_names": ["hat", "shoe", "bag"],
    "backbone": {"name": "resnet_small", "fpn_channels": 32},
    "input": {"canvas": [96, 96], "short_side": 96, "long_side": 96},
    "rpn": {"pre_nms_test": 50, "post_nms_test": 30},
    "box": {"width": 32},
    "mask": {"channels": 32},
    "detections": {"score": 0.2, "limit": 10},
}


@pytest.fixture(autouse=True)
def _eager(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.function not in (test_command, test_given_boxes_get_masks):
        predict_eagerly(monkeypatch)


@pytest.fixture(scope="module")
def predictor() -> ImagePredictor:
    tf.keras.utils.set_random_seed(3)
    config = ModelConfig.model_validate(SETTINGS)
    return ImagePredictor(build(config), config)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)


def test_detections_are_in_the_images_own_pixels(predictor, picture) -> None:
    found = predictor(picture)
    assert len(found.boxes) == 10
    assert found.masks.shape == (10, 28, 28)
    assert (found.boxes >= 0).all()
    assert (found.boxes[:, 2] <= 80).all()
    assert (found.boxes[:, 3] <= 60).all()
    # The canvas is 96 wide: a box in canvas pixels would reach beyond the image.
    assert found.boxes[:, 2].max() > 60
    assert (np.diff(found.scores) <= 0).all()
    assert set(found.classes) <= {1, 2, 3}


def look(predictor: ImagePredictor, image: np.ndarray, views: list[View]) -> Detections:
    return agreed([Look(predictor, view) for view in views], image)


def test_one_plain_view_changes_nothing(predictor, picture) -> None:
    plain, augmented = predictor(picture), look(predictor, picture, [View()])
    for one, other in zip(plain, augmented, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_allclose(one, other, atol=2e-3)


@pytest.mark.parametrize(
    ("neck", "maps", "canvas", "scaled"),
    [("dc5", 1, (48, 80), (48, 64)), ("c4", 1, (48, 80), (48, 64)), ("fpn", 5, (64, 96), (64, 96))],
)
def test_plain_view_is_on_the_configured_canvas(neck, maps, canvas, scaled, picture, monkeypatch) -> None:
    """As in evaluation, batch jobs and exports. Other views round it up to a multiple of the neck's stride."""
    fake = Mock(return_value=Mock(features=lambda pixels, size: pixels))
    monkeypatch.setattr("maskx_tf.prediction.images.Predictor", fake)
    settings = {"input": {"canvas": canvas}, "backbone": {"neck": neck}, "anchors": {"sizes": [[8.0]] * maps}}
    predictor = ImagePredictor(Mock(), ModelConfig.model_validate(settings))
    for view, expected in ((View(), canvas), (View(0.75, flip=True), scaled)):
        assert predictor.features_view(picture, view)[0].shape == (1, *expected, 3)


def test_mirrored_view_of_the_mirrored_image(predictor, picture) -> None:
    plain = predictor(picture)
    mirrored = look(predictor, picture[:, ::-1], [View(flip=True)])
    boxes = plain.boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [80, 0, 80, 0]
    np.testing.assert_allclose(mirrored.boxes, boxes, atol=1e-3)
    np.testing.assert_allclose(mirrored.masks, plain.masks[:, :, ::-1], atol=2e-3)


def test_views_of_several_sizes_are_merged(predictor, picture) -> None:
    found = look(predictor, picture, [View(), View(1.25, flip=True)])
    assert len(found.boxes) == 10
    assert not np.array_equal(found.scores, predictor(picture).scores)
    for number in (1, 2, 3):
        boxes = found.boxes[found.classes == number]
        low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
        high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
        shared = np.prod(np.maximum(high - low, 0), axis=-1)
        area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1)
        iou = shared / (area[:, None] + area[None] - shared)
        assert (iou[~np.eye(len(boxes), dtype=bool)] <= 0.5 + 1e-5).all()


def test_given_boxes_get_masks(predictor, picture) -> None:
    found = predictor(picture)
    again = predictor.segment(picture, found.boxes, found.classes)
    np.testing.assert_allclose(again.masks, found.masks, atol=2e-3)
    guessed = predictor.segment(picture, found.boxes)
    assert guessed.classes.shape == (10,)
    assert ((guessed.scores > 0) & (guessed.scores < 1)).all()


def test_no_detection(picture) -> None:
    config = ModelConfig.model_validate({**SETTINGS, "detections": {"score": 1.0}})
    predictor = ImagePredictor(build(config), config)
    for found in (predictor(picture), look(predictor, picture, [View(), View(flip=True)])):
        assert found.boxes.shape == (0, 4)
        assert found.masks.shape[0] == 0


def test_image_files(tmp_path, picture) -> None:
    Image.fromarray(picture).save(tmp_path / "plain.png")
    np.testing.assert_array_equal(read_image(tmp_path / "plain.png"), picture)
    grey = picture[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), np.repeat(grey[..., None], 3, axis=2))
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png"), np.repeat(grey[..., None], 3, axis=2))
    Image.fromarray(np.dstack([picture, grey])).save(tmp_path / "alpha.png")
    np.testing.assert_array_equal(read_image(tmp_path / "alpha.png"), picture)
    rotated = Image.fromarray(picture)
    exif = rotated.getexif()
    exif[274] = 6  # to be turned by a quarter, clockwise
    rotated.save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.png"), np.rot90(picture, -1))


@pytest.mark.parametrize("exif", [b"Exif\0\0no TIFF file", b"Exif\0\0II*\0"])
def test_broken_exif_data_harm_no_image(tmp_path, picture, exif) -> None:
    file = tmp_path / "photo.webp"
    Image.fromarray(picture).save(file, exif=exif, lossless=True)
    with Image.open(file) as image:
        seen = [read_image(file), pixels_of(image), engines._decoded(file.read_bytes(), 10_000)]
    for pixels in (*seen, load_pixels(ImageRecord(1, file, 80, 60))):
        np.testing.assert_array_equal(pixels, picture)


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n"])
def test_broken_images(tmp_path, content) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"broken\.png: expected an image") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


def test_truncated_image(tmp_path, picture) -> None:
    Image.fromarray(picture).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "part.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match=r"part\.png"):
        read_image(tmp_path / "part.png")


def test_files_ids_and_names(tmp_path) -> None:
    for name in ("b/2.jpg", "b/1.PNG", "a/3.jpg", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = list(find_images([str(tmp_path), str(tmp_path / "b/2.jpg"), str(tmp_path / "*/3.jpg")]))
    assert [file.name for file in found] == ["3.jpg", "1.PNG", "2.jpg"]
    assert list(image_ids(found).values()) == [3, 1, 2]
    same = [Path("a/3.jpg"), Path("b/3.jpg"), Path("b/4.jpg")]
    assert list(image_ids(same).values()) == [1, 2, 3]
    (tmp_path / "b/c.jpg").mkdir()
    assert list(find_images([str(tmp_path / "**"), str(tmp_path / "a/notes.txt")])) == [
        *(tmp_path / name for name in ("a/3.jpg", "b/1.PNG", "b/2.jpg", "a/notes.txt"))
    ]
    assert len(list(find_images([str(tmp_path / "a/*")], any_match=True))) == 2
    assert list(find_images([str(tmp_path)])) == [tmp_path / name for name in ("a/3.jpg", "b/1.PNG", "b/2.jpg")]
    (tmp_path / "a/5.jfif").touch()
    assert list(find_images([str(tmp_path / "a/*.jfif")])) == [tmp_path / "a/5.jfif"]
    for name, what in (("nowhere", "file"), (str(tmp_path / "a/n*"), "image")):
        with pytest.raises(BadInput, match=f"no such file or folder, and no {what} fits it as a pattern"):
            list(find_images([name]))


def test_each_picture_has_a_file_that_is_no_image(tmp_path) -> None:
    def names(*files: str) -> list[str]:
        return [file.name for file in picture_files([Path(file) for file in files], tmp_path).values()]

    assert names("a/3.jpg", "b/3.jpg", "b/4.jpg") == ["a_3.jpg.png", "b_3.jpg.png", "4.png"]
    assert names("a_b/c.jpg", "a/b/c.jpg", "c.png", "c.jpg.png") == [
        "a_b_c.jpg.png",
        "a_b_c.jpg_.png",
        "c.png.png",
        "c.jpg.png",
    ]
    assert names("a/X.jpg", "b/x.jpg") == ["a_X.jpg.png", "b_x.jpg.png"]
    photo, link, out = tmp_path / "photos" / "a.png", tmp_path / "links" / "b.png", tmp_path / "out"
    for folder in (photo.parent, link.parent, out):
        folder.mkdir()
    photo.touch()
    link.symlink_to(photo)
    (out / "c.png").symlink_to(photo)
    for files, folder in (([photo], photo.parent), ([link], photo.parent), ([link], link.parent), ([Path("c")], out)):
        with pytest.raises(BadInput, match=r"png: expected another folder than one of the images"):
            picture_files([*files, photo], folder)
    assert picture_files([photo, link], out) == {photo: out / "a.png", link: out / "b.png"}


def test_results_are_cocos() -> None:
    generator = np.random.default_rng(1)
    boxes = np.array([[1.5, 2.5, 20.0, 17.25], [0.0, 0.0, 30.0, 20.0]], np.float32)
    found = Detections(
        boxes, np.array([0.9, 0.4]), np.array([2, 1]), np.ones(2, bool), generator.random((2, 28, 28), np.float32)
    )
    first, second = coco_results(found, (20, 30), 7, [18, 44, 90], paste_crops(found.masks, boxes, (20, 30)))
    assert (first["image_id"], first["category_id"], second["category_id"]) == (7, 44, 18)
    assert first["bbox"] == [1.5, 2.5, 18.5, 14.75]
    pixels = coco_mask.decode(first["segmentation"]).astype(bool)
    np.testing.assert_array_equal(pixels, paste(found.masks[:1], boxes[:1], 20, 30)[0])
    kept = at_least(found, 0.5)
    assert len(kept.boxes) == len(kept.masks) == 1


def test_command(tmp_path, monkeypatch, capsys, picture) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(json.dumps({"model": {**SETTINGS, "detections": {"score": 0.9, "limit": 10}}}))
    Path("photos").mkdir()
    for name in ("4.png", "5.png"):
        Image.fromarray(picture).save(Path("photos") / name)
    assert run(["predict", "recipe.yaml", "photos", "--out", "out", "--json", "found.json", "--score", "0.2"]) == 0
    assert "2 images, 20 detections" in capsys.readouterr().out
    results = json.loads(Path("found.json").read_text())
    assert {result["image_id"] for result in results} == {4, 5}
    with Image.open("out/4.png") as drawn:
        assert drawn.size == (480, 360)  # small pictures are enlarged before letters are put on them
    assert sorted(file.name for file in Path("out").iterdir()) == ["4.png", "5.png"]


def test_steps_change_what_is_written_and_drawn(tmp_path, monkeypatch, picture) -> None:
    """Refined or disjoint masks are those of the steps on the model's own boxes and masks."""
    pytest.importorskip("cv2", reason="the extra grabcut is not installed")
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(json.dumps({"model": SETTINGS}))
    model = opened("recipe.yaml")
    (plain,) = predict(model, picture, score=0.0)
    for steps in (MaskSteps(disjoint=True), MaskSteps(refine=True, disjoint=True)):
        (found,) = predict(model, picture, score=0.0, steps=steps)
        given = plain.detections
        crops = steps.crops(given.boxes, given.masks, plain.size, lambda: picture)
        masks = [coco_mask.decode(one["segmentation"]) for one in found.as_coco(1)]
        claims = np.sum(masks, axis=0)
        assert claims.max() == 1 < np.sum(plain.pasted(), axis=0).max()
        np.testing.assert_array_equal(claims.sum(), sum(crop.pixels.sum() for crop in crops))
        np.testing.assert_array_equal(found.pasted(), np.array(masks, bool))
        assert (found.drawn() != plain.drawn()).any()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["recipe.yaml", "missing.jpg", "--out", "out"], "missing.jpg: no such file"),
        (["recipe.yaml", "."], "expected --out DIR"),
        (["recipe.yaml", ".", "--no-images"], "leaves nothing to write"),
        (["recipe.yaml", ".", "--out", "."], "one.png: expected another folder than one of the images"),
        (["nothing", ".", "--out", "out"], "nothing"),
        (["recipe.yaml", "empty", "--out", "out"], "no image there"),
    ],
)
def test_bad_input(tmp_path, monkeypatch, capsys, picture, arguments, said) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(json.dumps({"model": SETTINGS}))
    Path("empty").mkdir()
    Image.fromarray(picture).save("one.png")
    assert run(["predict", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not Path("out").exists()


def test_a_pipe_is_no_image(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(BadInput, match=r"a\.png: expected an image: not a regular file"):
        read_image(tmp_path / "a.png")


@pytest.fixture(scope="module")
def pointing() -> ImagePredictor:
    """Of a model with keypoints, which class 2 has not."""
    tf.keras.utils.set_random_seed(3)
    keypoint = {"use": True, "names": ["nose", "left", "right"], "flip": [["left", "right"]], "convs": 1}
    keypoint |= {"channels": 16, "classes": ["hat", "bag"], "skeleton": [["nose", "left"], ["nose", "right"]]}
    config = ModelConfig.model_validate({**SETTINGS, "family": "faster_rcnn", "keypoint": keypoint})
    return ImagePredictor(build(config), config)


def test_keypoints_are_in_the_images_own_pixels(pointing, picture) -> None:
    found = pointing(picture)
    assert found.keypoints.shape == (10, 3, 2)
    has = found.classes != 2
    assert has.sum() > 0
    low, high = found.boxes[has, None, :2], found.boxes[has, None, 2:]
    assert ((found.keypoints[has] >= low - 0.01) & (found.keypoints[has] <= high + 1)).all()
    assert not found.keypoints[~has].any()
    assert found.keypoints[..., 0].max() > 60  # in canvas pixels they reach to 96
    assert found.keypoints[..., 0].max() <= 81


def test_keypoints_of_a_mirrored_view(pointing, picture) -> None:
    plain = pointing(picture)
    mirrored = look(pointing, picture[:, ::-1], [View(flip=True)])
    has = plain.classes != 2
    expected = plain.keypoints[:, [0, 2, 1]] * [-1, 1] + [80, 0]
    np.testing.assert_allclose(mirrored.keypoints[has], expected[has], atol=0.05)
    np.testing.assert_allclose(mirrored.keypoint_scores, plain.keypoint_scores[:, [0, 2, 1]], atol=1e-3)
    assert not mirrored.keypoints[~has].any()


def test_keypoints_are_those_of_the_surest_view(pointing, picture) -> None:
    views = [View(), View(0.75), View(1.25, flip=True)]
    found = look(pointing, picture, views)
    each = [pointing.segment_view(picture, view, found.boxes, found.classes) for view in views]
    scores = np.array([one.keypoint_scores for one in each])
    np.testing.assert_allclose(found.keypoint_scores, scores.max(axis=0), atol=1e-3)
    assert len(set(scores.argmax(axis=0).reshape(-1))) > 1
    for index, place in np.ndindex(*found.keypoint_scores.shape):
        best = scores[:, index, place].argmax()
        np.testing.assert_allclose(found.keypoints[index, place], each[best].keypoints[index, place], atol=0.05)


def test_prediction_writes_and_draws_keypoints(pointing, picture) -> None:
    model = Model(pointing.model, Config(model=pointing.config), {})
    (found,) = predict(model, picture, score=0.0)
    results = found.as_coco(3)
    assert len(results) == 10
    for one, label, points, scores in zip(
        results, found.detections.classes, found.detections.keypoints, found.detections.keypoint_scores, strict=True
    ):
        if label == 2:
            assert "keypoints" not in one
        else:
            rows = np.array(one["keypoints"]).reshape(-1, 3)
            np.testing.assert_allclose(rows[:, :2], points - 0.5, atol=1e-3)
            np.testing.assert_allclose(rows[:, 2], scores, atol=1e-6)
    bare = dataclasses.replace(found, detections=found.detections._replace(keypoints=None, keypoint_scores=None))
    assert (found.drawn() != bare.drawn()).any(axis=-1).sum() > 500
