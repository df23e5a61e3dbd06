"""Say how a run that ended early goes on, by why it ended."""

from __future__ import annotations

from trunnion.errors import ConfigError, EngineDead, InvalidArgument, TrunnionError
from trunnion_batch.account import TOO_MANY_ERRORS
from trunnion_batch.row_output import MISFIT
from trunnion_batch.unreachable import UNREACHABLE


def going_on(journal: str, answers: int | None, error: BaseException | None, stop_flag: str) -> str | None:
    """Return a line about how to go on from a journal; None where there is nothing to go on from.

    Args:
        journal: Where the journal is.
        answers: How many it has; None where that is not known.
        error: What ended the run; None for a person.
        stop_flag: The flag that lets the first bad row or line end the run.
    """
    if answers == 0 or (answers is None and getattr(error, "param", None) == "journal"):
        return None  # it could not be opened, or is in use, or is empty
    has = f"the journal {journal} has what was answered"
    do = "run the same command again"
    if isinstance(error, TrunnionError):
        if error.param == "journal":
            return has
        if error.code == TOO_MANY_ERRORS:
            do = "mend the rows that fail or raise --max-error-rate, and run the command again"
        elif error.code == MISFIT:
            do = "name an OUTPUT that ends in .jsonl or mend that column, and run the command again"
        elif error.code == UNREACHABLE:
            do = "see to it that the engine can be reached, and run the same command again"
        elif isinstance(error, EngineDead):
            do = "see to the engine, and run the same command again"
        elif isinstance(error, InvalidArgument) and not isinstance(error, ConfigError):
            do = f"mend that row or leave {stop_flag} out, and run the command again"
    return f"to go on, {do}: {has}"
