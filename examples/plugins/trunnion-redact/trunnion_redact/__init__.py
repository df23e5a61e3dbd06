"""Register hooks that mask e-mail addresses and phone numbers, and the stage that restores them in answers."""

from typing import Final

from trunnion import HooksPlugin, LibraryRequirement, StagePlugin, hookimpl

from .config import RedactConfig

_API: Final = (1, 2)
_PHONES: Final = LibraryRequirement(
    module="phonenumbers", distributions=("phonenumbers",), minimum="9", install="pip install 'phonenumbers>=9'"
)


@hookimpl
def trunnion_hooks() -> list[HooksPlugin]:
    """Return the hooks that mask; late in their order, so that others' changes to a prompt are masked as well."""
    return [
        HooksPlugin(
            name="redact",
            factory="trunnion_redact.hooks:RedactHooks",
            config=RedactConfig,
            summary="Masks e-mail addresses and phone numbers before the engine sees them",
            priority=100,
            stages=("redact_restore",),
            requires=(_PHONES,),
            api_version=_API,
        )
    ]


@hookimpl
def trunnion_stages() -> list[StagePlugin]:
    """Return the stage that restores; last in its order, behind stop strings, reasoning and tool calls."""
    return [
        StagePlugin(
            name="redact_restore",
            factory="trunnion_redact.restore:RestoreStage",
            summary="Puts back into answers what the redact hooks masked",
            shape="stream",
            automatic=False,
            order=90,
            api_version=_API,
        )
    ]


__all__ = ["RedactConfig", "trunnion_hooks", "trunnion_stages"]
