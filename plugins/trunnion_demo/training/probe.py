"""Measure how sure the model is on the fixed prompts, and record what it answers.

`python -m trunnion_demo.training.probe [--model DIR] [--record]`
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

import trunnion_demo
from trunnion_demo import PROMPTS, DemoPrompt, adapter_paths, model_path

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


MARGIN = 1.0
"""Logits between the first and the second token: far above what rounding moves (some 0.2).

An adapter's answer that is nearer is not recorded; an answer of the model itself is, and fails the tests.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Hold a greedy answer.

    Attributes:
        text: The answer without special tokens.
        margin: The smallest distance between the first and the second logit over all positions,
            the end of turn included.
        tokens: How many tokens were generated, the end of turn included.
        finished: Whether the end of turn came within `max_tokens`.
    """

    text: str
    margin: float
    tokens: int
    finished: bool


def load(
    model: Path, dtype: torch.dtype, adapter: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the model, with an adapter if one is named, and its tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=dtype).eval()
    if adapter is not None:
        path = adapter_paths(model)[adapter]
        loaded = PeftModel.from_pretrained(loaded, str(path), autocast_adapter_dtype=False)
        loaded = loaded.to(dtype).eval()
    return loaded, tokenizer


def answer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: DemoPrompt) -> Answer:
    """Answer one prompt greedily."""
    inputs = tokenizer.apply_chat_template(
        list(prompt.messages),
        tools=list(prompt.tools) or None,
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    result = model.generate(
        **inputs,
        max_new_tokens=prompt.max_tokens,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    generated = result.sequences[0, inputs["input_ids"].shape[1] :]
    top = torch.stack(result.logits).squeeze(1).float().topk(2).values
    return Answer(
        text=tokenizer.decode(generated, skip_special_tokens=True),
        margin=float((top[:, 0] - top[:, 1]).min()),
        tokens=len(generated),
        finished=bool(generated[-1] == tokenizer.eos_token_id),
    )


def main() -> None:
    """Print the margins; with `--record`, write the answers beside the prompts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=model_path())
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    texts: dict[str, dict[str | None, str]] = {prompt.name: {} for prompt in PROMPTS}
    for adapter in (None, *adapter_paths(arguments.model)):
        model, tokenizer = load(arguments.model, torch.float32, adapter)
        for prompt in PROMPTS:
            said = answer(model, tokenizer, prompt)
            if adapter is None or said.margin > MARGIN:
                texts[prompt.name][adapter] = said.text
            end = "" if said.finished else " NOT FINISHED"
            sys.stdout.write(
                f"{adapter or 'base':9} {prompt.name:17} {said.margin:6.2f} {said.tokens:4}{end} {said.text!r}\n"
            )
    if arguments.record:
        recorded = {
            name: {"base": by[None], "adapted": {key: by[key] for key in by if key is not None}}
            for name, by in texts.items()
        }
        file = Path(trunnion_demo.__file__).with_name("expected.json")
        file.write_text(json.dumps(recorded, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
