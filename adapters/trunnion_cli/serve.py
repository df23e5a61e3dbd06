"""Serve a model over OpenAI's API."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .assignments import parse_assignments
from .interrupts import run_async
from .options import (
    Adapters,
    Debug,
    Engine,
    Hooks,
    Media,
    Settings,
    Verbose,
    absolute,
    adapter_paths,
    hook_settings,
    http_settings,
    lora_settings,
    make_spec,
    media_policy,
)

if TYPE_CHECKING:
    from trunnion import EngineSpec


class LogFormat(Enum):
    """Name what a request's line in the log is."""

    JSON = "json"
    TEXT = "text"


def serve(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="Path or name of the model; or FILE.yaml, Ray Serve's config file."),
    ] = None,
    *,
    engine: Engine = None,
    settings: Settings = None,
    adapter: Adapters = None,
    adapter_folder: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder or URI whose subfolders are LoRA adapters, loaded when first asked for; repeatable.",
        ),
    ] = None,
    max_loras: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Adapters the engine holds at once; the least recently used makes room."),
    ] = None,
    hook: Hooks = None,
    media: Media = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name that clients send as `model`; the model's own if left out.")
    ] = None,
    api_keys_env: Annotated[
        str | None,
        typer.Option(metavar="VARIABLE", help="Environment variable with the accepted API keys, comma separated."),
    ] = None,
    api_keys_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="File with further API keys, one a line, as KEY or NAME: KEY.")
    ] = None,
    admin_keys_env: Annotated[
        str | None,
        typer.Option(
            metavar="VARIABLE",
            help="The same for keys that may also load adapters, put engines to sleep and forget caches.",
        ),
    ] = None,
    admin_keys_file: Annotated[str | None, typer.Option(metavar="FILE", help="File with such keys.")] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="Origin whose pages may call from a browser, or * for any; repeatable."),
    ] = None,
    max_requests: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Requests inside a process at once; more get 429 and Retry-After."),
    ] = None,
    http_setting: Annotated[
        list[str] | None,
        typer.Option(
            "--http",
            metavar="KEY=VALUE",
            help="Further limit of the HTTP surface, repeatable, such as max_body_bytes=1000000 or request_timeout=60.",
        ),
    ] = None,
    log_requests: Annotated[
        LogFormat | None,
        typer.Option(
            metavar="json|text",
            help="Write one line per request, to stdout; with --ray to the replicas' logs. No prompts.",
        ),
    ] = None,
    traces: Annotated[
        bool | None,
        typer.Option(
            "--traces/--no-traces",
            help="Send OpenTelemetry traces, as the OTEL_* variables say; on where one of them names an exporter.",
        ),
    ] = None,
    page: Annotated[bool, typer.Option("--page/--no-page", help="Answer GET / with a page.")] = True,
    batch_folder: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder for /v1/files and /v1/batches, which are off without one; --ray: a shared one.",
        ),
    ] = None,
    drain: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Time for requests in flight once stopped.")
    ] = 5.0,
    ray: Annotated[bool, typer.Option("--ray", help="Serve on Ray Serve, with replicas.")] = False,
    replicas: Annotated[int, typer.Option(min=1, metavar="N", help="With --ray: replicas of the engine.")] = 1,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of config files.")] = False,
    verbose: Verbose = False,  # noqa: ARG001 - kept by its callback
    debug: Debug = False,  # noqa: ARG001 - kept by its callback
) -> None:
    """Serve MODEL over OpenAI's API, in this process or on Ray Serve, until Ctrl-C."""
    if schema or (model or "").lower().endswith((".yaml", ".yml")):
        from .serve_file import print_schema, serve_file

        if schema:
            print_schema()
        else:
            serve_file(str(model), context)
        return
    from trunnion.adapter_setting import lazily
    from trunnion_http import BatchSettings

    if replicas != 1 and not ray:
        raise typer.BadParameter("--replicas needs --ray")
    lora = lora_settings(adapter_folder, max_loras)
    declared, later = lazily(adapter_paths(adapter or ()), lora)
    spec = make_spec(engine, model, parse_assignments("--set", settings or ()), declared, lora=lora)
    hooks, policy = hook_settings(hook), media_policy(media)
    served = name or served_name(spec)
    batches = None if batch_folder is None else BatchSettings(folder=absolute(batch_folder))
    http = http_settings(
        http_setting,
        {
            "api_keys_env": api_keys_env,
            "api_keys_file": api_keys_file,
            "admin_keys_env": admin_keys_env,
            "admin_keys_file": admin_keys_file,
            "cors_origins": tuple(cors_origin) if cors_origin else None,
            "max_requests": max_requests,
            "log_requests": True if log_requests is not None else None,
            "log_format": None if log_requests is None else log_requests.value,
            "traces": traces,
            "page": None if page else False,
            "batches": batches,
        },
    )
    common: dict[str, Any] = {"lora": lora, "adapters": later, "hooks": hooks, "media": policy}
    common |= {"host": host, "port": port, "drain": drain}
    if ray:
        from .serve_ray import serve_on_ray

        run_async(lambda stop: serve_on_ray(spec, served, http, replicas=replicas, interrupts=stop, **common))
    else:
        from .serve_here import serve_here

        run_async(lambda stop: serve_here(spec, served, http, interrupts=stop, **common))


def served_name(spec: EngineSpec) -> str:
    """Return the last part of a model's path, a Hub name as it is, or the engine's name where there is no model."""
    from trunnion.sources import display_name

    return spec.engine if spec.model is None else display_name(spec.model)
