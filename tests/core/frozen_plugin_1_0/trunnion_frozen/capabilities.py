from trunnion import Capabilities

CAPABILITIES = Capabilities.of(
    yes=["sampling.max_tokens", "sampling.n"],
    unknown=["priority"],
    no=["output_format.*"],
    prompts=("text",),
    protocols=["reports_load/1", "probes_health/1", "hot_adapters/1", "embeds/1"],
    reasons={"output_format.regex": "it repeats what it is told"},
)
