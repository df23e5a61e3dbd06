"""Hold the size, the shape and the copying of the packaged model."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from safetensors import safe_open

from trunnion_demo import PROMPTS, adapter_paths, model_path, write_demo_model

if TYPE_CHECKING:
    from pathlib import Path

MEGABYTE = 1_000_000


def test_all_weights_together_stay_under_ten_megabytes() -> None:
    weights = list(model_path().rglob("*.safetensors"))
    assert len(weights) == 3
    assert sum(file.stat().st_size for file in weights) < 10 * MEGABYTE


@pytest.mark.parametrize("file", sorted(model_path().rglob("*.safetensors")), ids=lambda f: f.parent.name)
def test_weights_are_bfloat16(file: Path) -> None:
    with safe_open(file, framework="pt") as tensors:
        assert {tensors.get_slice(key).get_dtype() for key in tensors.keys()} == {"BF16"}  # noqa: SIM118


def test_the_shape_suits_every_engine() -> None:
    config = json.loads((model_path() / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["model_type"] == "llama"
    assert config["head_dim"] in {32, 64}
    assert config["head_dim"] * config["num_attention_heads"] == config["hidden_size"]
    assert config["num_key_value_heads"] >= 2
    assert config["num_attention_heads"] % 2 == config["num_key_value_heads"] % 2 == 0
    assert config["vocab_size"] % 64 == 0
    assert not config["attention_bias"]
    assert not config["mlp_bias"]
    assert config["tie_word_embeddings"]


@pytest.mark.parametrize("name", sorted(adapter_paths()))
def test_adapters_are_of_rank_8_and_name_no_path(name: str) -> None:
    config = json.loads((adapter_paths()[name] / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["r"] == 8
    assert config["peft_type"] == "LORA"
    assert config["base_model_name_or_path"] == "trunnion-demo"


def test_there_are_thirty_prompts_with_names_of_their_own() -> None:
    assert len(PROMPTS) == len({prompt.name for prompt in PROMPTS}) == 30
    assert all(prompt.expected for prompt in PROMPTS)


def test_the_copy_is_whole(tmp_path: Path) -> None:
    written = write_demo_model(tmp_path / "some" / "where")
    assert written == tmp_path / "some" / "where"
    assert (written / "config.json").is_file()
    assert list(adapter_paths(written)) == list(adapter_paths()) == ["capitals", "pirate"]
    originals = {file.relative_to(model_path()) for file in model_path().rglob("*")}
    assert {file.relative_to(written) for file in written.rglob("*")} == originals


def test_a_folder_with_files_is_refused_unless_forced(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("mine", encoding="utf-8")
    (tmp_path / "notes").write_text("mine", encoding="utf-8")
    with pytest.raises(FileExistsError, match="not empty"):
        write_demo_model(tmp_path)
    assert (tmp_path / "config.json").read_text(encoding="utf-8") == "mine"
    write_demo_model(tmp_path, force=True)
    assert (tmp_path / "config.json").read_text(encoding="utf-8") != "mine"
    assert (tmp_path / "notes").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("force", [False, True])
def test_a_file_in_the_way_is_refused(tmp_path: Path, *, force: bool) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(NotADirectoryError, match="is a file"):
        write_demo_model(file, force=force)


def test_the_public_api_imports_nothing_heavy() -> None:
    script = (
        "import sys, trunnion_demo; "
        "heavy = {'torch', 'transformers', 'peft', 'tokenizers'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
