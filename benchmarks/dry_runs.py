"""Makes two steps of every recipe at its full size: `python -m benchmarks.dry_runs FILE [RECIPE...]`.

One image a step: each device of the paper's eight had one or two, and a machine without a GPU can hold one. Of recipes
whose models and stages are equal one is run. Each line of FILE is one recipe's figures as JSON; those that are there
are not run again. Prints FILE as a table.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

from maskx_tf.config import ModelConfig, load

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def recipes() -> dict[str, list[str]]:
    """The recipes to run, and for each those that have the same model and the same stage."""
    groups: dict[tuple[ModelConfig, bool, bool], list[str]] = {}
    for path in sorted(CONFIGS.glob("*.yaml")):
        config = load(path)
        groups.setdefault((config.model, config.train.stage == "mask", "vg3k" in path.stem), []).append(path.stem)
    return {names[0]: names[1:] for names in groups.values()}


def run(name: str) -> dict[str, Any]:
    """One recipe's figures."""
    command = [sys.executable, "-m", "maskx_tf", "train", str(CONFIGS / f"{name}.yaml"), "--dry-run", "--json"]
    command += ["train.batch=1", "train.accumulate=1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"recipe": name, "error": done.stderr.strip().splitlines()[-1]}
    return {"recipe": name, **json.loads(done.stdout)}


def table(lines: list[dict[str, Any]]) -> str:
    """The figures in Markdown."""
    rows = [
        "| recipe | with the same model and stage | parameters | that learn | memory, MiB | losses |",
        "|---|---|---:|---:|---:|---|",
    ]
    for one in sorted(lines, key=lambda line: line["recipe"]):
        names = f"`{one['recipe']}` | {', '.join(f'`{name}`' for name in one['same'])}"
        if "error" in one:
            rows.append(f"| {names} | | | | {one['error']} |")
            continue
        numbers = " | ".join(f"{one[key]:,}" for key in ("parameters", "trained", "memory_mib"))
        sound = all(math.isfinite(value) for value in one["losses"].values())
        rows.append(f"| {names} | {numbers} | {'finite' if sound else 'not finite'} |")
    return "\n".join(rows)


def main() -> None:
    """Runs what is not in the file yet, and prints the table."""
    if len(sys.argv) < 2:
        sys.exit("expected a file for the figures")
    file = Path(sys.argv[1])
    groups = recipes()
    wanted = sys.argv[2:] or list(groups)
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    done = {one["recipe"] for one in lines}
    for name in wanted:
        if name not in done:
            lines.append({**run(name), "same": groups.get(name, [])})
            with file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(lines[-1]) + "\n")
            print(f"{name}: {lines[-1].get('step_seconds', lines[-1].get('error'))}", file=sys.stderr)
    print(table(lines))


if __name__ == "__main__":
    main()
