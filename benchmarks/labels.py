"""How good the masks of `maskx label` or `maskx data pseudo` are: `python -m benchmarks.labels LABELLED TRUTH`.

Both are COCO files of the same objects; LABELLED has made masks, with `mask_source` and `mask_quality`, where TRUTH has
true ones. Prints for each class how many masks were made, their mean IoU with the truth, and of those that are
not flagged for a person; and AP as if the masks were detections, whose scores are their qualities.
"""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path
from statistics import fmean

from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from rich.console import Console
from rich.table import Table


def main(labelled: Path, truth: Path) -> None:
    """Prints the table."""
    with contextlib.redirect_stdout(io.StringIO()):
        made, true = COCO(labelled), COCO(truth)
        objects = {key: one for key, one in made.anns.items() if "mask_source" in one and not one.get("iscrowd")}
        true.dataset["annotations"] = [one for key, one in true.anns.items() if key in objects]
        true.createIndex()
        results = [
            {
                "image_id": one["image_id"],
                "category_id": one["category_id"],
                "segmentation": made.annToRLE(one),
                "score": one["mask_quality"],
            }
            for one in objects.values()
        ]
        evaluation = COCOeval(true, true.loadRes(results), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][..., 0, -1]  # [IoU, recall, class]
    table = Table("class", "masks", "mean IoU", "not flagged", "their mean IoU", "AP", title=str(labelled))
    ious, averages = [], []
    for index, category in enumerate(evaluation.params.catIds):
        of_class = [one for one in objects.values() if one["category_id"] == category]
        if not of_class:
            continue
        found = [
            float(rle.iou([made.annToRLE(one)], [true.annToRLE(true.anns[one["id"]])], [0])[0, 0]) for one in of_class
        ]
        sure = [iou for one, iou in zip(of_class, found, strict=True) if not one.get("needs_review")]
        average = 100 * float(precision[..., index].mean())
        name = true.cats[category]["name"]
        kept = f"{100 * fmean(sure):.1f}" if sure else "-"
        table.add_row(name, str(len(found)), f"{100 * fmean(found):.1f}", str(len(sure)), kept, f"{average:.1f}")
        ious.append((found, sure))
        averages.append(average)
    everything, kept_all = ([iou for part in parts for iou in part] for parts in zip(*ious, strict=True))
    table.add_row(
        "all",
        str(len(everything)),
        f"{100 * fmean(everything):.1f}",
        str(len(kept_all)),
        f"{100 * fmean(kept_all):.1f}" if kept_all else "-",
        f"{fmean(averages):.1f}",
    )
    Console(width=110).print(table)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
