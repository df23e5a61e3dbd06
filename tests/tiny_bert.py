"""Make tiny BERTs with random weights and a word tokenizer that joins pairs: for embeddings, labels and scores."""

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "house", "seven", "times", "eight", "is"]
TEXTS = ("a red house", "a red house is a house", "seven times eight")


def write(path, labels=(), *, hidden=16, inner=32):
    """Write a BERT of two layers, one that classifies if there are labels; return its folder."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertModel

    shape = {
        "vocab_size": len(WORDS),
        "hidden_size": hidden,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": inner,
        "max_position_embeddings": 64,
    }
    torch.manual_seed(1)
    if labels:
        named = {"id2label": dict(enumerate(labels)), "label2id": {label: place for place, label in enumerate(labels)}}
        BertForSequenceClassification(BertConfig(**shape, **named, initializer_range=0.5)).save_pretrained(path)
    else:
        BertModel(BertConfig(**shape)).save_pretrained(path)
    write_tokenizer(path)
    return path


def write_tokenizer(path):
    """Write the tokenizer."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(path)


def logits(path, *texts):
    """Return what transformers gives for one text, or one pair, alone."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    with torch.inference_mode():
        tokens = AutoTokenizer.from_pretrained(path)(*texts, return_tensors="pt")
        return AutoModelForSequenceClassification.from_pretrained(path).eval()(**tokens).logits[0]
