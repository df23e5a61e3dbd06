"""A plugin as it was written for plugin API 1.0. Never edit it: that it still works is what is tested."""

from pydantic import Field

from trunnion import (
    EnginePlugin,
    HooksPlugin,
    LibraryRequirement,
    PluginConfig,
    Resources,
    RouterPlugin,
    StagePlugin,
    hookimpl,
)
from trunnion.spec import Bundle

from .capabilities import CAPABILITIES


class FrozenConfig(PluginConfig):
    prefix: str = Field("", description="Put before every answer.")


def resources(config):
    return Resources(bundles=(Bundle(cpu=2.0),), strategy="PACK", workers="engine")


@hookimpl
def trunnion_engines():
    return [
        EnginePlugin(
            name="frozen",
            factory="trunnion_frozen.engine:FrozenEngine",
            config=FrozenConfig,
            summary="Repeats the prompt",
            capabilities=CAPABILITIES,
            resources=resources,
            requires=(
                LibraryRequirement(
                    module="pluggy", distributions=("pluggy",), minimum="1.0", below="99", install="pip install pluggy"
                ),
            ),
            needs_model=True,
            batch_config={"prefix": "batch: "},
            hardware=("cpu",),
            semantic_version="1",
            api_version=(1, 0),
        )
    ]


@hookimpl
def trunnion_stages():
    return [
        StagePlugin(
            name="frozen_flatten",
            factory="trunnion_frozen.stages:Flatten",
            shape="request",
            consumes="messages",
            produces="text",
            cost=0.1,
            automatic=False,
            api_version=(1, 0),
        ),
        StagePlugin(
            name="frozen_shout",
            factory="trunnion_frozen.stages:Shout",
            shape="stream",
            automatic=False,
            order=60,
            api_version=(1, 0),
        ),
    ]


@hookimpl
def trunnion_routers():
    return [RouterPlugin(name="frozen_router", factory="trunnion_frozen.router:FrozenRouter", api_version=(1, 0))]


@hookimpl
def trunnion_hooks():
    return [
        HooksPlugin(name="frozen_hooks", factory="trunnion_frozen.hooks:FrozenHooks", priority=5, api_version=(1, 0))
    ]
