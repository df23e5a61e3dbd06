"""Fetch one model, and print where it is, or the error."""

import json
import signal
import sys

import source_lab

import trunnion as t
from trunnion.errors import TrunnionError


def main():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job may have it ignored
    phases = []
    revision = sys.argv[2] if len(sys.argv) > 2 else None
    try:
        path = t.local_path(
            sys.argv[1], registry=source_lab.registry(), revision=revision, on_progress=lambda p: phases.append(p.phase)
        )
    except TrunnionError as error:
        print(json.dumps({"error": error.to_dict()}))
    else:
        print(json.dumps({"path": path, "phases": sorted(set(phases))}))


if __name__ == "__main__":
    main()
