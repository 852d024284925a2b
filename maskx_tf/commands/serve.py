"""`maskx serve`: a local server that speaks as TF Serving does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maskx_tf.errors import BadInput
from maskx_tf.quiet import import_tensorflow

EXAMPLE = "Example: maskx serve models/pets --grpc-port 8500 --rest-port 8501 --batching serving/batching.txt"
Port = Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")]


def serve(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of a model's versions, from maskx export saved-model.")
    ],
    name: Annotated[str | None, typer.Option(help="Model name; default: the folder's name.")] = None,
    host: Annotated[str, typer.Option(help="Address; 0.0.0.0 for the whole network.")] = "127.0.0.1",
    grpc_port: Port = 8500,
    rest_port: Port = 8501,
    batching: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Batching parameters of TF Serving; else none.")
    ] = None,
    keep: Annotated[int, typer.Option(min=1, help="Versions to serve, the newest ones.")] = 1,
    poll: Annotated[float, typer.Option(min=0.1, help="Seconds between looks for new versions.")] = 2.0,
    max_megabytes: Annotated[float, typer.Option(min=0.001, max=2000, help="Largest message.")] = 32.0,
    max_images: Annotated[int, typer.Option(min=1, help="Most images in a request.")] = 64,
    held_megabytes: Annotated[
        float, typer.Option(min=0.001, help="Limit for requests and unread answers in all.")
    ] = 256.0,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for an answer over HTTP.")] = 60.0,
    grace: Annotated[float, typer.Option(min=0.0, help="Seconds to answer when it is stopped.")] = 30.0,
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Another name of this server, for browsers.")
    ] = None,
    allow_origin: Annotated[
        list[str] | None, typer.Option(metavar="URL", help="Origin of a site whose pages may ask.")
    ] = None,
    key: Annotated[Path | None, typer.Option(metavar="FILE", help="PEM file, to encrypt both ports.")] = None,
    certificate: Annotated[Path | None, typer.Option(metavar="FILE", help="PEM file, to encrypt both ports.")] = None,
) -> None:
    """Serve a model on this machine: gRPC, REST and a page. SIGTERM and Ctrl-C end it."""
    import signal
    import threading

    import_tensorflow()
    try:
        from maskx_tf.serving.server.server import Options, Server
    except ImportError as error:
        raise BadInput(f"{error.name} is missing: pip install 'maskx_tf[serving]'") from None
    from maskx_tf.serving.server.batching import Parameters, read_parameters
    from maskx_tf.serving.server.service import Limits

    _log_requests()
    options = Options(
        host=host,
        grpc_port=grpc_port,
        rest_port=rest_port,
        batching=Parameters() if batching is None else read_parameters(batching),
        limits=Limits(int(max_megabytes * 2**20), max_images, int(held_megabytes * 2**20), timeout),
        poll_seconds=poll,
        keep=keep,
        grace=grace,
        hosts=tuple(allow_host or ()),
        origins=tuple(allow_origin or ()),
        key=key,
        certificate=certificate,
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # until it has started, as Ctrl-C
    server = Server(folder, name or folder.resolve().name, options)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    versions = ", ".join(map(str, server.versions()))
    scheme = "http" if key is None else "https"
    print(f"serving {name or folder.resolve().name}, version {versions}", flush=True)
    print(f"gRPC {host}:{server.grpc_port}, REST and a page {scheme}://{host}:{server.rest_port}/", flush=True)
    stopped.wait()
    server.stop()


def _log_requests() -> None:
    """Writes the log to standard error; requests as JSON, one object a line."""
    import logging

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    requests = logging.getLogger("maskx.serving.access")
    requests.addHandler(logging.StreamHandler())
    requests.propagate = False
