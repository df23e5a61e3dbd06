"""Run OpenAI's batch files: a request per line in, a response per line out.

The format is that of https://platform.openai.com/docs/guides/batch. Each line is answered by the HTTP surface, in this
process and without a socket, so that a line means what the same request means to a server.
"""

from trunnion_http.batches.lines import BatchLine, LineError, parse_line

from .run import BatchFileRun

__all__ = ["BatchFileRun", "BatchLine", "LineError", "parse_line"]
