"""Keep files and batches: OpenAI's ``/v1/files`` and ``/v1/batches``.

Everything lies in one folder that all replicas of an application share. Any of them answers from it; a batch is run by
the one that holds its lease.
"""
