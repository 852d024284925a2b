"""The typed configuration: what can be set, read from YAML with a parent file and overrides, written back resolved.

    config = load("mask_rcnn_r50_fpn_coco", ["train.steps=100"])
    write(config, "runs/first/config.yaml")

It imports no TensorFlow: a configuration is checked in a tenth of a second.
"""

from maskx_tf.config.branches import MaskConfig, TransferConfig
from maskx_tf.config.data import DataConfig
from maskx_tf.config.detector import AnchorsConfig, BackboneConfig, BoxConfig, InputConfig, RoiConfig, RpnConfig
from maskx_tf.config.loader import dump, load, write
from maskx_tf.config.model import DetectionsConfig, ModelConfig
from maskx_tf.config.schema import Config, EvaluateConfig, ExportConfig
from maskx_tf.config.training import TrainConfig

__all__ = [
    "AnchorsConfig",
    "BackboneConfig",
    "BoxConfig",
    "Config",
    "DataConfig",
    "DetectionsConfig",
    "EvaluateConfig",
    "ExportConfig",
    "InputConfig",
    "MaskConfig",
    "ModelConfig",
    "RoiConfig",
    "RpnConfig",
    "TrainConfig",
    "TransferConfig",
    "dump",
    "load",
    "write",
]
