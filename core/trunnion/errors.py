"""Define the one error tree of Trunnion.

Every failure that crosses a seam is one of these; a plugin maps each exception of its library onto the tree,
``raise ... from original``. The tree, with code, HTTP status and whether a retry may help::

    TrunnionError                 internal_error          500
    ├── InvalidArgument           invalid_argument        400
    │   ├── UnsupportedFeature    unsupported_feature     400
    │   ├── ContextOverflow       context_length_exceeded 400
    │   └── ConfigError           invalid_config          400
    ├── NotFound                  not_found               404
    │   ├── ModelNotFound         model_not_found         404
    │   └── AdapterNotFound       adapter_not_found       404
    ├── AuthenticationFailed      invalid_api_key         401
    ├── PermissionDenied          permission_denied       403
    ├── Overloaded                overloaded              429  retry
    ├── DeadlineExceeded          deadline_exceeded       504
    ├── Cancelled                 cancelled               499
    ├── Transient                 unavailable             503  retry
    │   └── EngineDead            engine_dead             503  retry
    ├── InternalError             internal_error          500
    └── PluginError               plugin_error            500
        ├── PluginNotFound        plugin_not_found
        ├── PluginNotInstalled    plugin_not_installed    (its library is missing)
        ├── PluginBlocked         plugin_blocked
        ├── PluginConflict        plugin_conflict
        ├── PluginIncompatible    plugin_incompatible
        └── PluginFailed          plugin_failed

All fields are attributes of the instance, never of the class: Ray raises a *dual* exception that derives from
ours and looks a field up on the class first, so a class-level default would hide the real value.
"""

from __future__ import annotations

from typing import Any, Final, Self

# class name -> (code, HTTP status, retryable). Kept out of the classes, see the module's docstring.
_DEFAULTS: Final[dict[str, tuple[str, int, bool]]] = {
    "TrunnionError": ("internal_error", 500, False),
    "InvalidArgument": ("invalid_argument", 400, False),
    "UnsupportedFeature": ("unsupported_feature", 400, False),
    "ContextOverflow": ("context_length_exceeded", 400, False),
    "ConfigError": ("invalid_config", 400, False),
    "NotFound": ("not_found", 404, False),
    "ModelNotFound": ("model_not_found", 404, False),
    "AdapterNotFound": ("adapter_not_found", 404, False),
    "AuthenticationFailed": ("invalid_api_key", 401, False),
    "PermissionDenied": ("permission_denied", 403, False),
    "Overloaded": ("overloaded", 429, True),
    "DeadlineExceeded": ("deadline_exceeded", 504, False),
    "Cancelled": ("cancelled", 499, False),
    "Transient": ("unavailable", 503, True),
    "EngineDead": ("engine_dead", 503, True),
    "InternalError": ("internal_error", 500, False),
    "PluginError": ("plugin_error", 500, False),
    "PluginNotFound": ("plugin_not_found", 500, False),
    "PluginNotInstalled": ("plugin_not_installed", 500, False),
    "PluginBlocked": ("plugin_blocked", 500, False),
    "PluginConflict": ("plugin_conflict", 500, False),
    "PluginIncompatible": ("plugin_incompatible", 500, False),
    "PluginFailed": ("plugin_failed", 500, False),
}

FIELDS: Final = ("message", "code", "http_status", "retryable", "retry_after", "param", "details")
"""The fields every error carries, in the order :meth:`TrunnionError.to_dict` writes them."""


def _defaults(cls: type) -> tuple[str, int, bool]:
    """Return the defaults of the nearest class of the tree, so that a plugin may derive its own."""
    # By module as well: a plugin's own error may be called like one of ours and derive from another.
    ours = (base.__name__ for base in cls.__mro__ if base.__module__ == __name__)
    return next(_DEFAULTS[name] for name in ours if name in _DEFAULTS)


