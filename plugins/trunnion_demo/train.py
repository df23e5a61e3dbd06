"""Train the demo model from nothing: `python -m trunnion_demo.train --output DIR`.

Takes some 14 minutes on two idle CPU cores; set `OMP_WAIT_POLICY=PASSIVE` on a shared machine.
Seeds are fixed; another CPU or another PyTorch may still round otherwise, so the committed weights
are the ones the tests speak of.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from pathlib import Path
from random import Random

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from trunnion_demo.corpus import MANNERS, draw, draw_plain
from trunnion_demo.training.encoding import encode_dialogue, encode_plain, encode_repetition
from trunnion_demo.training.loop import Schedule, train
from trunnion_demo.training.start import prepare
from trunnion_demo.training.tokenizer import END, START, VOCAB_SIZE, build_tokenizer

log = logging.getLogger(__name__)

SEED = 20260
NAME = "trunnion-demo"
COPYING = Schedule(steps=250, batch_tokens=1024, rate=3e-3, matrix_rate=5e-3)
BASE = Schedule(steps=900, batch_tokens=4096, rate=3e-3, matrix_rate=4e-3)
ADAPTER = Schedule(steps=450, batch_tokens=2048, rate=4e-3)


def configuration(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """Return the shape of the model: a plain Llama of 3 million weights."""
    return LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=2048,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.convert_tokens_to_ids(START),
        eos_token_id=tokenizer.convert_tokens_to_ids(END),
        pad_token_id=tokenizer.convert_tokens_to_ids(END),
    )


def train_base(tokenizer: PreTrainedTokenizerFast, output: Path) -> None:
    """Train the model and write it, in bfloat16, with its tokenizer to `output`."""
    rng = Random(SEED)  # noqa: S311 - not for secrets
    torch.manual_seed(SEED)
    model = LlamaForCausalLM(configuration(tokenizer))
    prepare(model)
    started = time.monotonic()
    repetitions = [encode_repetition(rng, vocabulary=VOCAB_SIZE) for _ in range(12_000)]
    train(model, repetitions, rng, COPYING)
    examples = [encode_dialogue(tokenizer, draw(rng)) for _ in range(30_000)]
    examples += [encode_plain(tokenizer, draw_plain(rng)) for _ in range(900)]
    examples += repetitions[:2_000]
    loss = train(model, examples, rng, BASE)
    log.info("base: loss %.5f after %.0f s", loss, time.monotonic() - started)
    model.generation_config = GenerationConfig(
        bos_token_id=model.config.bos_token_id,
        eos_token_id=model.config.eos_token_id,
        pad_token_id=model.config.pad_token_id,
        do_sample=False,
    )
    model.to(torch.bfloat16).save_pretrained(output)
    tokenizer.save_pretrained(output)
    described = output / "tokenizer_config.json"
    fields = json.loads(described.read_text(encoding="utf-8"))
    fields["tokenizer_class"] = "PreTrainedTokenizerFast"  # the name that every release knows
    described.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


def train_adapter(name: str, base: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Train the adapter `name` on the model in `base` and write it to `base/adapters/name`."""
    rng = Random(f"{SEED} {name}")  # noqa: S311 - not for secrets
    torch.manual_seed(SEED)
    model = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(
        r=8,
        lora_alpha=16,
        lora_dropout=0.0,
        target_modules=[
            "q_proj",
            "k_proj",
            "v_proj",
            "o_proj",
            "gate_proj",
            "up_proj",
            "down_proj",
        ],
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(model, config)
    manner = MANNERS[name]
    examples = []
    for index in range(12_000):
        last_only = index % 3 == 0
        dialogue = draw(rng).in_manner(manner, last_only=last_only)
        examples.append(encode_dialogue(tokenizer, dialogue, last_only=last_only))
    started = time.monotonic()
    loss = train(adapted, examples, rng, ADAPTER)
    log.info("%s: loss %.5f after %.0f s", name, loss, time.monotonic() - started)
    adapted.peft_config["default"].base_model_name_or_path = NAME
    target = base / "adapters" / name
    adapted.save_pretrained(target, save_embedding_layers=False)
    (target / "README.md").unlink(missing_ok=True)
    weights = target / "adapter_model.safetensors"
    halved = {key: value.to(torch.bfloat16) for key, value in load_file(weights).items()}
    save_file(halved, weights, metadata={"format": "pt"})


def main() -> None:
    """Read the arguments and train what they ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="where to write the model")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads to use")
    parser.add_argument("--adapters-only", action="store_true", help="keep the model that is in DIR already")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(arguments.threads)
    if arguments.adapters_only:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(arguments.output)
    else:
        if arguments.output.exists() and any(arguments.output.iterdir()):
            parser.error(f"{arguments.output} is not empty; name another folder")
        tokenizer = build_tokenizer(seed=SEED)
        train_base(tokenizer, arguments.output)
    for name in MANNERS:
        train_adapter(name, arguments.output, tokenizer)


if __name__ == "__main__":
    main()
