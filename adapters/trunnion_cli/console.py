"""Write to the terminal: one line per message on stderr, and results on a stdout that nothing else writes to."""

from __future__ import annotations

import io
import logging
import os
import sys
from typing import BinaryIO, TextIO

from .state import STATE


def say(message: str) -> None:
    """Write one line to stderr."""
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()


def complain(message: str) -> None:
    """Write one ``error:`` line to stderr, whatever line breaks the message holds."""
    say("error: " + " ".join(message.split()))


def claim_stdout_bytes() -> BinaryIO:
    """Do as :func:`claim_stdout`, for whoever writes bytes."""
    sys.stdout.flush()
    own = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(own, "wb", buffering=1 << 16)


def claim_stdout() -> TextIO:
    """Return a stream on the real stdout, and send what anyone else writes there to stderr.

    Engines and their processes print to stdout; results that are piped on must not be mixed with that.
    """
    return io.TextIOWrapper(claim_stdout_bytes(), encoding="utf-8")


def set_up_logging() -> None:
    """Log warnings to stderr; with --verbose, also what plugins and libraries tell at INFO.

    Libraries are asked through the environment, so that their own processes are quiet too; what the user has set
    there wins.
    """
    level = "INFO" if STATE.verbose else "WARNING"
    logging.basicConfig(level=level, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", level)
    if not STATE.verbose:
        # It logs every stream that a stop cuts off as an error of the app, whose own errors are logged elsewhere.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        os.environ.setdefault("TQDM_DISABLE", "1")
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
