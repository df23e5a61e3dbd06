"""Read a page's code blocks, write its files, and run its commands as a reader would."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
_FENCE: Final = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Hold a code block: its language, the file it is ("" for none, " +" at its end for more of it), its text."""

    language: str
    title: str
    text: str


def blocks(page: str) -> list[Block]:
    return [Block(language=m[1], title=m[2] or "", text=m[3]) for m in _FENCE.finditer(page)]


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Return the environment of a reader whose virtual environment is active, in a folder of the reader's own."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(folder), "COLUMNS": "200", **more}


def write(block: Block, folder: Path, port: str = "8000") -> None:
    """Write a block that is a file; addresses in it get another port."""
    name = block.title.removesuffix(" +")
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("a" if block.title.endswith(" +") else "w", encoding="utf-8") as file:
        file.write(block.text.replace(":8000", f":{port}").replace("port=8000", f"port={port}"))


def commands(block: Block) -> list[tuple[str, list[str]]]:
    """Return each command of a console block with the lines that are said to follow; a backslash joins lines."""
    found: list[tuple[str, list[str]]] = []
    for line in block.text.replace("\\\n", "").splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif line.strip():
            found[-1][1].append(line)
    return found


def said(line: str, output: str) -> bool:
    """Tell whether a line that a page prints is in the output, its words in this order on one line; ... is any."""
    words = [re.escape(word) for word in line.split() if word != "..."]
    return re.search(r"[^\n]*?".join(words), output) is not None


def follow(page: str, folder: Path, env: dict[str, str], *, port: str = "8000") -> None:
    """Do what a page says, from top to bottom: write its files, run its commands, look for what they print.

    ``pip install -e`` is done by :func:`install`. What runs in the background is ended with the page.
    """
    background: list[subprocess.Popen[bytes]] = []
    try:
        for block in blocks(page):
            if block.title:
                write(block, folder, port)
            for command, lines in commands(block) if block.language == "console" else ():
                if command.startswith("pip install -e "):
                    install(folder / command.split()[-1])
                else:
                    _run(command.replace("8000", port), lines, folder, env, background)
    finally:
        end(background)


def end(background: list[subprocess.Popen[bytes]]) -> None:
    """Press Ctrl-C in what runs in the background, and wait until it has gone."""
    for process in background:
        os.killpg(process.pid, signal.SIGINT)
    while background:
        background.pop().wait(timeout=60)


def _run(
    command: str, lines: list[str], folder: Path, env: dict[str, str], background: list[subprocess.Popen[bytes]]
) -> None:
    if command == "kill -INT %1":
        end(background)
        return
    if command.endswith("&"):
        arguments = ["bash", "-c", f"exec {command.removesuffix('&')}"]
        with (folder / "background.log").open("ab") as log:
            background.append(
                subprocess.Popen(arguments, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True)
            )
        return
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=280
    )
    output = done.stdout + done.stderr
    fails = any(line.startswith("error:") for line in lines)
    assert (done.returncode != 0) == fails, f"$ {command}\n{output[-4000:]}"
    for line in lines:
        assert said(line, output), f"$ {command}\nshould print: {line}\nbut printed:\n{output[-4000:]}"


def install(folder: Path) -> None:
    """Let a project folder be found as an installed distribution, as `pip install -e .` would, without building it."""
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(exist_ok=True)
    described = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(described, encoding="utf-8")
    lines = [
        line
        for group, named in project.get("entry-points", {}).items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in named.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
