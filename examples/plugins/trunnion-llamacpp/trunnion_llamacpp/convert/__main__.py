"""Convert from the command line.

python -m trunnion_llamacpp.convert MODEL FILE.gguf [--type f16]
python -m trunnion_llamacpp.convert --adapter ADAPTER MODEL FILE.gguf
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .adapter import Shape, convert_adapter
from .model import FILE_TYPES, convert_model
from .problem import ConversionError


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m trunnion_llamacpp.convert", description="Convert to GGUF.")
    parser.add_argument("model", type=Path, help="folder of the model: config.json, tokenizer.json, safetensors")
    parser.add_argument("file", type=Path, help="GGUF file to write")
    parser.add_argument("--type", choices=sorted(FILE_TYPES), default="f16", help="type of the matrices (f16)")
    parser.add_argument("--adapter", type=Path, help="folder of a LoRA adapter of the model, converted instead")
    asked = parser.parse_args(arguments)
    try:
        if asked.adapter is None:
            convert_model(asked.model, asked.file, kind=asked.type)
        else:
            convert_adapter(asked.adapter, asked.file, Shape.of_folder(asked.model))
    except KeyError as error:
        print(f"error: the model's or adapter's configuration lacks {error}", file=sys.stderr)
        return 1
    except (ConversionError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {asked.file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
