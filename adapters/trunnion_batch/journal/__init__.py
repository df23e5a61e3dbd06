"""Keep finished answers where a job that was killed finds them again."""

from .journal import Journal, JournalStats

__all__ = ["Journal", "JournalStats"]
