"""GrabCut's masks of a detector's boxes are used for every division of the classes."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskx_tf.config.data import Source
from maskx_tf.data import opening
from maskx_tf.masks import grabcut
from maskx_tf.masks.steps import MaskSteps
from maskx_tf.models.build import build
from maskx_tf.models.inference import Predictor
from maskx_tf.study import cells, run, scoring
from tests.models.small import predict_eagerly
from tests.study import small

CUT = MaskSteps(grabcut=True)


def test_boxes_are_cut_once_for_all_divisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cv2", reason="needs opencv-python-headless")
    predict_eagerly(monkeypatch)
    study, places = small.load(tmp_path), cells.Places(tmp_path / "out")
    cell = cells.cells_of(study)[0]
    run.prepare_data(run.Group(study, cell, places, lambda text: None))
    config = cells.detector_config(study, cell.group, places)
    names = opening.validation_set(config.data).class_names
    config = config.with_classes(names)
    predictor = Predictor(build(config.model), config.model.input.canvas)
    sources = (Source(**cells.source(places.data(study, cell.group), "val")),)
    cut = places.cut(cell.group)
    first = scoring.score(config, sources, predictor, set(names[:5]), CUT, cut)
    assert {"mask/A/AP", "mask/B/AP", "box/all/AP"} <= set(first)

    def nothing_more(*_: object) -> None:
        raise AssertionError("it cuts again")

    monkeypatch.setattr(grabcut, "segment", nothing_more)
    again = scoring.score(config, sources, predictor, set(names[5:]), CUT, cut)
    assert (again["mask/A/AP"], again["mask/B/AP"]) == (first["mask/B/AP"], first["mask/A/AP"])
    with pytest.raises(AssertionError, match="it cuts again"):
        scoring.score(config, sources, predictor, set(names[5:]), CUT, tmp_path / "other")
