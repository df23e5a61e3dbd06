"""Make a vision model small enough for a test: BLIP-2 with random weights, over the demo model's tokenizer.

Its code needs no torchvision, and it reads an image into a fixed number of tokens before the text.
"""

QUERIES = 4
"""Tokens that an image takes."""
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content if part.type == 'text' %}{{ part.text }}{% endfor %}"
    "{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make(folder, tokenizer_path):
    """Write model, tokenizer and processor to a folder; return its path."""
    import torch
    import transformers as hf
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    tokenizer = hf.AutoTokenizer.from_pretrained(tokenizer_path)
    tokenizer.chat_template = TEMPLATE
    images = BlipImageProcessorPil(size={"height": 28, "width": 28})
    processor = hf.Blip2Processor(image_processor=images, tokenizer=tokenizer, num_query_tokens=QUERIES)
    shape = {
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "hidden_size": 128,
        "intermediate_size": 128,
        "initializer_range": 0.3,
    }
    text = hf.OPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        num_hidden_layers=2,
        ffn_dim=128,
        num_attention_heads=2,
        max_position_embeddings=512,
        word_embed_proj_dim=128,
        init_std=0.3,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = hf.Blip2Config(
        vision_config=hf.Blip2VisionConfig(**shape, image_size=28, patch_size=14).to_dict(),
        qformer_config=hf.Blip2QFormerConfig(**shape, encoder_hidden_size=128).to_dict(),
        text_config=text.to_dict(),
        num_query_tokens=QUERIES,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    torch.manual_seed(0)
    model = hf.Blip2ForConditionalGeneration(config).to(torch.float32)
    torch.nn.init.normal_(model.query_tokens)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)
