"""The page for people, in a real browser."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from maskx_tf.export import saved_model
from maskx_tf.export.source import open_source
from tests.export.exported import encoded, exported, keypoint_folder, picture
from tests.serving.chromium import PROGRAM, browser
from tests.serving.running import fetch, running

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="no browser: Debian's package chromium is not installed"),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with running(exported().parent) as place, browser(tmp_path_factory.mktemp("browser")) as one:
        one.open(f"{place.rest}/")
        one.rest = place.rest
        yield one


def done(page) -> None:
    page.wait("/found in|:/.test(document.getElementById('status').textContent)")


def canvas(page) -> np.ndarray:
    data = page.run("document.getElementById('canvas').toDataURL('image/png')")
    with Image.open(io.BytesIO(base64.b64decode(data.split(",")[1]))) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def set_score(page, value: float) -> None:
    page.run(
        f"(() => {{ const one = document.getElementById('score'); one.value = {value};"
        " one.dispatchEvent(new Event('input')); })()"
    )


PIXELS = picture(120, 200, seed=4)


def difference(drawn: np.ndarray, pixels: np.ndarray) -> float:
    """The mean difference of an enlarged picture, made small again, from the original."""
    small = Image.fromarray(drawn.astype(np.uint8)).resize(pixels.shape[1::-1], Image.Resampling.BOX)
    return float(np.abs(np.asarray(small).astype(int) - pixels).mean())


def test_a_photograph_is_chosen(page, tmp_path) -> None:
    page.wait("document.getElementById('about').textContent === 'pets, version 1, 3 classes'")
    assert not page.run("document.getElementById('legend').hidden")
    (tmp_path / "photo.png").write_bytes(encoded(PIXELS))
    page.choose("#file", tmp_path / "photo.png")
    done(page)
    request = {"inputs": [{"b64": base64.b64encode(encoded(PIXELS)).decode()}]}
    outputs = fetch(f"{page.rest}/v1/models/pets:predict", request)[1]["outputs"]
    scores = np.array(outputs["detection_scores"][0])
    names = set(outputs["detection_class_names"][0])
    for least in (0.0, float(np.median(scores)), 1.0):
        set_score(page, least)
        step = round(least * 100) / 100  # of the slider
        shown = (scores >= step).sum()
        assert int(page.run("document.getElementById('canvas').dataset.shown")) == shown
        said = page.run("document.getElementById('status').textContent")
        assert said.startswith(f"{shown} of {len(scores)} found in")
    plain = canvas(page)  # nothing is shown but the photograph, enlarged
    assert plain.shape == (288, 480, 3)
    assert difference(plain, PIXELS) < 6
    set_score(page, 0)
    drawn = canvas(page)
    assert drawn.shape == plain.shape
    assert (np.abs(drawn - plain).max(axis=-1) > 20).mean() > 0.02
    marks = page.run(
        "[...document.querySelectorAll('#classes label')].map((one) => one.innerText.split('\\n').join(' '))"
    )
    assert len(marks) == len(names)
    for mark in marks:
        assert (" A" in mark) == mark.startswith("cat")
        assert (" B" in mark) == mark.startswith(("dog", "horse"))
    assert page.problems == []


def test_classes_are_switched_off_and_on(page) -> None:
    set_score(page, 0)
    shown = int(page.run("document.getElementById('canvas').dataset.shown"))
    before = canvas(page)
    page.run("document.querySelector('#classes input').click()")
    fewer = int(page.run("document.getElementById('canvas').dataset.shown"))
    assert fewer == shown - int(page.run("document.querySelector('#classes .count').textContent"))
    assert np.abs(canvas(page) - before).max() > 20
    page.run("document.querySelector('#classes input').click()")
    np.testing.assert_array_equal(canvas(page), before)
    page.run("document.getElementById('masks').click()")
    boxes = canvas(page)
    page.run("document.getElementById('boxes').click()")
    assert difference(canvas(page), PIXELS) < 6
    page.run("document.getElementById('masks').click()")
    assert np.abs(canvas(page) - boxes).max() > 20
    page.run("document.getElementById('boxes').click()")
    np.testing.assert_array_equal(canvas(page), before)


def test_skeletons_are_drawn(tmp_path) -> None:
    """With neither boxes nor masks, the pixels that change lie at keypoints and on the lines between them."""
    version = saved_model.write(open_source(keypoint_folder()), tmp_path / "pets").path
    with running(version.parent) as place, browser(tmp_path / "browser") as page:
        page.open(f"{place.rest}/")
        drop(page, encoded(PIXELS), "photo.png", "image/png")
        done(page)
        for name in ("boxes", "masks"):
            page.run(f"document.getElementById('{name}').click()")
        set_score(page, 1)
        plain = canvas(page)
        set_score(page, 0)
        request = {"inputs": [{"b64": base64.b64encode(encoded(PIXELS)).decode()}]}
        outputs = fetch(f"{place.rest}/v1/models/pets:predict", request)[1]["outputs"]
        places = np.array(outputs["detection_keypoints"][0])[: outputs["num_detections"][0]]
        places = places[places.any(axis=(1, 2))] * plain.shape[:2]
        assert len(places) > 0
        changed = np.abs(canvas(page) - plain).max(axis=-1) > 20
        inside = [place for place in places.reshape(-1, 2) if (place < np.array(plain.shape[:2]) - 1).all()]
        assert np.mean([changed[tuple(place.astype(int))] for place in inside]) > 0.9
        near = np.min(np.linalg.norm(np.argwhere(changed)[:, None] + 0.5 - np.array(inside), axis=-1), axis=1)
        assert (near > 10).any()  # the lines of the skeleton
        assert page.problems == []


DROP = """
(() => {
  const bytes = Uint8Array.from(atob('%s'), (letter) => letter.charCodeAt(0));
  const held = new DataTransfer();
  held.items.add(new File([bytes], '%s', {type: '%s'}));
  document.getElementById('drop').dispatchEvent(
    new DragEvent('drop', {dataTransfer: held, bubbles: true, cancelable: true}));
})()
"""


def drop(page, data: bytes, name: str, kind: str) -> None:
    page.run("document.getElementById('status').textContent = ''")
    page.run(DROP % (base64.b64encode(data).decode(), name, kind))


def test_a_photograph_is_dropped(page) -> None:
    exif = Image.Exif()
    exif[274] = 6
    drop(page, encoded(PIXELS, "JPEG", exif=exif, quality=95, subsampling=0), "turned.jpg", "image/jpeg")
    done(page)
    set_score(page, 1)
    assert difference(canvas(page), np.rot90(PIXELS, -1)) < 8
    drop(page, encoded(PIXELS, "WEBP", lossless=True), "new.webp", "image/webp")
    done(page)
    assert canvas(page).shape == (288, 480, 3)
    assert page.run("document.getElementById('status').dataset.kind") == "info"


def test_a_file_that_is_no_photograph_is_reported(page) -> None:
    drop(page, b"hello", "broken.png", "image/png")
    page.wait("document.getElementById('status').dataset.kind === 'error'")
    assert page.run("document.getElementById('status').textContent").startswith("not_an_image: expected a JPEG or PNG")


def test_a_picture_of_the_page(page, tmp_path) -> None:
    drop(page, encoded(PIXELS), "photo.png", "image/png")
    done(page)
    set_score(page, 0)
    (tmp_path / "page.png").write_bytes(page.screenshot())  # for whoever wants to see it
    with Image.open(tmp_path / "page.png") as image:
        assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 50


LABELS = """
(() => {
  const places = [], context = document.getElementById('canvas').getContext('2d'), paint = context.fillText;
  context.fillText = function (text, x, y) {
    places.push([x, y, this.measureText(text).width, parseFloat(this.font)]);
  };
  for (const one of found) one.name = 'a very long name of a class, longer than any picture is wide'.repeat(3);
  draw();
  context.fillText = paint;
  return {places, width: context.canvas.width, height: context.canvas.height,
          shown: document.getElementById('canvas').getBoundingClientRect().width, page: document.body.scrollWidth};
})()
"""


@pytest.mark.parametrize(("width", "density"), [(390, 3), (1280, 1)])
def test_labels_are_legible_and_whole_on_any_screen(page, width: int, density: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": density, "mobile": width < 500}
    page.send("Emulation.setDeviceMetricsOverride", **metrics)
    try:
        drop(page, encoded(PIXELS), "photo.png", "image/png")
        done(page)
        set_score(page, 0)
        seen = page.run(LABELS)
    finally:
        page.send("Emulation.clearDeviceMetricsOverride")
    assert seen["page"] <= width
    assert seen["places"]
    assert seen["width"] == pytest.approx(seen["shown"] * density, abs=density)  # a pixel of the screen each
    assert seen["shown"] >= min(480, width - 70)
    for left, baseline, wide, size in seen["places"]:
        assert size == 13 * density
        assert left >= 0
        assert left + wide <= seen["width"]
        assert size <= baseline <= seen["height"]


def test_the_page_loads_nothing_from_elsewhere(page) -> None:
    text = fetch(f"{page.rest}/")[1]
    assert "http:" not in text
    assert "https:" not in text
