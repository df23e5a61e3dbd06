"""Hold all that is imported of huggingface_hub (0.34 to 2.x).

Its HTTP library changed between those, so errors of the network are known by where they come from and not by class.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, hf_hub_url, snapshot_download
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
from huggingface_hub.utils import build_hf_headers, tqdm

from trunnion.fetch import FetchJob


def offline() -> bool:
    """Tell whether the Hub may not be asked (``HF_HUB_OFFLINE``)."""
    return bool(constants.HF_HUB_OFFLINE)


def storage(name: str) -> Path:
    """Return the folder of a repository in the Hub's cache."""
    folder: str = repo_folder_name(repo_id=name, repo_type="model")
    return Path(constants.HF_HUB_CACHE) / folder


def has_xet() -> bool:
    """Tell whether large files come by Xet."""
    return importlib.util.find_spec("hf_xet") is not None and not getattr(constants, "HF_HUB_DISABLE_XET", False)


def url(name: str, path: str, sha: str) -> str:
    """Return where a file of a commit is."""
    return str(hf_hub_url(name, path, revision=sha))


def headers() -> Mapping[str, str]:
    """Return what the Hub is to be sent: who asks, and the token if there is one."""
    return {str(key): str(value) for key, value in build_hf_headers().items()}


def free_space(folder: Path) -> int:
    """Return the bytes that are free where a folder lies."""
    return shutil.disk_usage(folder).free


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
    "free_space",
    "has_xet",
    "headers",
    "is_network_error",
    "offline",
    "snapshot_download",
    "stoppable",
    "storage",
    "url",
]