class TrunnionError(Exception):
    """Report a failure in Trunnion: what happened, where, and what to do instead.

    Args:
        message: One sentence or two for the person who reads it.
        param: The argument or field at fault, dotted (``"sampling.temperature"``); None where there is none.
        retry_after: Seconds to wait before a retry; None where unknown.
        details: Further facts as JSON values.
        code: Overrides the stable code of the class.
        http_status: Overrides the HTTP status of the class.
        retryable: Overrides whether the same request may succeed when sent again.
    """

    def __init__(
        self,
        message: str = "",
        *,
        param: str | None = None,
        retry_after: float | None = None,
        details: dict[str, Any] | None = None,
        code: str | None = None,
        http_status: int | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message)
        default_code, default_status, default_retryable = _defaults(type(self))
        self.message = message
        self.code = default_code if code is None else code
        self.http_status = default_status if http_status is None else http_status
        self.retryable = default_retryable if retryable is None else retryable
        self.retry_after = retry_after
        self.param = param
        self.details: dict[str, Any] = {} if details is None else dict(details)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by field, so that nothing is lost on the way through a process boundary.

        The cause stays behind, as with every exception: its class may not exist on the other side.
        """
        return _rebuild, (type(self), dict(self.__dict__))

    def __str__(self) -> str:
        """Return the message alone."""
        return self.message

    def to_dict(self) -> dict[str, Any]:
        """Return the class name under ``type`` and every field, as JSON values."""
        fields = {field: getattr(self, field) for field in FIELDS}
        return {"type": type(self).__name__, **fields, "details": dict(self.details)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Rebuild what :meth:`to_dict` wrote; an unknown type becomes the class it is called on."""
        found = _CLASSES.get(str(data.get("type")), cls)
        error = found(str(data.get("message", "")))
        error.__dict__.update({field: data[field] for field in FIELDS if field in data})
        error.details = dict(error.details or {})
        return error  # type: ignore[return-value]


def _rebuild(cls: type[TrunnionError], state: dict[str, Any]) -> TrunnionError:
    """Make the error again from its fields, without running a subclass's own constructor."""
    error = cls.__new__(cls, state.get("message", ""))
    error.__dict__.update(state)
    return error


class InvalidArgument(TrunnionError):
    """Refuse a request or an argument that can never succeed as it stands."""


class UnsupportedFeature(InvalidArgument):
    """Refuse a request field that this engine or pipeline cannot honour; ``param`` names it."""


class ContextOverflow(InvalidArgument):
    """Refuse a prompt that, with the tokens asked for, exceeds the model's context length."""


class ConfigError(InvalidArgument):
    """Refuse the configuration of an engine, stage, router or adapter."""


class NotFound(TrunnionError):
    """Report that what the request names does not exist."""


class ModelNotFound(NotFound):
    """Report that no such model is served here, or that its files are missing."""


class AdapterNotFound(NotFound):
    """Report that no such LoRA adapter is loaded."""


class AuthenticationFailed(TrunnionError):
    """Report a missing or wrong API key."""


class PermissionDenied(TrunnionError):
    """Report that the caller may not do this."""


class Overloaded(TrunnionError):
    """Refuse work because a queue or a rate limit is full; ``retry_after`` says when to come back."""


class DeadlineExceeded(TrunnionError):
    """Report that the request's deadline passed before it was finished."""


class Cancelled(TrunnionError):
    """Report that the request was given up: by its caller, or because the engine was stopped under it."""


class Transient(TrunnionError):
    """Report a failure that is likely to pass: a dropped connection, a restarting server."""


class EngineDead(Transient):
    """Report that the engine died; a new one must be built from its spec."""


class InternalError(TrunnionError):
    """Report a fault of the engine or of Trunnion that the caller cannot mend."""


class PluginError(TrunnionError):
    """Report that a plugin cannot be used."""


class PluginNotFound(PluginError):
    """Report that no plugin of that name exists."""


class PluginNotInstalled(PluginError):
    """Report that a plugin is there but the library it needs is not."""


class PluginBlocked(PluginError):
    """Report that the plugin was blocked, or is not among those allowed."""


class PluginConflict(PluginError):
    """Report that two distributions claim the same plugin name, so neither was loaded."""


class PluginIncompatible(PluginError):
    """Report that the plugin needs another plugin API or another version of its library."""


class PluginFailed(PluginError):
    """Report that the plugin raised while it was loaded."""


_CLASSES: Final[dict[str, type[TrunnionError]]] = {
    cls.__name__: cls for cls in list(globals().values()) if isinstance(cls, type) and issubclass(cls, TrunnionError)
}

__all__ = sorted([*_CLASSES, "FIELDS"])  # noqa: PLE0605
