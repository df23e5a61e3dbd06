"""Write the demo model out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import say
from .options import Debug


def demo_model(
    path: Annotated[Path, typer.Argument(help="Folder to write the model to.")],
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace files in a folder that is not empty.")] = False,
    debug: Debug = False,  # noqa: ARG001 - kept by its callback
) -> None:
    """Write the small demo chat model and its LoRA adapters to a folder."""
    import trunnion.errors
    from trunnion_demo import adapter_paths, write_demo_model

    try:
        written = write_demo_model(path, force=force)
    except FileExistsError as error:
        raise trunnion.errors.ConfigError(f"{path} is not empty; name another folder, or give --force") from error
    except NotADirectoryError as error:
        raise trunnion.errors.ConfigError(f"{path} is a file; name a folder") from error
    typer.echo(str(written))
    for name in adapter_paths(written):
        say(f"adapter {name}: {written}/adapters/{name}")
    say(f"try: trunnion chat {path}")
