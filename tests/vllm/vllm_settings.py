"""How the tests of this folder start vLLM; a module of its own, since every folder has a conftest."""

from vllm_cpu import VLLM_CPU

CPU_ENVIRONMENT = {**VLLM_CPU, "VLLM_LOGGING_LEVEL": "WARNING"}
SETTINGS = {
    "enforce_eager": True,
    "max_model_len": 512,
    "dtype": "float32",
    # A small model may fill a JSON answer up with blanks, for ever.
    "engine_kwargs": {
        "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
        "max_loras": 4,
    },
}
