"""Read Ray Serve's config file, and find whatever is wrong with it before anything starts."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ray.serve.schema import ServeDeploySchema

from trunnion.errors import ConfigError

from .application import AppConfig
from .config_check import check_application, check_models
from .config_paths import with_absolute_paths
from .import_check import BUILDER, BUILDERS, check_import_path
from .mirror.configs import LLMServingArgs
from .problems import Problem, find_problems
from .yaml_lines import Place, dotted, line_of, read_yaml


@dataclass(frozen=True, slots=True, kw_only=True)
class FileApplication:
    """Describe one application of a file.

    Attributes:
        name: Its name.
        route_prefix: Path under which it answers; None where it answers no HTTP.
        config: What it serves, where that is described in the file; None for a program of the user's own.
        mirrored: The same in the words of Ray's LLM modules.
    """

    name: str
    route_prefix: str | None
    config: AppConfig | None
    mirrored: LLMServingArgs | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeFile:
    """Hold a file that was found right.

    Attributes:
        path: Where it was read from.
        text: What it says, to the letter.
        data: The same as values, with local paths made absolute.
        applications: What is to be deployed.
    """

    path: Path
    text: str
    data: Mapping[str, Any]
    applications: tuple[FileApplication, ...]

    def to_ray(self) -> ServeDeploySchema:
        """Return the file as Ray Serve takes it."""
        return ServeDeploySchema.model_validate(dict(self.data))

    @property
    def topology(self) -> Literal["auto", "direct", "proxy"]:
        """Return what Serve should be started for: direct if one application insists, proxy if all ask for it."""
        wanted = [app.config.topology if app.config is not None else "auto" for app in self.applications]
        if "direct" in wanted:
            return "direct"
        return "proxy" if set(wanted) == {"proxy"} else "auto"


def read_config_file(path: str | Path, *, engines: bool = True) -> ServeFile:
    """Read a config file and check all of it, engines' settings included. Nothing in it is replaced by variables.

    Args:
        path: A YAML file.
        engines: Whether what engines need must be found on this machine; their settings are checked anyway.

    Raises:
        ConfigError: The file cannot be read or is wrong. The message tells every problem with its line and key,
            ``param`` is the key of the first, and ``details["problems"]`` holds all of them.
    """
    file = Path(path).expanduser()
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the config file {path} cannot be read: {error}", param="config") from error
    data, lines = read_yaml(text, name=str(path))
    if not isinstance(data, dict) or "applications" not in data:
        raise _no_applications(str(path), data)
    data = with_absolute_paths(data, file.absolute().parent)
    problems: list[Problem] = []
    applications = []
    for index, given in enumerate(data["applications"] if isinstance(data["applications"], list) else ()):
        if isinstance(given, dict):
            found, application = _application(given, ("applications", index), engines=engines)
            problems += found
            applications.append(application)
    problems += [*_serve_rules(data), *find_problems(ServeDeploySchema, data)[0]]
    if problems:
        first: dict[Place, Problem] = {}
        for problem in problems:  # what we say of a place is plainer than what Ray says of it
            first.setdefault(problem.place, problem)
        raise _error(str(path), list(first.values()), lines)
    return ServeFile(path=file, text=text, data=data, applications=tuple(applications))


def _no_applications(path: str, data: Any) -> ConfigError:
    message = f"{path} must hold `applications`, a list of what is to be served; see `trunnion serve --schema`"
    keys = [str(key) for key in data] if isinstance(data, dict) else []
    if near := difflib.get_close_matches("applications", keys, 1):
        message += f". It has {near[0]!r}: is that what is meant?"
    elif misplaced := [key for key in keys if key in AppConfig.model_fields]:
        message += f". It has {misplaced[0]!r}, which belongs into the `args` of an application of `{BUILDER}`"
    return ConfigError(message, param="applications")


def is_ours(application: Mapping[str, Any]) -> bool:
    """Tell whether an application of a file is built of an :class:`AppConfig`."""
    return application.get("import_path") in BUILDERS


def _application(given: dict[str, Any], place: Place, *, engines: bool) -> tuple[list[Problem], FileApplication]:
    problems: list[Problem] = []
    config: Any = None
    mirrored: Any = None
    args = given.get("args") or {}
    if is_ours(given):
        model = LLMServingArgs if isinstance(args, dict) and "llm_configs" in args else AppConfig
        problems, value = find_problems(model, args, (*place, "args"))
        config, mirrored = (value, None) if model is AppConfig else (None, value)
        if value is not None:
            problems = list(check_application(value, given, (*place, "args"), engines=engines))
        elif model is AppConfig:
            problems += check_models(args, given, (*place, "args"), engines=engines)
    else:
        problems = list(check_import_path(given, place, here=engines))
    application = FileApplication(
        name=str(given.get("name", "default")),
        route_prefix=given.get("route_prefix", "/"),
        config=config,
        mirrored=mirrored,
    )
    return problems, application


def _serve_rules(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what Serve takes, and cannot do."""
    applications = data["applications"]
    if applications == []:
        yield Problem(("applications",), "is empty: there is nothing to serve")
    for index, given in enumerate(applications if isinstance(applications, list) else ()):
        prefix = given.get("route_prefix") if isinstance(given, dict) else None
        if isinstance(prefix, str) and (not prefix.startswith("/") or (prefix != "/" and prefix.endswith("/"))):
            message = f"must begin with a slash and not end with one, unlike {prefix!r}"
            yield Problem(("applications", index, "route_prefix"), message)


def _error(path: str, problems: list[Problem], lines: Mapping[Place, int]) -> ConfigError:
    told = []
    for problem in sorted(problems, key=lambda one: line_of(one.place, dict(lines)) or 0):
        line, key = line_of(problem.place, dict(lines)), dotted(problem.place)
        message = problem.message
        if problem.place[-1:] == ("import_path",) and message == "is required":
            message = f"is required; for models of your own: `import_path: {BUILDER}`"
        told.append({"line": line, "key": key, "message": message})
    said = [
        f"{path}{'' if one['line'] is None else ':' + str(one['line'])}: {one['key'] or 'the file'}: {one['message']}"
        for one in told
    ]
    return ConfigError("\n".join(said), param=str(told[0]["key"]), details={"problems": told})
