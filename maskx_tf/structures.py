"""The named tuples that rooms exchange, and the table of the fields of an instance.

Tensors are padded; flags say which entries are real.

Every array may be a TensorFlow tensor or a NumPy array, so this file imports neither: the serving client, which
runs without TensorFlow, reads the same `Detections` as the model writes. Shape letters are those of ARCHITECTURE.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

MASK_SIDE = 112  # cells along a side of a truth's mask
# How masks are drawn, as `ops.masks.paste` describes; their places are their numbers in the answers of an export.
PASTE_MODES = ("continuous", "integer", "replicate")

# What the input pipeline does with a value when the image is mirrored, cut or scaled:
# box     [4], xyxy in pixels: moves with the image.
# grid    [MASK_SIDE * MASK_SIDE / 8] bytes, cells stretched over the instance's box, row by row, 8 a byte: is mirrored,
#         and gets new cells where the box is cut.
# points  [P, 3]: x and y in pixels, and a label, which is 0 for a point that is not there: move with the image; points
#         that are cut off get label 0.
# label   a number: stays.
# flag    a bool: stays; it is uint8 in batches.
Kind = Literal["box", "grid", "points", "label", "flag"]


class Field(NamedTuple):
    """One value that each instance of an image has.

    Attributes:
        name: the name in samples, records and `Targets`.
        dtype: the type of the values.
        shape: the shape of the value of one instance.
        kind: see above.
        flag: name of the flag that says whether the value is known; empty if it always is.
        mirror: for points: the point that takes each place in a mirrored image, such as the right eye that of the left
            one; empty if all keep their places.
    """

    name: str
    dtype: Literal["float32", "int32", "uint8", "bool"]
    shape: tuple[int, ...]
    kind: Kind
    flag: str = ""
    mirror: tuple[int, ...] = ()

    @property
    def key(self) -> str:
        """The name in a batch."""
        return f"gt_{self.name}"


# Whether there is an instance at a place of a batch. Files and records have no padding, so they do not store it.
VALID = Field("valid", "bool", (), "flag")
# Everything that an instance may have. Padding, batches, records and the dry run read this table. The data or
# the model gives the number of keypoints.
FIELDS = (
    Field("boxes", "float32", (4,), "box"),
    Field("classes", "int32", (), "label"),
    Field("crowd", "bool", (), "flag"),
    Field("masks", "uint8", (MASK_SIDE * MASK_SIDE // 8,), "grid", flag="has_mask"),
    Field("keypoints", "float32", (0, 3), "points", flag="has_keypoints"),
    Field("clicks", "float32", (0, 3), "points", flag="has_clicks"),
)
# What every data set has. Points are only in the batches of a data set that has them: its `Dataset.points` repeats
# their row with its own number of points.
COMMON_FIELDS = tuple(field for field in FIELDS if field.kind != "points")


class KeypointSet(NamedTuple):
    """The keypoints that instances of a class have.

    Attributes:
        names: the names of the keypoints, in order.
        skeleton: pairs of indices of keypoints between which a line is drawn.
        flip: pairs of indices of keypoints that change places in a mirrored image, such as the left and the right eye.
    """

    names: tuple[str, ...]
    skeleton: tuple[tuple[int, int], ...] = ()
    flip: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of_names(
        cls, names: Sequence[str], skeleton: Iterable[tuple[str, str]], flip: Iterable[tuple[str, str]]
    ) -> KeypointSet:
        """Keypoints whose pairs are given by names."""
        place = {name: index for index, name in enumerate(names)}
        lines, swaps = (tuple((place[one], place[other]) for one, other in pairs) for pairs in (skeleton, flip))
        return cls(tuple(names), lines, swaps)

    @property
    def mirror(self) -> tuple[int, ...]:
        """The keypoint that takes each place in a mirrored image."""
        partners = {**dict(self.flip), **{second: first for first, second in self.flip}}
        return tuple(partners.get(index, index) for index in range(len(self.names)))

    @property
    def field(self) -> Field:
        """The row of `FIELDS` with the number of these keypoints."""
        return points_field("keypoints", len(self.names))._replace(mirror=self.mirror)


def points_field(name: str, count: int) -> Field:
    """The row of `FIELDS` of this name, with its number of points."""
    (row,) = (field for field in FIELDS if field.name == name)
    return row._replace(shape=(count, 3))


def with_flags(fields: Iterable[Field]) -> tuple[Field, ...]:
    """The fields, each after its flag, if it has one."""
    every: list[Field] = []
    for field in fields:
        if field.flag:
            every.append(Field(field.flag, "bool", (), "flag"))
        every.append(field)
    return tuple(every)


class Targets(NamedTuple):
    """Ground truth of a batch, padded to G instances an image.

    Attributes:
        boxes: float32 [B, G, 4], xyxy in pixels of the network input.
        classes: int32 [B, G], 1..K; 0 in padding.
        valid: bool [B, G], false in padding.
        crowd: bool [B, G], regions of many objects, which are no targets.
        masks: float32 [B, G, S, S] in 0..1, each mask stretched over its own box; zeros where there is none.
        has_mask: bool [B, G], false for instances that are known by their box alone.
        keypoints: float32 [B, G, P, 3], x and y in pixels of the network input, and 0 for a keypoint that is not
            there, 1 for a hidden and 2 for a visible one; None for data without keypoints.
        has_keypoints: bool [B, G], instances with a keypoint that is there.
        clicks: float32 [B, G, Q, 3], points that someone has labelled: x and y in pixels of the network input, and 1
            for a point on the object, 2 for a point outside it, 0 for none; None for data without any.
        has_clicks: bool [B, G], instances with a click.
    """

    boxes: Any
    classes: Any
    valid: Any
    crowd: Any
    masks: Any
    has_mask: Any
    keypoints: Any = None
    has_keypoints: Any = None
    clicks: Any = None
    has_clicks: Any = None


class Proposals(NamedTuple):
    """Regions that may hold an object, best first.

    Attributes:
        boxes: float32 [B, N, 4], xyxy in pixels of the network input; zeros in padding.
        scores: float32 [B, N] in 0..1; zeros in padding.
        valid: bool [B, N].
    """

    boxes: Any
    scores: Any
    valid: Any


ADDED_FIELDS = ("masks", "keypoints", "keypoint_scores")  # of `Detections`: those that branches fill


class Detections(NamedTuple):
    """The detections of a batch, best first, padded to D an image.

    Attributes:
        boxes: float32 [B, D, 4], xyxy in pixels; zeros in padding.
        scores: float32 [B, D] in 0..1; zeros in padding.
        classes: int32 [B, D], 1..K; 0 in padding.
        valid: bool [B, D].
        masks: float32 [B, D, M, M] probabilities, each stretched over its own box; None for a model without masks.
        keypoints: float32 [B, D, P, 2], x and y in pixels; zeros for classes that have none, and in padding; None for
            a model without keypoints.
        keypoint_scores: float32 [B, D, P]; see `model.keypoint.score`.
    """

    boxes: Any
    scores: Any
    classes: Any
    valid: Any
    masks: Any = None
    keypoints: Any = None
    keypoint_scores: Any = None

    def mapped(self, change: Callable[[Any], Any]) -> Detections:
        """The detections with every array that is there changed by a function."""
        return Detections(*(None if array is None else change(array) for array in self))
