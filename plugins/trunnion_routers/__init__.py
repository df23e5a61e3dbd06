"""Register the routers: least loaded, power of two choices, and affinities with a load term."""

from trunnion import RouterPlugin, hookimpl

from .config import AffinityConfig, LeastLoadedConfig, PowerOfTwoConfig


@hookimpl
def trunnion_routers() -> list[RouterPlugin]:
    """Return the routers of this package."""
    return [
        RouterPlugin(
            name="least_loaded",
            factory="trunnion_routers.routers:LeastLoaded",
            config=LeastLoadedConfig,
            summary="The replica with the fewest requests per weight first",
        ),
        RouterPlugin(
            name="power_of_two",
            factory="trunnion_routers.routers:PowerOfTwo",
            config=PowerOfTwoConfig,
            summary="The less loaded of two replicas drawn at random first",
        ),
        RouterPlugin(
            name="affinity",
            factory="trunnion_routers.affinity:Affinity",
            config=AffinityConfig,
            summary="Replicas that hold the session, the adapter or the prompt's prefix first, unless overloaded",
        ),
    ]


__all__ = ["AffinityConfig", "LeastLoadedConfig", "PowerOfTwoConfig", "trunnion_routers"]
