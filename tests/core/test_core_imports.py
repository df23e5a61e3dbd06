import subprocess
import sys

import pytest

HEAVY = ("ray", "torch", "vllm", "transformers", "openai", "numpy", "pandas", "pyarrow", "msgspec", "uvicorn", "typer")


def modules_after(code):
    run = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print('\\n'.join(sys.modules))"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return run.stdout.split()


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("import trunnion", id="import"),
        pytest.param("import trunnion; assert trunnion.get_registry().engine('sim')", id="registry"),
    ],
)
def test_nothing_heavy_is_loaded(code):
    loaded = modules_after(code)
    assert "trunnion.pipeline" in loaded
    assert [name for name in HEAVY if name in loaded] == []


def test_importing_stays_small():
    bare = set(modules_after("import asyncio, pydantic, pluggy, importlib.metadata"))
    more = set(modules_after("import trunnion")) - bare
    assert len([name for name in more if not name.startswith("trunnion")]) < 60  # modules, as a time would be flaky
