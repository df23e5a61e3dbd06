"""Write the manifest of a KubeRay service that serves what a config file says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from .console import say
from .options import Debug


def kuberay(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A config file, as for `trunnion serve FILE.yaml`.")],
    *,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Where the manifest is written; - for stdout.")
    ] = "-",
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the service; the config file's if left out.")
    ] = None,
    namespace: Annotated[str | None, typer.Option(metavar="NAMESPACE", help="Namespace of the service.")] = None,
    image: Annotated[
        str | None,
        typer.Option(metavar="IMAGE", help="Image of all pods, with Trunnion in it; Ray's own if left out."),
    ] = None,
    min_workers: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Least workers of each group, whatever the replicas need.")
    ] = None,
    max_workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Most workers of each group, whatever the replicas need.")
    ] = None,
    worker_memory: Annotated[
        int, typer.Option(min=1, metavar="GIB", help="Memory of workers whose engines do not ask for any; per GPU.")
    ] = 16,
    head_cpu: Annotated[int, typer.Option(min=1, metavar="N", help="CPUs of the head.")] = 2,
    head_memory: Annotated[int, typer.Option(min=1, metavar="GIB", help="Memory of the head.")] = 8,
    debug: Debug = False,  # noqa: ARG001 - kept by its callback
) -> None:
    """Write a RayService for KubeRay that serves what FILE says, with workers of the size its engines need."""
    from .serve_file import read

    checked = read(file, engines=False)
    from trunnion_ray.serve.kuberay import ray_service, to_yaml
    from trunnion_ray.serve.kuberay_notes import Cluster

    cluster = Cluster(
        name=name or _name_of(file),
        namespace=namespace,
        image=image,
        min_workers=min_workers,
        max_workers=max_workers,
        worker_memory=worker_memory,
        head_cpu=head_cpu,
        head_memory=head_memory,
    )
    manifest, notes = ray_service(checked, cluster)
    text = to_yaml(manifest, notes)
    for note in notes:
        say(f"note: {note}")
    if output == "-":
        typer.echo(text, nl=False)
    else:
        Path(output).expanduser().write_text(text, encoding="utf-8")
        say(f"written to {output}; `kubectl apply -f {output}` makes it run")


def _name_of(file: str) -> str:
    """Return a name for the service out of the config file's."""
    return re.sub(r"[^a-z0-9]+", "-", Path(file).stem.lower()).strip("-") or "trunnion"
