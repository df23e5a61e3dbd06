import importlib
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(
    str(init.parent.relative_to(part)).replace("/", ".")
    for part in (ROOT / "core", ROOT / "plugins", ROOT / "adapters")
    for init in part.glob("**/__init__.py")
    if "__all__" in init.read_text(encoding="utf-8")
)


def load(name):
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0].startswith("trunnion"):
            raise
        pytest.skip(f"{name} needs {error.name}")


def test_the_core_and_its_plugins_are_covered():
    assert {"trunnion", "trunnion_sim", "trunnion_routers", "trunnion_stages"} <= set(PACKAGES)


@pytest.mark.parametrize("name", PACKAGES)
def test_all_is_sorted_and_names_what_is_there(name):
    package = load(name)
    assert list(package.__all__) == sorted(package.__all__, key=str) or list(package.__all__) == ruff_sorted(package)
    assert len(set(package.__all__)) == len(package.__all__)
    for public in package.__all__:
        assert hasattr(package, public), f"{name}.__all__ names {public}, which is not there"


def ruff_sorted(package):
    """Sort as ruff does: constants, classes, the rest."""

    def rank(public):
        return (0 if public.isupper() else 1 if public[0].isupper() else 2, public)

    return sorted(package.__all__, key=rank)


@pytest.mark.parametrize("name", PACKAGES)
def test_public_names_are_in_all(name):
    package = load(name)
    own = {
        public
        for public, value in vars(package).items()
        if not public.startswith("_") and not isinstance(value, types.ModuleType) and not _borrowed(value, name)
    }
    submodules = {path.stem for path in Path(package.__file__).parent.glob("*.py")}  # attributes in any case
    handed_over = {"divide", "resources", "suits"}  # what a plugin's module gives to its EnginePlugin
    assert own - set(package.__all__) - submodules - handed_over == set()


def _borrowed(value, package):
    """Tell whether a value was imported for use here: it comes from another top-level package, or from __future__."""
    origin = getattr(value, "__module__", None)
    if type(value).__name__ == "_Feature":
        return True
    if not isinstance(origin, str) or not isinstance(value, type | types.FunctionType):
        return type(value).__module__.partition(".")[0] not in ("builtins", package.partition(".")[0])
    return origin.partition(".")[0] != package.partition(".")[0]
