"""Mirror the builders of ``ray.serve.llm``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from ray.serve import Application

from trunnion.errors import UnsupportedFeature

from .configs import LLMConfig, LLMServingArgs
from .deployments import LLMRouterDeployment, LLMServer, router_options
from .translate import check_options


def build_llm_deployment(
    llm_config: LLMConfig,
    *,
    name_prefix: str | None = None,
    bind_kwargs: Mapping[str, Any] | None = None,
    override_serve_options: Mapping[str, Any] | None = None,
    deployment_cls: Any = None,
) -> Application:
    """Build the deployment of one model, reached by handle.

    Raises:
        UnsupportedFeature: ``bind_kwargs`` or ``deployment_cls`` is given.
    """
    for name, value in (("bind_kwargs", bind_kwargs), ("deployment_cls", deployment_cls)):
        if value:
            raise UnsupportedFeature(f"{name} is not supported: the replica's class is Trunnion's own", param=name)
    override = dict(override_serve_options or {})
    check_options(override, where="override_serve_options")
    prefix = "LLMServer:" if name_prefix is None else name_prefix
    options = {**llm_config.get_serve_options(name_prefix=prefix), **override}
    return LLMServer.as_deployment(options).bind(llm_config)


def build_from_serving_args(args: LLMServingArgs) -> Application:
    """Build the application of :class:`LLMServingArgs`."""
    options = {**router_options(args.llm_configs), **args.ingress_deployment_config}
    models = [build_llm_deployment(config) for config in args.llm_configs]
    return LLMRouterDeployment(options).bind(models)


def build_pd_openai_app(pd_serving_args: Any) -> NoReturn:  # noqa: ARG001
    """Refuse: prefill and decode are not served by separate replicas."""
    msg = "build_pd_openai_app is not supported: prefill and decode run in one replica; use build_openai_app"
    raise UnsupportedFeature(msg, param="build_pd_openai_app")


def build_dp_deployment(llm_config: Any, **_: Any) -> NoReturn:  # noqa: ARG001
    """Refuse: data-parallel groups over replicas are not built."""
    msg = "build_dp_deployment is not supported; use num_replicas, or engine_kwargs['data_parallel_size']"
    raise UnsupportedFeature(msg, param="build_dp_deployment")


def build_dp_openai_app(dp_serving_args: Any) -> NoReturn:  # noqa: ARG001
    """Refuse: data-parallel groups over replicas are not built."""
    msg = "build_dp_openai_app is not supported; use num_replicas, or engine_kwargs['data_parallel_size']"
    raise UnsupportedFeature(msg, param="build_dp_openai_app")
