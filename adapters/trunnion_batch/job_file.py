"""Read a job from a YAML file, so that a batch needs no Python and no long command."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from trunnion import MediaPolicy
from trunnion.errors import ConfigError
from trunnion.pooling import Task
from trunnion.settings import UNKNOWN, Settings

from .answering import Share
from .recovery import Recovery


class JobModel(Settings):
    """Describe one further model of a batch."""

    engine: str | None = Field(default=None, description="Engine plugin; if left out, the one that suits best.")
    model: str | None = Field(default=None, description="Path or name of the model.")
    config: dict[str, Any] = Field(default_factory=dict, description="The engine's settings.")
    adapters: dict[str, str] = Field(default_factory=dict, description="LoRA adapters to load: paths by name.")
    sampling: dict[str, Any] = Field(default_factory=dict, description="Sampling parameters of rows that set none.")
    replicas: int = Field(default=1, ge=1, description="With ray: engines side by side.")


class JobFile(Settings):
    """Describe one batch. Relative paths are relative to the job's file."""

    input: str = Field(description="Rows: a .jsonl or .parquet file.")
    output: str = Field(description="A .jsonl or .parquet file.")
    task: Task = Field(
        default="generate",
        description="generate: text; embed: a vector for `prompt`; classify: probabilities of labels for `prompt`; "
        "score: how well each of `texts` answers `query`.",
    )
    dimensions: int | None = Field(
        default=None, ge=1, description="With embed: length of the vectors, where the model can cut them."
    )
    engine: str | None = Field(default=None, description="Engine plugin; if left out, the one that suits best.")
    model: str | None = Field(default=None, description="Path or name of the model.")
    config: dict[str, Any] = Field(default_factory=dict, description="The engine's settings.")
    adapters: dict[str, str] = Field(default_factory=dict, description="LoRA adapters to load: paths by name.")
    models: dict[str, JobModel] = Field(
        default_factory=dict,
        description="Further models, by the names under which rows ask for them in the column `model`: `judge`, or "
        "`judge:strict` for its LoRA adapter `strict`. All other rows are for `model`.",
    )
    hooks: dict[str, dict[str, Any]] = Field(default_factory=dict, description="Settings of request hooks, by name.")
    media: MediaPolicy = Field(default_factory=MediaPolicy, description="From where images in rows are fetched.")
    sampling: dict[str, Any] = Field(default_factory=dict, description="Sampling parameters of rows that set none.")
    columns: dict[str, str] = Field(
        default_factory=dict, description="Other names for the input columns, such as `prompt: text`."
    )
    preprocess: dict[str, Any] = Field(
        default_factory=dict,
        description="Columns to be made of a row's others before it is asked, such as `prompt` or `messages`: Jinja "
        "templates, also inside lists and objects.",
    )
    postprocess: dict[str, Any] = Field(
        default_factory=dict,
        description="The columns of answered rows, as Jinja templates over all they have; `error` is added. If left "
        "out, rows keep their columns and get the output columns.",
    )
    on_error: Literal["row", "raise"] = Field(default="row", description="raise: the first failed row ends the run.")
    concurrency: int | None = Field(default=None, ge=1, description="Rows in flight.")
    prefix_window: int | None = Field(
        default=None,
        ge=1,
        description="Rows held at once, of which those that share the beginning of their prompts go to the engine "
        "close together. None: in the order they come.",
    )
    ray: bool = Field(default=False, description="Run on Ray.")
    replicas: int = Field(default=1, ge=1, description="With ray: engines side by side.")
    journal: str | None = Field(default=None, description="Folder for finished answers, from which a run goes on.")
    cache: str | None = Field(default=None, description="Folder of answers that any later run may use.")
    deduplicate: bool = Field(default=False, description="Ask once for rows that are the same.")
    share: Share = Field(default="deterministic", description="Which rows share answers.")
    dead_letters: str | None = Field(default=None, description="A file for the rows that failed.")
    max_error_rate: float | None = Field(
        default=None, ge=0, le=1, description="Share of failed rows that ends the run."
    )
    summary: str | None = Field(default=None, description="Where the account is written to; '' for nowhere.")
    recovery: Recovery = Field(default_factory=Recovery, description="What happens when engines fail.")


def read_job(path: str) -> JobFile:
    """Return the job of a file, its paths made absolute.

    Raises:
        ConfigError: The file is missing or no YAML, or a setting is unknown or wrong; ``param`` names it.
    """
    import yaml

    file = Path(path).expanduser()
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the job file {path} cannot be read: {error}", param="job") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"the job file {path} is not valid YAML: {error}", param="job") from error
    if not isinstance(values, dict):
        raise ConfigError(f"the job file {path} must hold settings such as input, output and model", param="job")
    try:
        job = JobFile.model_validate(values)
    except ValidationError as error:
        raise _told(error, path) from error
    folder = file.absolute().parent
    moved = {name: _beside(folder, getattr(job, name)) for name in _PATHS}
    models = {name: one.model_copy(update=_moved(folder, one)) for name, one in job.models.items()}
    return job.model_copy(update={**moved, **_moved(folder, job), "models": models})


def _moved(folder: Path, given: JobFile | JobModel) -> dict[str, Any]:
    model = given.model
    if model is not None and (folder / model).exists():
        model = str(folder / model)
    return {"model": model, "adapters": {name: str(_beside(folder, path)) for name, path in given.adapters.items()}}


_PARTS: dict[str, type[BaseModel]] = {"recovery": Recovery, "media": MediaPolicy, "models": JobModel}
_PATHS = ("input", "output", "journal", "cache", "dead_letters", "summary")


def _beside(folder: Path, value: str | None) -> str | None:
    if not value or "://" in value or value == "-":
        return value
    return str(folder / Path(value).expanduser())


def _told(error: ValidationError, path: str) -> ConfigError:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    parts = [f"{part}.{where}" for part, one in _PARTS.items() if where in one.model_fields]
    if first["type"] == UNKNOWN and parts:
        return ConfigError(f"{path}: {where}: there is no such setting; did you mean {parts[0]!r}?", param=where)
    return ConfigError(f"{path}: {where}: {first['msg']}", param=where)
