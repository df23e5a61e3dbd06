"""Hold converted models to what transformers makes of the originals."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from trunnion_demo import adapter_paths, model_path

from trunnion_llamacpp._llama import Context, Model
from trunnion_llamacpp.convert import ConversionError, convert_adapter, convert_model
from trunnion_llamacpp.convert.__main__ import main
from trunnion_llamacpp.convert.adapter import Shape
from trunnion_llamacpp.convert.tensors import read_tensors

TEXTS = [
    "Hello! How are you?", "The  capital\tof France\n\n is  ", "1234567 3.14", "don't we'll I'M", "äöü ñ 日本語 🦙🦙",
    "<|im_start|>user\nHi<|im_end|>\n", "<tool_call>\n{}\n</tool_call>", "x" * 300, " ", "", "\u200b\ufeff\r\n\r",
]  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_path())


@pytest.fixture(scope="module")
def model(models):
    model = Model(models.alone)
    yield model
    model.close()


def texts() -> list[str]:
    draw = random.Random(0)
    letters = "abz AZ09'.,!?-_\n\t äß語🦙<|>{}\"\\"
    return TEXTS + ["".join(draw.choices(letters, k=draw.randint(1, 40))) for _ in range(400)]


def test_tokens_are_those_of_the_original(model: Model, tokenizer) -> None:
    for text in texts():
        assert model.tokenize(text, add_special=True) == tokenizer(text).input_ids, repr(text)


def test_pieces_join_to_the_text(model: Model) -> None:
    for text in texts():
        pieces = [model.piece(token, special=True) for token in model.tokenize(text, add_special=False)]
        assert b"".join(pieces).decode() == text


def test_special_tokens_are_silent_and_tool_marks_are_not(model: Model) -> None:
    ids = model.tokenize("<|im_start|><tool_call>", add_special=False)
    assert [model.piece(token, special=False) for token in ids] == [b"", b"<tool_call>"]


def test_the_chat_template_is_inside(model: Model) -> None:
    assert model.chat_template() == (model_path() / "chat_template.jinja").read_text(encoding="utf-8")
    assert float(model.meta("general.sampling.temp") or -1) == 0.0


def logits_of(file: str, ids: list[int]) -> np.ndarray:
    model = Model(file)
    context = Context(model, n_ctx=256, n_batch=256, n_seq_max=1, n_threads=1, cache_type="f32")
    try:
        assert context.decode([(0, 0, ids, True)]) == 0
        return context.logits(len(ids) - 1).copy()
    finally:
        context.close()
        model.close()


def reference_logits(model, ids: list[int]) -> np.ndarray:
    import torch

    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0, -1].float().numpy()


def tiny(kind: str, **settings):
    """Make a tiny model of random weights, with the demo model's tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    shape = {
        "vocab_size": 2816, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
        "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, "initializer_range": 0.2,
    }  # fmt: skip
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape, **settings)).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.5)
    return model


LLAMA3 = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}  # fmt: skip
KINDS = {
    "llama": ("llama", {}),
    "llama with tied embeddings": ("llama", {"tie_word_embeddings": True}),
    "llama with biases": ("llama", {"attention_bias": True}),
    "llama 3.1's rotation": ("llama", {"rope_parameters": LLAMA3}),
    "linear rotation": ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}}),
    "head size of its own": ("llama", {"head_dim": 32}),
    "qwen2": ("qwen2", {}),
}


@pytest.mark.parametrize("name", KINDS)
def test_logits_are_those_of_the_original(tmp_path: Path, name: str) -> None:
    kind, settings = KINDS[name]
    original = tiny(kind, **settings)
    original.save_pretrained(tmp_path)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(model_path() / file, tmp_path)
    file = tmp_path / "model.gguf"
    convert_model(tmp_path, file, kind="f32")
    ids = [random.Random(5).randrange(2800) for _ in range(100)]
    expected = reference_logits(original, ids)
    np.testing.assert_allclose(logits_of(str(file), ids), expected, atol=2e-3 * np.abs(expected).max())


def test_halves_are_near_and_half_as_large(tmp_path: Path, models) -> None:
    convert_model(model_path(), tmp_path / "half.gguf", kind="f16")
    ids = [5, 6, 7, 300, 301]
    whole, half = logits_of(models.alone, ids), logits_of(str(tmp_path / "half.gguf"), ids)
    assert not np.array_equal(whole, half)
    np.testing.assert_allclose(half, whole, atol=0.01 * np.abs(whole).max())
    assert (tmp_path / "half.gguf").stat().st_size < 0.6 * Path(models.alone).stat().st_size


