"""Writes the data of the new user's trial: `python -m benchmarks.trial_data CCP OUT`.

The first 500 training photos of Clothing Co-Parsing and its 100 validation photos, with the 12 classes that have the
most training instances. CCP is a folder with instances_train.json and instances_val.json.
"""

from __future__ import annotations

import collections
import json
import sys
from pathlib import Path

PHOTOS, CLASSES = 500, 12


def main(source: Path, out: Path) -> None:
    """Writes OUT/train.json and OUT/val.json."""
    parts = {name: json.loads((source / f"instances_{name}.json").read_text("utf-8")) for name in ("train", "val")}
    counts = collections.Counter(one["category_id"] for one in parts["train"]["annotations"])
    kept = {number for number, _ in counts.most_common(CLASSES)}
    out.mkdir(parents=True, exist_ok=True)
    for name, data in parts.items():
        images = sorted(data["images"], key=lambda image: image["id"])[: PHOTOS if name == "train" else None]
        ids = {image["id"] for image in images}
        annotations = [one for one in data["annotations"] if one["image_id"] in ids and one["category_id"] in kept]
        categories = [one for one in data["categories"] if one["id"] in kept]
        subset = {"images": images, "annotations": annotations, "categories": categories}
        (out / f"{name}.json").write_text(json.dumps(subset), encoding="utf-8")
        print(f"{name}: {len(images)} photos, {len(annotations)} instances of {len(categories)} classes")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
