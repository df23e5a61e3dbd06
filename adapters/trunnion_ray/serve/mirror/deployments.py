"""Mirror the deployment classes of ``ray.serve.llm``: ``LLMServer`` and ``LLMRouter``."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Self

from ray import serve
from ray.serve import Application

from trunnion.errors import ConfigError, UnsupportedFeature

from .. import _ray_private  # noqa: TID252
from ..application import gateway_application  # noqa: TID252
from ..config import GatewayConfig  # noqa: TID252
from ..options import adapter_names, pipeline_spec  # noqa: TID252
from ..relay import Head, RelayedRequest, respond, stream  # noqa: TID252
from ..remote_model import ModelCard  # noqa: TID252
from ..replica import ModelReplica, ReplicaSpec  # noqa: TID252
from .configs import LLMConfig
from .translate import check_options


class LLMServer(ModelReplica):
    """Hold one model that an :class:`LLMConfig` describes.

    Python callers reach :meth:`chat`, :meth:`completions` and :meth:`embeddings` by handle, with
    ``handle.options(stream=True)``, beside the methods of :class:`ModelReplica`.
    """

    async def __init__(self, llm_config: LLMConfig) -> None:  # type: ignore[misc]  # Serve awaits it
        model = llm_config.to_model_config()
        await super().__init__(ReplicaSpec(name=model.name, pipeline=pipeline_spec(model)))

    @classmethod
    def as_deployment(cls, deployment_options: Mapping[str, Any] | None = None) -> LLMServerDeployment:
        """Return what ``bind(llm_config)`` makes an application of."""
        return LLMServerDeployment(dict(deployment_options or {}))

    @classmethod
    def get_deployment_options(cls, llm_config: LLMConfig) -> dict[str, Any]:
        """Return the options of the model's Serve deployment."""
        return llm_config.get_serve_options()

    async def chat(self, request: Any) -> AsyncGenerator[Any, None]:
        """Answer a chat request: lines of an event stream as text, or one response as a mapping."""
        async for piece in self._answer("/v1/chat/completions", request):
            yield piece

    async def completions(self, request: Any) -> AsyncGenerator[Any, None]:
        """Answer a completion request, as :meth:`chat` does."""
        async for piece in self._answer("/v1/completions", request):
            yield piece

    async def embeddings(self, request: Any) -> AsyncGenerator[Any, None]:
        """Answer an embedding request, as :meth:`chat` does."""
        async for piece in self._answer("/v1/embeddings", request):
            yield piece

    async def _answer(self, path: str, request: Any) -> AsyncGenerator[Any, None]:
        data = request.model_dump(exclude_none=True) if hasattr(request, "model_dump") else dict(request)
        relayed = RelayedRequest(method="POST", path=path, body=json.dumps(data).encode())
        if not data.get("stream"):
            yield json.loads((await respond(self._app, relayed)).body)
            return
        async for piece in stream(self._app, relayed):
            if not isinstance(piece, Head):
                yield piece.decode()


class LLMServerDeployment:
    """Bind :class:`LLMServer` to a model."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options

    def options(self, **options: Any) -> Self:
        """Return a copy with further options of a Serve deployment."""
        return type(self)({**self._options, **options})

    def bind(self, llm_config: LLMConfig) -> Application:
        """Return the application of the model: to be run, or handed to ``LLMRouter``."""
        options = {**llm_config.get_serve_options(), **self._options}
        if "autoscaling_config" in self._options and "num_replicas" not in self._options:
            options.pop("num_replicas", None)
        if "num_replicas" in self._options and "autoscaling_config" not in self._options:
            options.pop("autoscaling_config", None)
        return serve.deployment(LLMServer).options(**options).bind(llm_config)


class LLMRouter:
    """Stand in front of model deployments with OpenAI's API.

    One model alone, without options for the router, needs nobody in front of it: its replicas then answer HTTP
    themselves, which spares a hop.
    """

    @classmethod
    def as_deployment(cls, llm_configs: Sequence[LLMConfig] | None = None) -> LLMRouterDeployment:
        """Return what ``bind([deployment, ...])`` makes an application of.

        ``llm_configs`` tells how many replicas the router takes (``num_ingress_replicas``); it may be left out.
        """
        return LLMRouterDeployment(router_options(llm_configs or ()))


class LLMRouterDeployment:
    """Bind the router to model deployments."""

    def __init__(self, options: dict[str, Any]) -> None:
        check_options(options, where="the router's options")
        self._options = options

    def options(self, **options: Any) -> Self:
        """Return a copy with further options of a Serve deployment; with any, the router is a deployment for sure."""
        return type(self)({**self._options, **options})

    def bind(self, llm_deployments: Sequence[Application] | Mapping[str, Application], **further: Any) -> Application:
        """Return the application of the models."""
        if further:
            name = next(iter(further))
            raise UnsupportedFeature(f"LLMRouter takes no {name!r}: it reads models off their deployments", param=name)
        models = list(llm_deployments.values() if isinstance(llm_deployments, Mapping) else llm_deployments)
        configs = [_config_of(model) for model in models]
        names = [config.model_id for config in configs]
        if not names or len(set(names)) != len(names):
            raise ConfigError(f"LLMRouter needs one or more models of different names, not {names}", param="model_id")
        if len(models) == 1 and not self._options and "request_router_config" not in configs[0].deployment_config:
            return _ray_private.rebind(models[0], serve.ingress()(LLMServer))
        cards = [
            ModelCard(name=config.model_id, adapters=adapter_names(pipeline_spec(config.to_model_config())))
            for config in configs
        ]
        gateway = GatewayConfig()
        return gateway_application(list(zip(cards, models, strict=True)), None, gateway, self._options)


def router_options(configs: Sequence[LLMConfig]) -> dict[str, Any]:
    """Return the router's options that the models' ``experimental_configs`` ask for."""
    counts = [config.experimental_configs.get("num_ingress_replicas") for config in configs]
    wanted = [int(count) for count in counts if count is not None]
    return {"num_replicas": max(wanted)} if wanted else {}


def _config_of(model: Application) -> LLMConfig:
    args = _ray_private.bound_arguments(model)
    if len(args) != 1 or not isinstance(args[0], LLMConfig):
        msg = (
            "LLMRouter takes applications made by LLMServer.as_deployment(...).bind(llm_config) or build_llm_deployment"
        )
        raise ConfigError(msg, param="llm_deployments")
    return args[0]
