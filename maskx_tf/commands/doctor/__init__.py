"""`maskx doctor`: what is installed, what this machine has, and what to do."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from maskx_tf.commands.doctor.machine import facts
from maskx_tf.errors import BadInput
from maskx_tf.files import Json

EXAMPLE = "Example: maskx doctor --json"
GIB = 2**30
LEAST_MEMORY = 4 * GIB  # a ResNet-50 model at 800 x 1216 needs about half of it at inference
LEAST_DISK = 5 * GIB  # three checkpoints of the largest recipe


def doctor(as_json: Annotated[bool, typer.Option("--json", help="JSON instead of text.")] = False) -> None:
    """Tell what this machine has, what is missing, and what to do. Exit code 2 if it cannot work."""
    report = examine()
    print(json.dumps(report, indent=2) if as_json else describe(report))
    if report["needed"]:
        raise BadInput(f"this machine is not ready: {'; '.join(report['needed'])}")


def examine() -> Json:
    """Everything that `maskx doctor` reports, as plain data."""
    report = facts()
    return report | {"needed": _needed(report), "advice": _advice(report)}


def describe(report: Json) -> str:
    """The report as text."""
    lines = [f"maskx {report['maskx']}, Python {report['python']}, {report['system']}", ""]
    group = None
    for package in report["packages"]:
        if package["extra"] != group:
            group = package["extra"]
            lines.append(f"extra {group}:")
        state = "" if package["fits"] else "  <- missing" if package["installed"] is None else "  <- does not fit"
        lines.append(f"  {package['name']:24}{package['installed'] or '-':14}{package['wanted']}{state}")
    devices = [" ".join([d["name"], d.get("device_name", "")]).strip() for d in report["tensorflow"].get("devices", ())]
    lines += [
        "",
        f"devices  {', '.join(devices) or 'unknown: ' + report['tensorflow']['error']}",
        f"cores    {report['cores']}",
        f"memory   {_gib(report['memory_bytes'])}, of which free {_gib(report['memory_free_bytes'])}",
        f"disk     free here {_gib(report['disk_free_bytes'])}",
        f"browser  {report['browser'] or 'none, which only tests of pages miss'}",
    ]
    for title, advice in (("Nothing works before this is done:", "needed"), ("What may be done:", "advice")):
        if report[advice]:
            lines += ["", title, *(f"- {one}" for one in report[advice])]
    return "\n".join(lines if report["needed"] or report["advice"] else [*lines, "", "All is in place."])


def _gib(size: int | None) -> str:
    return "unknown" if size is None else f"{size / GIB:.1f} GiB"


def _unfit(report: Json) -> set[str | None]:
    """The extras of which something is missing; None stands for what is always needed."""
    return {package["extra"] for package in report["packages"] if not package["fits"]}


def _install(report: Json, extra: str | None = None) -> str:
    """The command that installs what is missing of an extra, or of what is always needed."""
    if report["editable"]:
        what = f"'.[{extra}]'" if extra else "."
        return f"in the clone, pip install -c constraints.txt -e {what}"
    missing = (package for package in report["packages"] if package["extra"] == extra and not package["fits"])
    return "pip install " + " ".join(f"'{package['name']}{package['wanted']}'" for package in missing)


def _needed(report: Json) -> list[str]:
    """Lists the problems to fix before anything works."""
    needed = []
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        needed.append(f"use Python 3.11, 3.12 or 3.13; TensorFlow has no build for {report['python']}")
    if not report["packages"]:
        needed.append(f"install the package: {_install(report)}")
    if None in _unfit(report):
        needed.append(f"install what the package needs: {_install(report)}")
    if report["broken_modules"]:
        module, why = next(iter(report["broken_modules"].items()))
        count = len(report["broken_modules"])
        needed.append(f"install the package again: {count} of its modules cannot be imported, first {module}: {why}")
    tensorflow = report["tensorflow"]
    if "SIGILL" in tensorflow.get("error", ""):
        needed.append("use a processor with AVX: TensorFlow's builds need it")
    elif "error" in tensorflow:
        needed.append(f"repair TensorFlow, which says: {tensorflow['error']}")
    if tensorflow.get("backend", "tensorflow") != "tensorflow":
        needed.append(f"set KERAS_BACKEND=tensorflow; it is {tensorflow['backend']} now")
    return needed


def _advice(report: Json) -> list[str]:
    """Lists optional improvements."""
    advice = [
        f"for extra {extra} ({EXTRAS.get(extra, 'optional')}): {_install(report, extra)}"
        for extra in sorted(filter(None, _unfit(report)))
    ]
    devices = [device["name"] for device in report["tensorflow"].get("devices", ())]
    if devices and not any("GPU" in name for name in devices) and Path("/proc/driver/nvidia").exists():
        advice.append("TensorFlow does not see the NVIDIA GPU: pip install 'tensorflow[and-cuda]'")
    if not report["letters"]:
        advice.append("Pillow cannot write on pictures: install its own wheel, which has FreeType")
    if report["disk_free_bytes"] is not None and report["disk_free_bytes"] < LEAST_DISK:
        advice.append("with so little disk, lower train.keep, or write runs elsewhere with --out")
    if report["memory_bytes"] is not None and report["memory_bytes"] < LEAST_MEMORY:
        advice.append("with so little memory, lower model.input.canvas and train.batch")
    return advice


# What each extra of setup.cfg brings, for the advice.
EXTRAS = {
    "batch": "jobs of many images, and labelling",
    "dev": "tests and linters",
    "docs": "the documentation as a site",
    "eval": "the faster evaluator",
    "grabcut": "the GrabCut baselines",
    "litert": "running LiteRT models",
    "onnx": "writing and running ONNX models",
    "ray": "jobs on a cluster of Ray",
    "sbd": "reading SBD",
    "serving": "the local server, and asking over gRPC",
}
