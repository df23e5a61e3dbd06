"""Read Trunnion's errors out of Ray's, and name Ray's own in our tree."""

from __future__ import annotations

from trunnion.errors import Cancelled, InternalError, Overloaded, Transient, TrunnionError

_TRANSIENT = (
    "RayActorError",
    "ActorDiedError",
    "ActorUnavailableError",
    "ActorUnschedulableError",
    "DeploymentUnavailableError",
    "ReplicaUnavailableError",
    "WorkerCrashedError",
    "NodeDiedError",
)
_CANCELLED = ("RequestCancelledError", "TaskCancelledError")
_OVERLOADED = ("BackPressureError", "PendingCallsLimitExceeded")


def unwrap(error: BaseException) -> TrunnionError:
    """Return the error of our tree that Ray carries, or the one that fits what Ray itself reports.

    Ray raises a *dual* exception, whose class derives from the user's and whose ``cause`` is the user's own object;
    the object is what has the fields, so ``cause`` is read before anything else.
    """
    seen: set[int] = set()
    links: list[BaseException] = [error]
    while links:
        current = links.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        cause = getattr(current, "cause", None)
        if isinstance(current, TrunnionError) and not isinstance(cause, BaseException):
            return current
        links += [link for link in (cause, current.__cause__) if isinstance(link, BaseException)]
    names = {cls.__name__ for cls in type(error).__mro__}
    if names.intersection(_OVERLOADED):
        return Overloaded("too many requests are waiting for this model; try again later", retry_after=1.0)
    if names.intersection(_CANCELLED):
        return Cancelled("the request was cancelled")
    if names.intersection(_TRANSIENT):
        return replica_gone()
    return InternalError(f"the replica failed with {type(error).__name__}; its log says why")


def replica_gone() -> Transient:
    """Return the error of a request whose replica died."""
    return Transient("the replica that served this request is gone; send the request again", retry_after=1.0)
