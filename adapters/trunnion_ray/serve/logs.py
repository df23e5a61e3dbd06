"""Set logging up in the processes that Ray Serve starts for us."""

from __future__ import annotations

import logging
import sys

from trunnion_http.request_log import write_to


def log_to_stderr(*, requests: bool) -> None:
    """Let Trunnion's own messages reach this process's log, unless the application has set logging up.

    Args:
        requests: Whether requests have lines of their own; they are written bare.
    """
    logger = logging.getLogger("trunnion")
    if not logger.handlers and not logging.getLogger().handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(levelname)s %(asctime)s %(name)s: %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        if requests:
            write_to(sys.stderr)
