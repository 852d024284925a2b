"""Messages for wrong settings."""

from __future__ import annotations

import pytest

from tests.config.helpers import problem, put


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # unknown keys
        ("modle: {}", "modle: unknown key; did you mean model?"),
        ("train: {step: 5}", "train.step: unknown key; did you mean train.steps?"),
        ("train: {learning_rate: 5}", "train.learning_rate: unknown key; did you mean train.rate?"),
        ("model: {nms_iuo: 5}", "model.nms_iuo: unknown key; did you mean model.rpn.nms_iou?"),
        ("model: {pre_nms_test: 5}", "model.pre_nms_test: unknown key; did you mean model.rpn.pre_nms_test?"),
        ("nms_iou: .5", "nms_iou: unknown key; did you mean model.rpn.nms_iou or model.detections.nms_iou?"),
        ("model: {train: {steps: 5}}", "model.train: unknown key; did you mean train?"),
        ("train.steps: 5", "train.steps: unknown key; write train.steps as sections, one inside the other"),
        (
            "data: {masks: {randon: {a: 3}}}",
            "data.masks.randon: unknown key; did you mean data.masks.random? (and 1 more)",
        ),
        (
            "data: {train: [{imags: a}]}",
            "data.train[0].imags: unknown key; did you mean data.train.images? (and 2 more)",
        ),
        ("export: {xyz: 5}", "export.xyz: unknown key; export has signatures, bf16, warmup, max_pixels"),
        ("xyz: 5", "xyz: unknown key; the top has model, data, train, evaluate, export"),
        ('"a\\nb": 5', "'a\\nb': unknown key; the top has model, data, train, evaluate, export"),
        # wrong types
        ("train: {steps: many}", "train.steps: expected a whole number, found 'many'"),
        ("train: {steps: 5.0}", "train.steps: expected a whole number, found 5.0"),
        ("train: {steps: '5'}", "train.steps: expected a whole number, found '5'"),
        ("train: {steps: true}", "train.steps: expected a whole number, found true"),
        ("train: {rate: '1e-4'}", "train.rate: expected a number, found '1e-4'"),
        ("train: {rate: true}", "train.rate: expected a number, found true"),
        ("train: {rate: .nan}", "train.rate: expected a finite number, found nan"),
        ("data: {flip: yes}", "data.flip: expected true or false, found 'yes'"),
        ("data: {flip: 1}", "data.flip: expected true or false, found 1"),
        ("data: {train: [5]}", "data.train[0]: expected settings such as data.train.images, found 5"),
        ("data: {train: coco}", "data.train: expected a list, found 'coco'"),
        ("data: {train: [{images: 5}]}", "data.train[0].images: expected text, found 5 (and 1 more)"),
        ("data: {train: [{images: a}]}", "data.train[0].annotations: expected a value, found none"),
        ("train: 5", "train: expected settings such as train.stage, found 5"),
        ("model: {rpn: [1]}", "model.rpn: expected settings such as model.rpn.pre_nms_train, found [1]"),
        ("model: {input: {canvas: 512}}", "model.input.canvas: expected a list, found 512"),
        ("model: {input: {canvas: [512]}}", "model.input.canvas: expected a list of 2, found [512]"),
        ("model: {input: {canvas: []}}", "model.input.canvas: expected a list of 2, found []"),
        ("model: {input: {canvas: [1, 2, 3]}}", "model.input.canvas: expected a list of 2, found [1, 2, 3]"),
        ("model: {anchors: {ratios: []}}", "model.anchors.ratios: expected a list of at least 1, found []"),
        ("model: {class_names: [cat, '']}", "model.class_names[1]: expected text that is not empty, found ''"),
        ("model: {class_names: {a: 1}}", "model.class_names: expected a list, found a mapping with 'a'"),
        # impossible values
        ("train: {steps: 0}", "train.steps: expected a number of at least 1, found 0"),
        ("train: {rate: 0}", "train.rate: expected a number above 0, found 0"),
        ("train: {momentum: 1}", "train.momentum: expected a number below 1, found 1"),
        ("model: {rpn: {nms_iou: 7}}", "model.rpn.nms_iou: expected a number of at most 1, found 7"),
        ("model: {roi: {samples: 3}}", "model.roi.samples: expected 0, 1 or 2, found 3"),
        (
            "model: {backbone: {neck: fpm}}",
            "model.backbone.neck: expected 'fpn', 'c4', 'c5' or 'dc5', found 'fpm'; did you mean fpn?",
        ),
        (
            "data: {masks: vocc}",
            "data.masks: expected all, none, oracle, voc, nonvoc, E1_A20 to E5_A60, a list of classes, or {random: "
            "{a: 20, seed: 3}}, found 'vocc'",
        ),
        ("data: {masks: []}", "data.masks: expected a list of at least 1, found []"),
        ("data: {masks: [cat, 5]}", "data.masks[1]: expected text, found 5"),
        ("data: {masks: {random: {a: 0}}}", "data.masks.random.a: expected a number of at least 1, found 0"),
        ("data: {masks: 5}", "data.masks: expected text, found 5"),
    ],
)
def test_wrong_setting_is_one_line(text: str, message: str) -> None:
    assert problem(put("sub/a.yaml", text)) == f"sub/a.yaml: {message}"