@pytest.mark.parametrize("name", sorted(adapter_paths()))
def test_adapted_logits_are_those_of_peft(models, name: str) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    original = AutoModelForCausalLM.from_pretrained(model_path(), dtype="float32").eval()
    adapted = PeftModel.from_pretrained(original, adapter_paths()[name]).eval()
    ids = list(range(40, 80))
    model = Model(models.alone)
    handle = model.load_adapter(models.adapters[name])
    context = Context(model, n_ctx=256, n_batch=256, n_seq_max=2, n_threads=1, cache_type="f32")
    try:
        context.use_adapter(handle)
        assert context.decode([(0, 0, ids, True)]) == 0
        made = context.logits(len(ids) - 1).copy()
        context.use_adapter(None)
        assert context.decode([(1, 0, ids, True)]) == 0
        plain = context.logits(len(ids) - 1).copy()
    finally:
        context.close()
        model.close()
    expected = reference_logits(adapted, ids)
    np.testing.assert_allclose(made, expected, atol=2e-3 * np.abs(expected).max())
    assert np.abs(made - plain).max() > 0.1


def test_bfloat16_is_read_exactly() -> None:
    import torch
    from safetensors.torch import load_file

    expected = load_file(str(model_path() / "model.safetensors"))
    read = dict(read_tensors([model_path() / "model.safetensors"]))
    assert read.keys() == expected.keys()
    for name, tensor in expected.items():
        assert np.array_equal(read[name], tensor.to(torch.float32).numpy())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    copied = tmp_path / "model"
    shutil.copytree(model_path(), copied)
    return copied


def change(file: Path, **values) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize(
    ("file", "values", "said"),
    [
        ("config.json", {"architectures": ["MambaForCausalLM"]}, "architecture MambaForCausalLM"),
        ("config.json", {"hidden_act": "gelu"}, "hidden_act gelu"),
        ("config.json", {"rope_parameters": {"rope_type": "yarn"}}, "rotation of type yarn"),
        ("config.json", {"vocab_size": 100}, "embedding ends at 99"),
        ("tokenizer.json", {"model": {"type": "WordPiece"}}, "kind WordPiece"),
        ("tokenizer.json", {"normalizer": {"type": "Lowercase"}}, "Lowercase"),
        ("tokenizer.json", {"pre_tokenizer": {"type": "Whitespace"}}, "Whitespace"),
        ("tokenizer.json", {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}}, "space before"),
        ("tokenizer.json", {"post_processor": {"type": "BertProcessing"}}, "BertProcessing"),
        ("adapters/pirate/adapter_config.json", {"use_dora": True}, "use_dora"),
        ("adapters/pirate/adapter_config.json", {"peft_type": "IA3"}, "IA3"),
        ("adapters/pirate/adapter_config.json", {"bias": "all"}, "biases"),
        ("adapters/pirate/adapter_config.json", {"rank_pattern": {"q_proj": 4}}, "rank_pattern"),
    ],
)
def test_what_is_not_known_is_refused(folder: Path, file: str, values, said: str, capsys) -> None:
    change(folder / file, **values)
    target = folder / "made.gguf"
    adapter = ["--adapter", str(folder / "adapters" / "pirate")] if file.startswith("adapters") else []
    assert main([*adapter, str(folder), str(target)]) == 1
    assert said in capsys.readouterr().err
    assert sorted(path.name for path in folder.glob("*gguf*")) == []


def test_missing_files_are_named(folder: Path, capsys) -> None:
    (folder / "model.safetensors").unlink()
    assert main([str(folder), str(folder / "made.gguf")]) == 1
    assert "model*.safetensors" in capsys.readouterr().err
    assert main([str(folder / "nothing"), str(folder / "made.gguf")]) == 1
    assert "config.json" in capsys.readouterr().err


def test_an_adapter_of_another_model_is_refused(folder: Path) -> None:
    with pytest.raises(ConversionError, match="mamba"):
        convert_adapter(folder / "adapters" / "pirate", folder / "a.gguf", Shape(arch="mamba", heads=1, kv_heads=1))


def test_a_scaled_rank_is_taken_into_account(folder: Path, models) -> None:
    """rsLoRA divides alpha by the rank's root: with alpha made smaller by as much, the adapter is the same."""
    pirate = folder / "adapters" / "pirate"
    before = json.loads((pirate / "adapter_config.json").read_text())
    change(pirate / "adapter_config.json", use_rslora=True, lora_alpha=before["lora_alpha"] / before["r"] ** 0.5)
    convert_adapter(pirate, folder / "a.gguf", Shape.of_folder(folder))
    assert (folder / "a.gguf").read_bytes() == Path(models.adapters["pirate"]).read_bytes()


def test_the_command_writes_what_the_function_does(tmp_path: Path, models, capsys) -> None:
    target = tmp_path / "a.gguf"
    assert main(["--adapter", str(adapter_paths()["pirate"]), str(model_path()), str(target)]) == 0
    assert target.read_bytes() == Path(models.adapters["pirate"]).read_bytes()
    assert str(target) in capsys.readouterr().out
