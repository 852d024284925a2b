"""Models by name: published weights, and model folders on hubs, as folders on this machine."""

from __future__ import annotations

import importlib
from pathlib import Path

from maskx_tf.errors import BadInput, reason
from maskx_tf.files import AnyPath
from maskx_tf.importers.plan import ImportRequest
from maskx_tf.importers.published import NAMED_WEIGHTS, cache, fetch, lookup
from maskx_tf.importers.run import import_file
from maskx_tf.tasks.progress import SILENT, Progress

# The client of each hub: its module, its function that downloads a model's folder, and the package to install.
HUBS = {
    "hf://": ("huggingface_hub", "snapshot_download", "huggingface_hub"),
    "kaggle://": ("kagglehub", "model_download", "kagglehub"),
}
MIB = 1 << 20


def download(name: str, progress: Progress = SILENT) -> tuple[str, Path]:
    """The program and the file of published weights such as torchvision:maskrcnn_resnet50_fpn.

    Raises:
        BadInput: there is no such name, or its file cannot be had.
    """
    file = lookup(name)

    def report(done: int, total: int) -> None:
        progress.started(total // MIB)
        progress.at(done // MIB, f"downloading {name}, MiB")

    return file.program, fetch(file, report)


def local(model: AnyPath, progress: Progress = SILENT) -> Path:
    """The path of a model on this machine. Published weights are downloaded and imported once, hubs' folders fetched.

    Args:
        model: a path, which is returned as it is; or a name such as torchvision:maskrcnn_resnet50_fpn,
            hf://OWNER/MODEL or kaggle://OWNER/MODEL/FRAMEWORK/VARIATION.
        progress: sees the download.

    Raises:
        BadInput: there is no such name, it cannot be had, or a hub's client is not installed.
    """
    name = str(model)
    for scheme, (module, function, package) in HUBS.items():
        if name.startswith(scheme):
            return _from_hub(name, name.removeprefix(scheme), module, function, package)
    if not NAMED_WEIGHTS.fullmatch(name):
        return Path(model)
    folder = cache() / "models" / name.replace(":", "/")
    if not folder.is_dir():
        program, file = download(name, progress)
        import_file(program, ImportRequest(file), folder)
    return folder


def _from_hub(name: str, handle: str, module: str, function: str, package: str) -> Path:
    try:
        client = importlib.import_module(module)
    except ImportError:
        raise BadInput(f"{name}: expected the package {package}: pip install {package}") from None
    try:
        return Path(getattr(client, function)(handle))
    except Exception as error:  # each client has its own, of networks, accounts and names
        raise BadInput(f"{name}: {package} cannot fetch it: {reason(error)}") from None
