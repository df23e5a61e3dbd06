"""Tell the process of vLLM's engine from others."""


def is_engine(process):
    """By its title; where the environment is too small for that, it is still a process that was spawned."""
    line = " ".join(process.cmdline())
    return "EngineCore" in line or "spawn_main" in line
