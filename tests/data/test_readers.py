"""Every reader: its result for a small data set, and that COCO's own evaluation agrees with it."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy.io import savemat

from maskx_tf import files
from maskx_tf.data.dataset import Dataset, ImageRecord, Instance, MaskFile, bitmap
from maskx_tf.data.formats import coco_write
from maskx_tf.data.formats.readers import READERS, DataFiles, for_evaluation, for_training, read
from maskx_tf.data.formats.records import Unfit
from maskx_tf.data.images import id_map, load_pixels, size_of
from maskx_tf.data.problems import Problem
from maskx_tf.data.threads import in_threads
from maskx_tf.errors import BadInput
from maskx_tf.masks.rgb import ROTATION
from tests.data import samples
from tests.data.samples import HEIGHT, SAMPLES, WIDTH, blob


def mask_of(one: Instance) -> np.ndarray:
    assert one.segmentation is not None
    return bitmap(one.segmentation, HEIGHT, WIDTH)


def average_precision(path: Path, kind: str) -> float:
    """COCO's AP of a file's truth against itself; of the instances with masks alone for kind segm."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        if kind == "segm":
            truth.dataset["annotations"] = [one for one in truth.dataset["annotations"] if "segmentation" in one]
            truth.createIndex()
        found = [{**one, "score": 1.0} for one in truth.dataset["annotations"] if not one["iscrowd"]]
        evaluation = COCOeval(truth, truth.loadRes(found), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


@pytest.mark.parametrize("name", SAMPLES)
def test_truth_written_to_coco_scores_one_against_itself(name: str, tmp_path: Path) -> None:
    source = SAMPLES[name](tmp_path)
    dataset = read(source)
    embedded = [image for image in dataset.images if isinstance(image.file, bytes)]
    for image in embedded:  # what COCO's JSON cannot name
        with pytest.raises(BadInput, match="expected an image in a file"):
            coco_write.write(dataset, tmp_path / "out.json", source.images)
        dataset = dataset._replace(images=tuple(one for one in dataset.images if one is not image))
    coco_write.write(dataset, tmp_path / "out.json", source.images)
    assert average_precision(tmp_path / "out.json", "bbox") == pytest.approx(1.0)
    if any(one.has_mask for image in dataset.images for one in image.instances):
        assert average_precision(tmp_path / "out.json", "segm") == pytest.approx(1.0)
    again = read(DataFiles(source.images, tmp_path / "out.json"))
    assert again.class_names == dataset.class_names
    assert [len(image.instances) for image in again.images] == [len(image.instances) for image in dataset.images]
    for before, after in zip(dataset.images, again.images, strict=True):
        assert after.file.samefile(before.file)
        for one, other in zip(before.instances, after.instances, strict=True):
            assert other.box == pytest.approx(one.box)
            assert (other.label, other.crowd, other.has_mask) == (one.label, one.crowd, one.has_mask)
            if one.has_mask:
                np.testing.assert_array_equal(mask_of(one), mask_of(other))


@pytest.mark.parametrize("name", SAMPLES)
def test_every_reader_names_an_absent_folder(name: str, tmp_path: Path) -> None:
    source = SAMPLES[name](tmp_path / "there")
    gone = source._replace(annotations=tmp_path / "gone")
    with pytest.raises(BadInput, match="gone"):
        read(gone)


def test_the_dict_of_readers_is_whole() -> None:
    assert set(READERS) == {*SAMPLES, "visual_genome_val", "visual_genome_test"}
    with pytest.raises(BadInput, match=r"format: expected one of coco, .*found 'coc'"):
        read(DataFiles(Path(), Path(), "coc"))


def test_voc(tmp_path: Path) -> None:
    dataset = read(samples.voc(tmp_path))
    assert len(dataset.class_names) == 20
    with_masks, without = dataset.images
    assert [dataset.class_names[one.label - 1] for one in with_masks.instances] == ["dog", "person", "dog"]
    assert [one.has_mask for one in with_masks.instances] == [True, True, False]
    assert with_masks.instances[0].box == (3, 3, 20, 20)
    np.testing.assert_array_equal(mask_of(with_masks.instances[1]), blob(25, 5, 45, 30) > 0)
    assert not any(one.has_mask for one in without.instances)


def test_voc_of_other_classes_and_by_a_list(tmp_path: Path) -> None:
    source = samples.voc(tmp_path)
    path = source.annotations / "2007_2.xml"
    path.write_text(path.read_text().replace("tvmonitor", "zebra"))
    dataset = read(source)
    assert dataset.class_names == ("dog", "person", "zebra")
    assert [one.has_mask for one in dataset.images[0].instances] == [True, True, False]
    listed = tmp_path / "ImageSets" / "Main" / "val.txt"
    listed.parent.mkdir(parents=True)
    listed.write_text("2007_2  1\n")
    assert [image.id for image in read(source._replace(annotations=listed)).images] == ["2007_2"]


def test_voc_takes_an_image_once(tmp_path: Path) -> None:
    source = samples.voc(tmp_path)
    listed = tmp_path / "ImageSets" / "val.txt"
    listed.parent.mkdir()
    listed.write_text("2007_2\n2007_2\n")
    with pytest.raises(BadInput, match=r"2007_2\.xml: expected one XML file of an image"):
        read(source._replace(annotations=listed))


def test_voc_masks_follow_box_and_class_where_the_order_differs(tmp_path: Path) -> None:
    source = samples.voc(tmp_path)
    path = source.annotations / "2007_1.xml"
    head, first, *others = path.read_text().split("<object>")
    third, end = others.pop().split("</object>")
    path.write_text("<object>".join([head, third + "</object>", *others, first]) + end)
    instances = read(source).images[0].instances
    assert [one.box[0] for one in instances] == [5, 25, 3]
    assert [one.has_mask for one in instances] == [False, True, True]
    np.testing.assert_array_equal(mask_of(instances[2]), blob(3, 3, 20, 20) > 0)


def test_cityscapes(tmp_path: Path) -> None:
    dataset = read(samples.cityscapes(tmp_path))
    assert dataset.class_names == ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
    assert dataset.category_ids == (24, 25, 26, 27, 28, 31, 32, 33)
    group, first, second = dataset.images[0].instances  # neither the road nor the caravan
    assert (group.label, group.crowd, first.label, first.crowd) == (1, True, 3, False)
    assert second.box == (18, 3, 40, 16)
    np.testing.assert_array_equal(mask_of(second), blob(18, 3, 40, 16) > 0)


def test_open_images(tmp_path: Path) -> None:
    dataset = read(samples.open_images(tmp_path))
    assert dataset.class_names == ("Dog", "Traffic light")
    first, second, group = dataset.images[0].instances
    assert first.box == (6, 9, 24, 27)
    assert first.segmentation == MaskFile(tmp_path / "masks" / "0a1b_m1_x.png")
    np.testing.assert_array_equal(mask_of(first), blob(6, 9, 24, 27) > 0)
    assert (second.has_mask, group.crowd, second.crowd) == (False, True, False)


def test_labelme(tmp_path: Path) -> None:
    dataset = read(samples.labelme(tmp_path))
    assert dataset.class_names == ("ball", "cat", "dog")
    polygon, parts, rectangle, circle, painted = dataset.images[0].instances
    assert polygon.box == (4, 4, 20, 20)
    assert parts.box == (30, 3, 45, 9)
    assert len(parts.segmentation) == 2
    assert (rectangle.box, rectangle.has_mask) == ((10, 22, 20, 30), False)
    assert mask_of(circle).sum() == pytest.approx(np.pi * 64, rel=0.05)
    assert painted.box == (8, 5, 20, 15)
    np.testing.assert_array_equal(mask_of(painted), blob(8, 5, 20, 15) > 0)
    embedded = dataset.images[1]
    assert (embedded.width, embedded.height) == (WIDTH, HEIGHT)
    np.testing.assert_array_equal(load_pixels(embedded), load_pixels(dataset.images[0]))


def test_labelme_rectangle_hides_the_outline_of_its_group(tmp_path: Path) -> None:
    source = samples.labelme(tmp_path)
    path = source.annotations / "a.json"
    path.write_text(path.read_text().replace('"shape_type": "rectangle"', '"shape_type": "rectangle", "group_id": 1'))
    path.write_text(path.read_text().replace('"label": "cat", "points": [[20', '"label": "dog", "points": [[20'))
    parts = read(source).images[0].instances[1]
    assert (parts.box, parts.has_mask) == ((10, 3, 45, 30), False)


def _labelme_shape(folder: Path, **shape: object) -> DataFiles:
    """LabelMe's sample with one shape alone."""
    source = samples.labelme(folder)
    path = source.annotations / "a.json"
    samples.write_json(path, {**_json(path), "shapes": [{"label": "cat", **shape}]})
    (source.annotations / "b.json").unlink()
    return source


def test_labelme_oriented_rectangle_is_the_box_of_its_corners(tmp_path: Path) -> None:
    corners = [[20, 4], [30, 14], [24, 20], [14, 10]]
    (one,) = read(_labelme_shape(tmp_path, points=corners, shape_type="oriented_rectangle")).images[0].instances
    assert (one.box, one.has_mask) == ((14, 4, 30, 20), False)
    with pytest.raises(BadInput, match=r"a\.json: shapes\[0\]: points: expected four corners, found \[\(20"):
        read(_labelme_shape(tmp_path, points=corners[:3], shape_type="oriented_rectangle"))


@pytest.mark.parametrize(
    ("left", "top", "visible"),
    [(-3, -2, (0, 0, 9, 8)), (-3, 7, (0, 7, 9, 17)), (WIDTH - 5, HEIGHT - 4, (WIDTH - 5, HEIGHT - 4, WIDTH, HEIGHT))],
)
def test_labelme_mask_is_cut_at_the_border(left: int, top: int, visible: tuple[int, ...], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).random((10, 12)) < 0.5
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    mask = base64.b64encode(stream.getvalue()).decode()
    corners = [[left, top], [left + 11, top + 9]]
    (one,) = read(_labelme_shape(tmp_path, points=corners, shape_type="mask", mask=mask)).images[0].instances
    x1, y1, x2, y2 = visible
    expected = np.zeros([HEIGHT, WIDTH], bool)
    for y in range(y1, y2):
        for x in range(x1, x2):
            expected[y, x] = pixels[y - top, x - left]
    np.testing.assert_array_equal(mask_of(one), expected)
    assert one.box[:2] == (x1, y1)
    with pytest.raises(
        BadInput, match=r"mask: expected a part of it in the image, .*, found 12 x 10 pixels at \(-12, 0\)"
    ):
        read(_labelme_shape(tmp_path, points=[[-12, 0], [-1, 9]], shape_type="mask", mask=mask))


def test_via(tmp_path: Path) -> None:
    source = samples.via(tmp_path)
    dataset = read(source)
    assert dataset.class_names == ("ball", "cat", "dog")
    polygon, rectangle, circle, ellipse = dataset.images[0].instances
    assert (polygon.box, rectangle.box, rectangle.has_mask) == ((4, 4, 20, 20), (20, 3, 29, 11), False)
    assert circle.box == pytest.approx((24, 14, 36, 26))
    assert mask_of(ellipse).sum() == pytest.approx(np.pi * 32, rel=0.1)
    project = samples.write_json(tmp_path / "project.json", {"_via_img_metadata": _json(source.annotations)})
    assert read(source._replace(annotations=project)).images == dataset.images


def test_via_without_attributes_has_one_class(tmp_path: Path) -> None:
    source = samples.via(tmp_path)
    data = _json(source.annotations)
    regions = data["a.jpg1234"]["regions"]
    for region in regions:
        region["region_attributes"] = {}
    dataset = read(source._replace(annotations=samples.write_json(tmp_path / "empty.json", data)))
    assert dataset.class_names == ("object",)
    assert [one.label for one in dataset.images[0].instances] == [1] * 4
    regions[0]["region_attributes"] = {"class": "dog"}
    with pytest.raises(BadInput, match=r"regions\[1\]: region_attributes: expected one, or one of class, .* found {}"):
        read(source._replace(annotations=samples.write_json(tmp_path / "mixed.json", data)))


def test_mask_folder(tmp_path: Path) -> None:
    dataset = read(samples.masks(tmp_path))
    assert dataset.class_names == ("dog", "traffic light")
    by_id = {image.id: image.instances for image in dataset.images}
    assert [one.box for one in by_id["a"]] == [(3, 3, 15, 15), (20, 3, 40, 20)]
    left, right = by_id["deep/b"]
    assert (left.label, right.label) == (2, 2)
    assert (mask_of(left) & mask_of(right)).any()
    assert by_id["c"] == ()


def test_mask_folder_reads_maps_of_any_suffix(tmp_path: Path) -> None:
    source = samples.masks(tmp_path)
    dog = source.annotations / "dog"
    expected = read(source)
    for name in (".ipynb_checkpoints/a.png", "._a.png"):  # what other programs leave
        samples.ids_png(dog / name, blob(3, 3, 15, 15))
    (dog / "._c.PNG").write_bytes(b"no image")
    (source.annotations / "traffic light" / "deep" / "b" / "left.png").rename(
        dog.parent / "traffic light/deep/b/left.PNG"
    )
    Image.open(dog / "a.png").save(dog / "a.tif")
    (dog / "a.png").unlink()
    assert read(source) == expected
    picture = Image.open(dog / "a.tif")
    picture.save(dog / "c.jpg")
    with pytest.raises(BadInput, match=r"masks/dog/c.jpg: expected a PNG file of ids, found a JPEG file"):
        read(source)
    (dog / "c.jpg").unlink()
    picture.save(dog / "a.png")
    with pytest.raises(BadInput, match=r"masks/dog/a.tif: expected one map of this name, found another suffix"):
        read(source)
    (dog / "a.tif").rename(dog / "z.tif")
    with pytest.raises(BadInput, match=r"masks/dog/z.tif: expected an image of this name, found none"):
        read(source)


def test_mask_folder_passes_over_previews(tmp_path: Path) -> None:
    source = samples.masks(tmp_path)
    expected = read(source)
    for name in ("dog/a.jpg", "dog/a_overlay.JPG", "traffic light/deep/b/left.jpeg"):
        samples.picture(source.annotations / name)
    assert read(source) == expected
    samples.picture(source.annotations / "cat" / "a_mask.jpg")  # a class whose only file this is
    with pytest.raises(BadInput, match=r"cat/a_mask.jpg: expected an image of this name, found none"):
        read(source)


def test_mask_folder_refuses_soft_edges(tmp_path: Path) -> None:
    source = samples.masks(tmp_path)
    soft = np.asarray(Image.fromarray(blob(3, 3, 20, 20, 255).astype(np.uint8)).resize((WIDTH, HEIGHT)).rotate(10, 2))
    samples.ids_png(source.annotations / "dog" / "a.png", soft)
    with pytest.raises(BadInput, match=r"masks/dog/a.png: expected 0 and 255, or numbers of objects"):
        read(source)


def test_images_are_seen_as_they_were_annotated(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ROTATION] = 6  # the camera was held on its side
    turned = samples.picture(tmp_path / "a.png", 30, 20, exif=exif)
    raw = np.asarray(Image.open(turned))
    assert size_of(turned) == (20, 30)
    np.testing.assert_array_equal(load_pixels(ImageRecord(1, turned, 20, 30)), np.rot90(raw, -1))
    np.testing.assert_array_equal(load_pixels(ImageRecord(1, turned, 30, 20)), raw)
    exif[ROTATION] = 8
    for name in ("b.tif", "b.webp"):
        turned = tmp_path / name
        Image.fromarray(raw).save(turned, exif=exif, lossless=True)
        assert size_of(turned) == (20, 30)
        np.testing.assert_array_equal(load_pixels(ImageRecord(1, turned, 20, 30)), np.rot90(raw))
    deep = tmp_path / "deep.png"
    Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100).save(deep)
    np.testing.assert_array_equal(
        load_pixels(ImageRecord(1, deep, 30, 20))[..., 0].ravel(), np.arange(600) * 100 // 256
    )


