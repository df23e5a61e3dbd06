"""Hold all that is imported of huggingface_hub (0.34 to 2.x).

Its HTTP library changed between those, so errors of the network are known by where they come from and not by class.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import tqdm

from trunnion.fetch import FetchJob


def offline() -> bool:
    """Tell whether the Hub may not be asked (``HF_HUB_OFFLINE``)."""
    return bool(constants.HF_HUB_OFFLINE)


def storage(name: str) -> Path:
    """Return the folder of a repository in the Hub's cache."""
    folder: str = repo_folder_name(repo_id=name, repo_type="model")
    return Path(constants.HF_HUB_CACHE) / folder


def is_network_error(error: BaseException) -> bool:
    """Tell whether the Hub could not be reached at all."""
    modules = {cls.__module__.partition(".")[0] for cls in type(error).__mro__}
    return bool(modules & {"requests", "httpx", "httpx2", "httpcore", "urllib3"}) or isinstance(
        error, ConnectionError | TimeoutError
    )


def stoppable(job: FetchJob) -> type[Any]:
    """Return a progress bar that shows nothing, and ends the download once the job was given up."""

    class Stopper(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs["disable"] = True
            super().__init__(*args, **kwargs)

        def update(self, n: float | None = 1) -> None:
            job.check()
            super().update(n)

    return Stopper


__all__ = [
    "GatedRepoError",
    "HFValidationError",
    "HfApi",
    "HfHubHTTPError",
    "LocalEntryNotFoundError",
    "OfflineModeIsEnabled",
    "RepositoryNotFoundError",
    "RevisionNotFoundError",
    "is_network_error",
    "offline",
    "snapshot_download",
    "stoppable",
    "storage",
]
