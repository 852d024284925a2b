"""The text next to a generated benchmark: how to make it again, and what is in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from maskx_tf import __version__
from maskx_tf.synthetic.parameters import Recipe
from maskx_tf.synthetic.recipe import SyntheticClass

TEXT = """\
# Synthetic benchmark of maskx_tf

Scenes of coloured silhouettes in pairs that overlap, with masks for {a} of {classes} classes, by maskx_tf {version}:

    {command}

The same command writes the same bytes; with the same versions of NumPy, pixels and JSON are the same on any machine.

| part | images | instances | with masks | boxes only |
|---|---|---|---|---|
{parts}

- `train/`, `val/`, `test/`: PNG images of {size} x {size} pixels.
- `instances_*.json`: COCO JSON. Instances of A have a box and a mask, those of B a box alone; a box is that of the
  visible part.
- `masks_b_*.json`: the masks of B, by annotation id. Evaluation opens them; training under the policy `oracle` alone.
{keypoints}
A, boxes and masks: {a_names}.

B, boxes alone: {b_names}.
"""


KEYPOINT_LINE = """\
- Each instance has four keypoints: the corners of its silhouette farthest to the top, right, bottom and left.
"""


def command(recipe: Recipe, keypoints: bool = False) -> str:
    """The command line that generates it."""
    options = (f"--{key} {value}" for key, value in recipe._asdict().items())
    return " ".join(["maskx data synth --out DIR", *options, *["--keypoints"] * keypoints])


def readme(
    recipe: Recipe,
    every: Sequence[SyntheticClass],
    names: frozenset[str],
    counts: Mapping[str, Mapping[str, int]],
    keypoints: bool,
) -> str:
    """The text for README.md."""
    rows = (
        f"| {part} | {of['images']} | {of['instances']} | {of['with_masks']} | {of['instances'] - of['with_masks']} |"
        for part, of in counts.items()
    )
    return TEXT.format(
        a=recipe.a,
        classes=recipe.classes,
        version=__version__,
        command=command(recipe, keypoints),
        keypoints=KEYPOINT_LINE if keypoints else "",
        parts="\n".join(rows),
        size=recipe.size,
        a_names=", ".join(one.name for one in every if one.name in names),
        b_names=", ".join(one.name for one in every if one.name not in names),
    )
