"""Collects what is installed and what this machine has."""

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

import maskx_tf
from maskx_tf.files import Json

CONTRIBUTORS = ("dev", "docs")  # the extras that need a clone
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

# TensorFlow is imported in another process: on a processor that it was not built for it dies, and so would we.
PROBE = """
import json, sys, keras, tensorflow as tf
devices = [{"name": d.name.removeprefix("/physical_device:"), **tf.config.experimental.get_device_details(d)}
           for d in tf.config.list_physical_devices()]
sys.path.append(sys.argv[1])
from maskx_tf.commands.doctor import machine
print(json.dumps({"devices": devices, "cuda_build": tf.test.is_built_with_cuda(), "backend": keras.backend.backend(),
                  "broken": machine.broken_modules()}, default=str))
"""


def facts() -> Json:
    """Returns what is installed and what this machine has, as plain data."""
    editable = _is_editable()
    packages = _packages(editable)
    tensorflow = _tensorflow()
    total, free = _memory()
    return {
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
        match = re.match(r"([\w.-]+)(?:\[.*?\])?\s*([^;]*)(?:;.*extra == ['\"](\w+)['\"])?", requirement)
        assert match, requirement
        name, wanted, extra = match.group(1), match.group(2).strip(), match.group(3)
        if extra in CONTRIBUTORS and not editable:
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
    """Returns TensorFlow's version and devices, or {"error": reason} if it cannot be imported."""
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
    """Whether Pillow can draw text; its wheels can."""
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
