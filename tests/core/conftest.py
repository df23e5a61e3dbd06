"""Fixtures of the core's tests: fake distributions on ``sys.path``."""

import importlib
import importlib.metadata
import sys
import textwrap

import pytest

import trunnion


class Site:
    """Write distributions into folders on ``sys.path``, as an installer would."""

    def __init__(self, root, monkeypatch) -> None:
        self.root, self._monkeypatch = root, monkeypatch
        self._paths: list[str] = []

    def add(self, distribution, entry_points, *, version="1.0", **modules):
        """Install a distribution: entry points by name, modules by name with their source."""
        folder = self.root / f"{distribution}-{version}"
        info = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        lines = "".join(f"{name} = {value}\n" for name, value in entry_points.items())
        (info / "entry_points.txt").write_text(f"[trunnion.plugins]\n{lines}")
        for name, source in modules.items():
            (folder / f"{name}.py").write_text(textwrap.dedent(source))
        self._paths.append(str(folder))
        self._monkeypatch.syspath_prepend(str(folder))
        importlib.invalidate_caches()

    def engine(self, distribution, *, name, entry_point=None, module=None, extra="", **more):
        """Install a distribution that registers one engine."""
        module = module or distribution.replace("-", "_")
        source = f"""
        from trunnion import EnginePlugin, LibraryRequirement, hookimpl

        @hookimpl
        def trunnion_engines():
            return [EnginePlugin(name={name!r}, factory="{module}:Nothing", needs_model=False, {extra})]
        """
        self.add(distribution, {entry_point or name: module}, **{module: source}, **more)

    def registry(self, **policy):
        """Load what was installed here, and nothing else."""
        found = importlib.metadata.distributions(path=self._paths)
        entry_points = tuple(ep for dist in found for ep in dist.entry_points)
        names = {key: frozenset(value) for key, value in policy.items()}
        return trunnion.Registry(trunnion.PluginPolicy(**names), entry_points=entry_points)


@pytest.fixture
def site(tmp_path, monkeypatch):
    before = set(sys.modules)
    yield Site(tmp_path, monkeypatch)
    for name in set(sys.modules) - before:
        origin = getattr(sys.modules[name], "__file__", None)
        if origin is not None and origin.startswith(str(tmp_path)):
            del sys.modules[name]
