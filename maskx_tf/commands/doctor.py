"""`maskx doctor`: what is installed, what this machine has, and what to do."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import platform
import re
import shutil
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

import maskx_tf
from maskx_tf.errors import BadInput
from maskx_tf.files import Json

EXAMPLE = "Example: maskx doctor --json"
GIB = 2**30
LEAST_MEMORY = 4 * GIB  # a ResNet-50 model at 800 x 1216 needs about half of it at inference
LEAST_DISK = 5 * GIB  # three checkpoints of the largest recipe
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

# TensorFlow is imported in another process: on a processor that it was not built for it dies, and so would we.
PROBE = """
import json, sys, keras, tensorflow as tf
devices = [{"name": d.name.removeprefix("/physical_device:"), **tf.config.experimental.get_device_details(d)}
           for d in tf.config.list_physical_devices()]
sys.path.append(sys.argv[1])
from maskx_tf.commands import doctor
print(json.dumps({"devices": devices, "cuda_build": tf.test.is_built_with_cuda(), "backend": keras.backend.backend(),
                  "broken": doctor.broken_modules()}, default=str))
"""


def doctor(as_json: Annotated[bool, typer.Option("--json", help="JSON instead of text.")] = False) -> None:
    """Tell what this machine has, what is missing, and what to do. Exit code 2 if it cannot work."""
    report = examine()
    print(json.dumps(report, indent=2) if as_json else describe(report))
    if report["needed"]:
        raise BadInput(f"this machine is not ready: {'; '.join(report['needed'])}")


def examine() -> Json:
    """Everything that `maskx doctor` reports, as plain data."""
    editable = _is_editable()
    packages = _packages(editable)
    tensorflow = _tensorflow()
    total, free = _memory()
    report: Json = {
        "maskx": maskx_tf.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "editable": editable,
        "packages": packages,
        "broken_modules": tensorflow.pop("broken", {}),
        "tensorflow": tensorflow,
        "cores": _cores(),
        "memory_bytes": total,
        "memory_free_bytes": free,
        "disk_free_bytes": _disk(),
        "letters": _can_write(),
        "browser": browser(),
    }
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


def broken_modules() -> dict[str, str]:
    """The modules of the package that cannot be imported, and why; a module that lacks an extra is not broken."""
    broken = {}
    for module in pkgutil.walk_packages(maskx_tf.__path__, "maskx_tf."):
        if module.name.endswith("__main__"):  # it runs the command
            continue
        try:
            importlib.import_module(module.name)
        except ImportError as error:
            is_ours = (error.name or "maskx_tf").split(".")[0] == "maskx_tf"
            if is_ours or not isinstance(error, ModuleNotFoundError):
                broken[module.name] = str(error)
    return broken


def _is_editable() -> bool:
    """Whether the package is run from its clone, where a contributor works; a wheel's user has no clone.

    In the clone's own folder a search finds its .egg-info first, which does not say so: every copy is asked.
    """
    copies = list(metadata.distributions(name="maskx_tf"))
    origins = filter(None, (copy.read_text("direct_url.json") for copy in copies))
    return not copies or any(json.loads(origin).get("dir_info", {}).get("editable") for origin in origins)


def _packages(editable: bool) -> list[Json]:
    """The packages that our own metadata asks for, those of the extras last; the contributors' in a clone alone."""
    try:
        requirements = metadata.requires("maskx_tf") or []
    except metadata.PackageNotFoundError:
        return []
    found = []
    for requirement in requirements:
        match = re.match(r"([\w.-]+)\s*([^;]*)(?:;.*extra == ['\"](\w+)['\"])?", requirement)
        assert match, requirement
        name, wanted, extra = match.group(1), match.group(2).strip(), match.group(3)
        if extra == "dev" and not editable:
            continue
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed = None
        fits = installed is not None and satisfies(installed, wanted)
        found.append({"name": name, "installed": installed, "wanted": wanted, "extra": extra, "fits": fits})
    return found


def satisfies(version: str, wanted: str) -> bool:
    """Whether a version such as 2.21.0 lies within bounds such as >=2.21,<2.22."""
    number = _number(version)
    for bound in filter(None, wanted.replace(" ", "").split(",")):
        limit = _number(bound.lstrip("<>="))
        if number < limit if bound.startswith(">=") else number >= limit:
            return False
    return True


def _number(version: str) -> tuple[int, ...]:
    numbers = [int(part) for part in re.findall(r"\d+", version.partition("+")[0])]
    return tuple([*numbers, 0, 0, 0][:3])


def _tensorflow() -> Json:
    """What TensorFlow says of this machine, or {"error": why it says nothing}."""
    try:
        probe = subprocess.run(
            [sys.executable, "-P", "-c", PROBE, str(Path(maskx_tf.__file__).parents[1])],
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": "TensorFlow did not start within 300 seconds"}
    if probe.returncode < 0:
        return {"error": f"TensorFlow was ended by {signal.Signals(-probe.returncode).name}"}
    if probe.returncode:
        return {"error": (probe.stderr.strip().splitlines() or ["TensorFlow did not start"])[-1]}
    answer: Json = json.loads(probe.stdout.splitlines()[-1])
    return answer


def _cores() -> int:
    """Cores that this process may use: containers often grant fewer than the machine has."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _read("/sys/fs/cgroup/cpu.max").split()
    if len(quota) == 2 and quota[0].isdigit():
        cores = min(cores, max(1, round(int(quota[0]) / int(quota[1]))))
    return cores


def _memory() -> tuple[int | None, int | None]:
    """Bytes of memory in all and free, within the limit of a container."""
    fields = dict(re.findall(r"^(\w+):\s+(\d+) kB", _read("/proc/meminfo"), re.MULTILINE))
    if "MemTotal" not in fields or "MemAvailable" not in fields:
        return None, None
    total, free = 1024 * int(fields["MemTotal"]), 1024 * int(fields["MemAvailable"])
    limit, used = _read("/sys/fs/cgroup/memory.max"), _read("/sys/fs/cgroup/memory.current")
    if limit.isdigit() and used.isdigit() and int(limit) < total:
        total, free = int(limit), min(free, max(0, int(limit) - int(used)))
    return total, free


def _disk() -> int | None:
    """Bytes free where the command runs, which is where runs are written."""
    try:
        return shutil.disk_usage(Path.cwd()).free
    except OSError:
        return None


def browser() -> str | None:
    """A Chromium, with which the tests open pages."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def _can_write() -> bool:
    """Whether Pillow has a font for the letters in drawings; its own wheels have."""
    try:
        from PIL import features

        return bool(features.check("freetype2"))
    except ImportError:
        return False


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


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
    """What has to be done before anything works."""
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
    """What would make more possible, or better."""
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
    "eval": "the faster evaluator",
    "grabcut": "the GrabCut baselines",
    "litert": "running LiteRT models",
    "onnx": "writing and running ONNX models",
    "ray": "jobs on a cluster of Ray",
    "sbd": "reading SBD",
    "serving": "the local server, and asking over gRPC",
}