def test_training_sees_boxes_in_their_images_alone(tmp_path: Path) -> None:
    source = samples.coco(tmp_path)
    data = samples.coco_data()
    data["annotations"][0]["bbox"] = [-5, 30, 20, 20]
    data["annotations"][2]["bbox"] = [47.5, 3, 20, 20]
    data["annotations"][4]["bbox"] = [3, 3, 0, 20]
    samples.write_json(source.annotations, data)
    whole = {one.id: one for image in for_evaluation([source]).images for one in image.instances}
    seen = {one.id: one for image in for_training([source], "all").images for one in image.instances}
    assert whole.keys() - seen.keys() == {102, 104}
    assert whole[100].box == (-5, 30, 15, 50)
    assert seen[100].box == (0, 30, 15, 36)


def test_a_thread_tells_its_problems_in_order() -> None:
    told: list[Problem] = []
    problem = Problem("empty_image", "", "")
    work = in_threads(lambda i, tell: [tell(problem._replace(what=str(i))) for _ in range(2)], range(50), told.append)
    assert len(list(work)) == 50
    assert [one.what for one in told] == [str(i) for i in range(50) for _ in range(2)]


def test_readers_need_no_tensorflow() -> None:
    code = (
        "import sys, maskx_tf.commands.data, maskx_tf.tasks.pictures, maskx_tf.data.formats.readers, "
        "maskx_tf.data.checks, maskx_tf.data.stats, maskx_tf.data.formats.coco_write, maskx_tf.synthetic.generate; "
        "sys.exit(bool({'tensorflow', 'keras', 'matplotlib'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)


def _json(path: Path) -> object:
    return files.read_json(path)


def test_dataset_is_plain_data(tmp_path: Path) -> None:
    dataset = read(samples.coco(tmp_path))
    assert isinstance(dataset, Dataset)
    assert dataset == read(samples.coco(tmp_path))


def _name_a_file(kind: str, source: DataFiles, name: str) -> None:
    """Lets the annotations name a file by this path for their first image."""
    if kind == "voc":
        path = sorted(source.annotations.glob("*.xml"))[0]
        path.write_text(path.read_text().replace(f"<filename>{path.stem}.jpg", f"<filename>{name}"))
        return
    data = _json(source.annotations)
    if kind == "coco":
        data["images"][0]["file_name"] = name
    else:
        next(iter(data.values()))["filename"] = name
    samples.write_json(source.annotations, data)


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("kind", ["coco", "via", "voc"])
def test_files_outside_of_the_folders_are_refused_unless_allowed(kind: str, absolute: bool, tmp_path: Path) -> None:
    secret, source = samples.picture(tmp_path / "secret.jpg"), SAMPLES[kind](tmp_path / "set")
    _name_a_file(kind, source, str(secret) if absolute else os.path.relpath(secret, source.images))
    with pytest.raises(BadInput, match=r"image .*: expected files in .*, found .*secret\.jpg; outside \(--outside\)"):
        read(source)
    problems: list[Problem] = []
    seen = read(source, problems.append)
    allowed = read(source._replace(outside=True))
    assert [problem.kind for problem in problems if problem.kind == "outside"] == ["outside"]
    assert len(seen.images) == len(allowed.images) - 1
    assert any(os.path.samefile(str(image.file), secret) for image in allowed.images)


def test_images_that_are_no_regular_files_do_not_hang(tmp_path: Path) -> None:
    source = SAMPLES["coco"](tmp_path)
    path = source.images / "a.jpg"
    path.unlink()
    os.mkfifo(path)
    record = read(source).images[0]
    for look in (load_pixels, lambda one: size_of(one.file), lambda one: id_map(one.file)):
        with pytest.raises(Unfit, match="expected an image: not a regular file"):
            look(record)
    with pytest.raises(BadInput, match="expected a mask: not a regular file"):
        MaskFile(path).load(4, 4)
    source.annotations.unlink()
    os.mkfifo(source.annotations)
    with pytest.raises(BadInput, match=r"instances\.json: cannot be read: not a regular file"):
        read(source)


def test_sbd(tmp_path: Path) -> None:
    source = samples.sbd(tmp_path)
    dataset = read(source)
    assert dataset.class_names[11] == "dog"
    first, second = dataset.images
    assert [one.label for one in first.instances] == [12, 15]
    assert first.instances[0].box == (3, 3, 20, 20)
    np.testing.assert_array_equal(mask_of(first.instances[1]), blob(25, 5, 45, 30) > 0)
    assert [(one.label, one.box) for one in second.instances] == [(20, (2, 2, 30, 30))]
    (tmp_path / "val.txt").write_text("2008_2\n", encoding="utf-8")
    assert [image.id for image in read(source._replace(annotations=tmp_path / "val.txt")).images] == ["2008_2"]


def test_sbd_says_what_is_wrong_with_a_file(tmp_path: Path) -> None:
    source = samples.sbd(tmp_path)
    ids = blob(3, 3, 20, 20).astype(np.uint8)
    for truth, message in (
        ({"Segmentation": ids, "Categories": np.array([21], np.uint8)}, "expected a category of 1 to 20 for object 1"),
        ({"Segmentation": ids * 2, "Categories": np.array([3], np.uint8)}, "for object 2, found 0"),
        ({"Categories": np.array([3], np.uint8)}, "expected GTinst.Segmentation"),
        ({"Segmentation": ids, "Categories": "dog"}, "expected GTinst.Categories"),
    ):
        savemat(tmp_path / "inst" / "2008_1.mat", {"GTinst": truth})
        with pytest.raises(BadInput, match=message):
            read(source)
    (tmp_path / "inst" / "2008_1.mat").write_bytes(b"no MATLAB file at all" * 20)
    with pytest.raises(BadInput, match=r"2008_1\.mat: expected a MATLAB file of version 5"):
        read(source)
