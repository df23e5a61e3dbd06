"""Run batches so that no row is lost: engines that are replaced when they die, a journal, an account of every row.

Knows nothing of Ray and nothing of a terminal; both :mod:`trunnion_ray.data` and :mod:`trunnion_cli` stand on it.
"""
