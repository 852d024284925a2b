"""Mask voting, in NumPy and in the graph: against the reference's own numbers, and what follows from its definition."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from maskx_tf.masks import paste as paste_ops
from maskx_tf.models.boxes import DetectionFilter
from maskx_tf.models.fcis.voting import Voters, Voting, with_half
from maskx_tf.structures import Detections
from tests import reference_voting as voting
from tests.fcis_oracle import continuous, each_file_with
from tests.oracle import outputs

SIZE = (40, 60)


def a_mask(side: int = 21) -> np.ndarray:
    y, x = np.mgrid[:side, :side]
    return ((x - 10) ** 2 + (y - 9) ** 2 < 60).astype(np.float32)


@each_file_with("voting/boxes")
@pytest.mark.parametrize("path", ["cpu", "gpu"])
@pytest.mark.parametrize("cap", [100, 12])
def test_oracle_fcis_voting(file, path, cap) -> None:
    stored = outputs(file)
    name = f"voting/{path}_cap{cap}"
    size = tuple(int(side) for side in stored["voting/image_hw"])
    found = voting.voted_detections(
        continuous(stored["voting/boxes"]),
        stored["voting/masks"],
        stored["voting/scores"],
        size,
        limit=cap,
        taps_beyond=path == "gpu",
    )
    expected = stored[f"{name}_boxes_scores"]
    np.testing.assert_array_equal(found.classes, stored[f"{name}_classes"])
    np.testing.assert_array_equal(found.boxes, continuous(expected[:, :4]))
    np.testing.assert_allclose(found.scores, expected[:, 4], atol=1e-6)
    if f"{name}_masks" in stored:
        difference = np.abs(found.masks - stored[f"{name}_masks"])
        assert (difference < 1e-4).mean() > 0.999
    if f"{name}_pasted_packed" in stored:
        packed = stored[f"{name}_pasted_packed"]
        theirs = np.unpackbits(packed, axis=-1, count=size[1]).astype(bool)
        ours = paste_ops.paste(found.masks, found.boxes, *size, threshold=0.4, mode="replicate")
        assert (ours == theirs).mean() > 0.999
        assert (ours & theirs).sum() / (ours | theirs).sum() > 0.999


def test_one_region_returns_its_mask() -> None:
    """A vote of one region is its own mask, in the mask's enclosing box."""
    box = np.array([[10, 5, 31, 26]], np.float32)  # 21 pixels a side: each cell is a pixel
    result = voting.vote(box, a_mask()[None], np.array([0.3], np.float32), SIZE)
    rows, columns = np.nonzero(a_mask())
    expected = [10 + columns.min(), 5 + rows.min(), 11 + columns.max(), 6 + rows.max()]
    np.testing.assert_array_equal(result.box, expected)
    drawn = paste_ops.paste(result.mask[None], result.box[None], *SIZE, threshold=0.4, mode="replicate")[0]
    own = np.zeros(SIZE, bool)
    own[5:26, 10:31] = a_mask() > 0
    assert (drawn & own).sum() / (drawn | own).sum() > 0.97  # the 21 cells of the answer lie over fewer pixels


def test_probabilities_may_vote() -> None:
    """Two regions of one box: half of the votes for .7 and half for .2 are .45, but one whole vote in two is .5."""
    box = np.array([[10, 5, 31, 26]] * 2, np.float32)
    masks = np.stack([np.full([21, 21], 0.7), np.full([21, 21], 0.2)]).astype(np.float32)
    weights = np.array([0.5, 0.5], np.float32)
    whole = voting.vote(box, masks, weights, SIZE)
    soft = voting.vote(box, masks, weights, SIZE, prebinarize=False)
    np.testing.assert_allclose(whole.mask[3:-3, 3:-3], 0.5, atol=1e-6)
    np.testing.assert_allclose(soft.mask[3:-3, 3:-3], 0.45, atol=1e-6)


def test_no_votes() -> None:
    box = np.array([[10, 5, 31, 26]], np.float32)
    result = voting.vote(box, np.full([1, 21, 21], 0.3, np.float32), np.ones(1, np.float32), SIZE)
    assert result.empty
    np.testing.assert_array_equal(result.box, [30, 20, 31, 21])


