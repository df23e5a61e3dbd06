"""What the tests of sources share: a registry of sources, an engine that loads files, and a store with checksums."""

import hashlib
import importlib.metadata
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import trunnion as t
from trunnion.plugin import EnginePlugin, PluginConfig, SourcePlugin

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


class FilesConfig(PluginConfig):
    revision: str | None = None
    adapters: dict[str, str] = {}  # noqa: RUF012 - pydantic copies it


class FilesEngine:
    """Answer with the names of the model's files."""

    def __init__(self, model, config):
        self.model, self.config = model, config
        self.stopped = False

    async def start(self):
        parts = (t.StartupStage(name="read files", seconds=0.2),)
        adapters = tuple(self.config.adapters.values())
        return t.EngineInfo(
            engine="files", model=self.model, capabilities=CAPABILITIES, adapters=adapters, startup=parts
        )

    async def generate(self, request):
        names = sorted(path.name for path in Path(self.model).iterdir() if not path.name.startswith("."))
        delta = t.ChoiceDelta(text=" ".join(names), finish_reason="stop")
        yield t.GenerateEvent(choices=(delta,), usage=t.Usage(prompt_tokens=1, completion_tokens=1))

    async def stop(self, *, drain=0.0):
        self.stopped = True


CAPABILITIES = t.Capabilities.of(yes=("sampling.max_tokens",), prompts=("messages", "text", "token_ids"))


@t.hookimpl
def trunnion_engines():
    common = {
        "factory": "source_lab:FilesEngine", "config": FilesConfig, "capabilities": CAPABILITIES, "api_version": (1, 1),
    }  # fmt: skip
    return [
        EnginePlugin(name="files", **common),
        EnginePlugin(name="names", model_files=False, **common),
        EnginePlugin(name="far", hardware=("remote",), **common),
        EnginePlugin(
            name="spread",
            resources=lambda _config: t.Resources(workers="ray"),
            **common,
        ),
    ]


@t.hookimpl
def trunnion_sources():
    from trunnion_sources import StoreConfig

    store = {"factory": "trunnion_sources.store:StoreSource", "config": StoreConfig}
    return [
        SourcePlugin(name="memory", schemes=("memory",), **store),
        SourcePlugin(name="sums", schemes=("sums",), factory="source_lab:sums_source", config=StoreConfig),
    ]


def sums_source(config):
    """Build the source of a store in memory that gives an MD5 with each object."""
    import fsspec
    from fsspec.implementations.memory import MemoryFileSystem

    from trunnion_sources.store import StoreSource

    class SumsFileSystem(MemoryFileSystem):
        protocol = "sums"

        @classmethod
        def _strip_protocol(cls, path):
            return MemoryFileSystem._strip_protocol(path.replace("sums://", "memory://"))

        def find(self, path, *args, **kwargs):
            found = super().find(path, **{**kwargs, "detail": True})
            for name, info in found.items():
                info["md5Hash"] = hashlib.md5(self.store[name].getvalue()).digest()
            return found

        def cat_file(self, path, start=None, end=None, **kwargs):
            data = super().cat_file(path, start=start, end=end, **kwargs)
            return bytes(len(data)) if config.options.get("lie") else data

        def __init__(self, *, lie=False):
            super().__init__(lie=lie)

    fsspec.register_implementation("sums", SumsFileSystem, clobber=True)
    return StoreSource(config)


def registry(*more):
    """Load the sources and this module's plugins, and nothing else."""
    modules = ("trunnion_sources", "source_lab", *more)
    entry_points = tuple(
        importlib.metadata.EntryPoint(name=name, value=name, group="trunnion.plugins") for name in modules
    )
    return t.Registry(t.PluginPolicy(), entry_points=entry_points)


def model_files(weights=200_000):
    """Return the files of a model by path."""
    return {
        "config.json": b'{"model_type": "test"}',
        "model.safetensors": bytes(range(256)) * (weights // 256),
        "tokenizer/vocab.json": b"{}",
    }


def sums(files):
    """Return SHA256SUMS of files by path."""
    return "".join(f"{hashlib.sha256(data).hexdigest()}  ./{path}\n" for path, data in files.items()).encode()


def tarball(files, *, mode="w:gz", top="model"):
    """Return an archive of files by path, below one folder."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:
        for path, data in files.items():
            info = tarfile.TarInfo(f"{top}/{path}" if top else path)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def read_all(folder):
    """Return the files below a folder by path, what lies hidden left out."""
    folder = Path(folder)
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def environment(cache, **more):
    """Return the environment of a process that fetches into this cache."""
    path = [str(HERE), *(str(ROOT / part) for part in ("core", "plugins", "adapters"))]
    path += filter(None, [os.environ.get("PYTHONPATH")])
    wanted = {"PYTHONPATH": os.pathsep.join(path), "TRUNNION_CACHE": str(cache), "HF_HUB_OFFLINE": "0", **more}
    return {**{name: value for name, value in os.environ.items() if name != "HF_TOKEN"}, **wanted}


def start_fetch(reference, cache, *, revision=None, **more):
    """Fetch in a process of its own."""
    arguments = [sys.executable, str(HERE / "fetch_program.py"), reference, *filter(None, [revision])]
    return subprocess.Popen(arguments, env=environment(cache, **more), stdout=subprocess.PIPE, text=True)


def finished(process, timeout=60):
    """Wait for it, and return what it said: {"path": ...} or {"error": ...}."""
    out, _ = process.communicate(timeout=timeout)
    return json.loads(out)


def install(folder):
    """Make this module's plugins those of an installed distribution; return what goes on PYTHONPATH."""
    info = Path(folder) / "files_lab-1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: files-lab\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[trunnion.plugins]\nfiles_lab = source_lab\n")
    return str(folder)
