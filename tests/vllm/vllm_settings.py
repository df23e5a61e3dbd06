"""How the tests of this folder start vLLM; a module of its own, since every folder has a conftest."""

CPU_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
}
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