def in_graph(
    boxes: np.ndarray, masks: np.ndarray, scores: np.ndarray, size: tuple[int, int], limit: int, **options: bool
) -> Detections:
    """What the model does with the regions of all passes, traced; the masks as the vote gave them."""
    voting_of = Voting(0.5, 0.4, **{"prebinarize": True, "own_class": False, **options})

    @tf.function
    def run() -> Detections:
        best = tf.argmax(scores[None, :, 1:], axis=-1, output_type=tf.int32) + 1
        voters = Voters(
            *(tf.constant(part[None]) for part in (boxes, scores)), best, tf.constant(masks[None]), best > 0
        )
        sizes = tf.constant([size], tf.float32)
        chosen_by = DetectionFilter(voting.LEAST_SCORE, 0.3, limit)
        chosen = chosen_by.candidates(voters.scores[..., 1:], voters.valid)
        own = tf.gather(voters.boxes, chosen.regions, batch_dims=1)
        return voting_of.draw(chosen_by.detections(own, chosen, sizes), voters, sizes)

    return run()


@each_file_with("voting/boxes")
@pytest.mark.parametrize("cap", [100, 12])
def test_oracle_fcis_voting_in_the_graph(file, cap) -> None:
    """As the reference on a GPU, which drops lines and points. Class by class there, by score here."""
    stored = outputs(file)
    size = tuple(int(side) for side in stored["voting/image_hw"])
    boxes = continuous(stored["voting/boxes"])
    found = in_graph(boxes, stored["voting/masks"], stored["voting/scores"], size, cap)
    name = f"voting/gpu_cap{cap}"
    expected = stored[f"{name}_boxes_scores"]
    count = int(found.valid.numpy().sum())
    assert count == len(expected)
    order = np.lexsort((-found.scores[0, :count].numpy(), found.classes[0, :count].numpy()))
    np.testing.assert_array_equal(found.classes[0].numpy()[order], stored[f"{name}_classes"])
    np.testing.assert_allclose(found.scores[0].numpy()[order], expected[:, 4], atol=1e-6)
    np.testing.assert_array_equal(found.boxes[0].numpy()[order], continuous(expected[:, :4]))
    if f"{name}_masks" in stored:
        theirs = with_half(tf.constant(stored[f"{name}_masks"]), 0.4)
        assert (np.abs(found.masks[0].numpy()[order] - theirs) < 1e-4).mean() > 0.999


@pytest.mark.parametrize("prebinarize", [True, False])
def test_the_graph_equals_numpy(prebinarize) -> None:
    rng = np.random.default_rng(8)
    corner = rng.uniform(0, 25, [40, 2])
    boxes = np.concatenate([corner, np.minimum(corner + rng.uniform(4, 30, [40, 2]), [60, 40])], axis=1)
    boxes, masks = boxes.astype(np.float32), rng.uniform(0, 1, [40, 21, 21]).astype(np.float32)
    scores = rng.dirichlet(np.ones(4), 40).astype(np.float32)
    found = in_graph(boxes, masks, scores, SIZE, 30, prebinarize=prebinarize)
    expected = voting.voted_detections(boxes, masks, scores, SIZE, limit=30, prebinarize=prebinarize)
    count = int(found.valid.numpy().sum())
    assert count == len(expected.boxes) > 5
    order = np.lexsort((-found.scores[0, :count].numpy(), found.classes[0, :count].numpy()))
    np.testing.assert_array_equal(found.boxes[0].numpy()[order], expected.boxes)
    np.testing.assert_allclose(found.masks[0].numpy()[order], with_half(tf.constant(expected.masks), 0.4), atol=1e-4)


def test_regions_of_other_classes_may_be_kept_from_voting() -> None:
    """Two regions in one place: one of class 1 with a mask everywhere, one of class 2 without any."""
    boxes = np.array([[10, 5, 31, 26]] * 2, np.float32)
    masks = np.stack([np.ones([21, 21]), np.zeros([21, 21])]).astype(np.float32)
    scores = np.array([[0.1, 0.5, 0.4], [0.1, 0.4, 0.5]], np.float32)
    everyone = in_graph(boxes, masks, scores, SIZE, 5)
    own = in_graph(boxes, masks, scores, SIZE, 5, own_class=True)
    assert everyone.valid.numpy().sum() == 2  # the same vote for both classes, by 5 and by 4 of 9
    assert own.classes[0, :2].numpy().tolist() == [1, 0]
    np.testing.assert_allclose(own.masks[0, 0, 5, 5], 1.0)


def test_a_detection_for_which_nobody_votes_is_dropped() -> None:
    """Its only region is of another class."""
    boxes, masks = np.array([[10, 5, 31, 26]], np.float32), np.ones([1, 21, 21], np.float32)
    found = in_graph(boxes, masks, np.array([[0.1, 0.5, 0.4]], np.float32), SIZE, 5, own_class=True)
    assert found.classes[0].numpy().tolist()[:2] == [1, 0]
    assert found.valid.numpy().sum() == 1


def test_with_half_moves_the_threshold_to_half() -> None:
    np.testing.assert_allclose(with_half(tf.constant([0.0, 0.4, 1.0]), 0.4), [1 / 6, 0.5, 1.0], atol=1e-6)
