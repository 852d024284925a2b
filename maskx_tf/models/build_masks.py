"""From a configuration to a mask branch, whose filters stand in the mask head or come from T."""

from __future__ import annotations

import keras
import numpy as np

from maskx_tf.config import ModelConfig
from maskx_tf.errors import BadInput, reason
from maskx_tf.files import open_regular
from maskx_tf.layers.mask_head import FCNMaskHead, MLPMaskHead, TransferredMaskHead
from maskx_tf.layers.mask_parts import MaskPredictor, MaskTrunk, MLPBranch
from maskx_tf.layers.mask_trunks import HourglassTrunk, PixelTrunk, ResidualTrunk, Trunk
from maskx_tf.layers.transfer import Transfer
from maskx_tf.models.boxes import BoxBranch
from maskx_tf.models.filters import BoxWeights, Embeddings, Table, TransferredFilters
from maskx_tf.models.mask_losses import BoxLoss, MaskLoss, PixelLoss, SoftmaxLoss
from maskx_tf.models.masks import MaskBranch, MaskRegions, SampledRegions, TruthRegions

# The scale of class-agnostic filters at the start: the reference found larger ones to diverge.
AGNOSTIC_STDDEV = 0.001


def masks_of_classes(config: ModelConfig, pool: keras.layers.Layer, box: BoxBranch, portable: bool) -> MaskBranch:
    """The branch of Mask R-CNN, whose head has the filters.

    Args:
        config: the `model` section.
        pool: levels and boxes to the features that the head reads.
        box: the branch whose regions it takes.
        portable: see `models.build.build`.
    """
    mask = config.mask
    outputs = 1 if mask.outputs == "agnostic" else len(config.class_names)
    softmax = mask.activation == "softmax"
    head: keras.layers.Layer
    if mask.head == "mlp":
        head = MLPMaskHead(
            outputs, side=config.mask_side, width=mask.mlp_width, layers=mask.mlp_layers, name="mask_head"
        )
    else:
        predictor = MaskPredictor(
            outputs + 1 if softmax else outputs, stddev=AGNOSTIC_STDDEV if outputs == 1 else None, name="predictor"
        )
        head = FCNMaskHead(_mask_trunk(config), predictor, _mlp_branches(config), name="mask_head")
    return _branch(config, pool, head, None, box, portable)


def transferred_masks(
    config: ModelConfig, pool: keras.layers.Layer, box: BoxBranch, portable: bool
) -> tuple[MaskBranch, keras.Variable | None]:
    """The branch of Mask^X R-CNN, and the table that T reads, if it reads one; arguments as `masks_of_classes`."""
    settings = config.transfer
    features = 2048 if config.backbone.neck == "c4" else config.box.width
    sizes = {"cls": (features,), "box": (4 * features,), "cls_box": (features, 4 * features)}
    table = None
    embeddings: Embeddings
    if settings.input == "embedding":
        rows = _read_table(str(settings.embedding), len(config.class_names))
        sizes["embedding"] = (rows.shape[1],)
        table = keras.Variable(rows, trainable=False, name="table")
        embeddings = Table(table)
    else:
        embeddings = BoxWeights(box.predictor, input=settings.input, stop_gradient=settings.stop_gradient)
    transfer = Transfer(
        config.mask.channels,
        layers=settings.layers,
        activation=settings.activation,
        init=settings.init,
        unit_rms=sizes[settings.input] if settings.unit_rms else (),
        name="transfer",
    )
    transfer.build((None, sum(sizes[settings.input])))
    head = TransferredMaskHead(_mask_trunk(config), _mlp_branches(config), name="mask_head")
    return _branch(config, pool, head, TransferredFilters(transfer, embeddings), box, portable), table


def _branch(
    config: ModelConfig,
    pool: keras.layers.Layer,
    head: keras.layers.Layer,
    filters: TransferredFilters | None,
    box: BoxBranch,
    portable: bool,
) -> MaskBranch:
    mask = config.mask
    loss: MaskLoss
    if mask.activation == "softmax":
        loss = SoftmaxLoss()
    else:
        loss = BoxLoss(mask.box_losses) if mask.box_losses else PixelLoss()
    return MaskBranch(
        pool=pool,
        head=head,
        filters=filters,
        softmax=mask.activation == "softmax",
        loss=loss,
        regions=_regions(config, box, loss.reads_boxes),
        margin=mask.margin,
        reads_pixels=mask.pixels,
        portable=portable,
    )


def _regions(config: ModelConfig, box: BoxBranch, with_boxes: bool) -> MaskRegions:
    size = config.mask.rois or box.foreground
    if config.mask.regions == "proposals":
        return SampledRegions(size)
    jitter = config.mask.jitter if config.mask.regions == "jittered" else 0.0
    return TruthRegions(size, jitter, with_boxes, turn=config.mask.rois is not None)


def _mask_trunk(config: ModelConfig) -> Trunk:
    mask = config.mask
    name = "inner" if mask.pixels else "trunk"
    trunk: MaskTrunk | HourglassTrunk | ResidualTrunk
    if mask.trunk == "hourglass":
        trunk = HourglassTrunk(mask.channels, widths=(mask.channels, 2 * mask.channels, 2 * mask.channels), name=name)
    elif mask.trunk == "residual":
        trunk = ResidualTrunk(mask.channels, blocks=mask.convs, name=name)
    else:
        trunk = MaskTrunk(mask.channels, convs=mask.convs, name=name)
    return PixelTrunk(trunk, name="trunk") if mask.pixels else trunk


def _mlp_branches(config: ModelConfig) -> tuple[MLPBranch, ...]:
    branch = config.mask.mlp_branch
    return () if branch == "none" else (MLPBranch(branch, side=config.mask_side, name="mlp_branch"),)


def _read_table(path: str, classes: int) -> np.ndarray:
    try:
        with open_regular(path) as file:
            table = np.load(file, allow_pickle=False)
    except (OSError, EOFError, MemoryError, ValueError) as error:
        raise BadInput(f"{path}: no .npy table: {reason(error)}") from None
    if table.ndim != 2 or len(table) != classes or not np.issubdtype(table.dtype, np.floating):
        raise BadInput(f"{path}: a {table.dtype} array of shape {table.shape}, expected floats [{classes}, size]")
    if not np.isfinite(table).all():
        raise BadInput(f"{path}: row {int(np.argwhere(~np.isfinite(table))[0, 0])} has a number that is not finite")
    return table.astype(np.float32)
