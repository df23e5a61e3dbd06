"""Every exception of vLLM's arrives as one of the tree, from the original."""

import asyncio
import inspect

import pytest

from trunnion.errors import (
    AdapterNotFound,
    Cancelled,
    ContextOverflow,
    EngineDead,
    InternalError,
    InvalidArgument,
    NotFound,
    Overloaded,
    Transient,
    TrunnionError,
    UnsupportedFeature,
)

pytestmark = pytest.mark.engine  # importing vLLM takes ten seconds


@pytest.fixture(scope="module")
def vllm(vllm_environment):
    from trunnion_vllm import _vllm

    return _vllm


def make(cls):
    """Make an exception with text for each argument it demands."""
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    needed = [p for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    return cls(*["something" for _ in needed])


WANTED = {
    "VLLMError": InternalError,
    "VLLMServerError": InternalError,
    "GenerationError": InternalError,
    "VLLMClientError": InvalidArgument,
    "VLLMValidationError": InvalidArgument,
    "VLLMUnprocessableEntityError": InvalidArgument,
    "VLLMNotFoundError": NotFound,
    "LoRAAdapterNotFoundError": AdapterNotFound,
    "GracefulHTTPError": Overloaded,
    "ProfilerAlreadyActiveError": Overloaded,
    "RetryableRequestError": Transient,
    "QueueOverflowError": Overloaded,
    "MaxQueuedTokensError": Overloaded,
    "EngineDeadError": EngineDead,
    "EngineGenerateError": InternalError,
}


def test_every_exception_class_is_mapped(vllm):
    from vllm import exceptions
    from vllm.v1.engine import exceptions as engine_exceptions

    from trunnion_vllm.errors import map_error

    found = {
        name: value
        for module in (exceptions, engine_exceptions)
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Exception) and value.__module__ == module.__name__
    }
    assert set(found) <= set(WANTED), "a class is not in the table above"
    assert {name: type(map_error(make(cls))) for name, cls in found.items()} == {n: WANTED[n] for n in found}


@pytest.mark.parametrize(
    ("message", "error", "param"),
    [
        ("The decoder prompt (length 9) is longer than the maximum model length of 8.", ContextOverflow, "prompt"),
        ("This model's maximum context length is 8 tokens. However, you requested 9", ContextOverflow, "prompt"),
        ("The min_p and logit_bias sampling parameters are not yet supported", UnsupportedFeature, "logit_bias"),
        ("n must be 1 when using greedy sampling, got 2.", InvalidArgument, "n"),
        ("Invalid grammar specification.", InvalidArgument, "output_format"),
        ("LoRA is not enabled!", UnsupportedFeature, "adapter"),
        ("what is this", InvalidArgument, None),
    ],
)
@pytest.mark.parametrize("kind", [ValueError, "VLLMValidationError"])
def test_refusals_are_read(vllm, kind, message, error, param):
    from vllm import exceptions

    from trunnion_vllm.errors import map_error

    cls = kind if kind is ValueError else getattr(exceptions, kind)
    mapped = map_error(cls(message))
    assert (type(mapped), mapped.param) == (error, param)


def test_a_named_parameter_is_taken(vllm):
    from vllm.exceptions import VLLMValidationError

    from trunnion_vllm.errors import map_error

    assert map_error(VLLMValidationError("too many", parameter="logprobs", value=9)).param == "logprobs"


def test_the_context_manager_keeps_the_original(vllm):
    from trunnion_vllm.errors import MAPPED

    with pytest.raises(InternalError) as caught, MAPPED:
        raise KeyError("lost")
    assert isinstance(caught.value.__cause__, KeyError)
    ours = Cancelled("mine")
    with pytest.raises(TrunnionError) as caught, MAPPED:
        raise ours
    assert caught.value is ours
    with pytest.raises(asyncio.CancelledError), MAPPED:
        raise asyncio.CancelledError


def test_a_wrapped_error_is_unwrapped(vllm):
    from trunnion_vllm.errors import map_error

    wrapper = vllm.EngineGenerateError()
    wrapper.__cause__ = ValueError("n must be 1")
    assert map_error(wrapper).param == "n"


def test_an_unknown_engine_argument_is_refused_before_anything_loads(vllm):
    from trunnion.errors import ConfigError
    from trunnion_vllm.config import VLLMConfig
    from trunnion_vllm.launch import build_args

    config = VLLMConfig.model_construct(**VLLMConfig().model_dump() | {"engine_kwargs": {"blok_size": 16}})
    with pytest.raises(ConfigError, match="did you mean 'block_size'"):
        build_args("model", config)


def test_the_difference_from_the_defaults_is_logged_once(vllm, model, caplog, monkeypatch):
    from trunnion_vllm.config import VLLMConfig
    from trunnion_vllm.launch import build_args

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    caplog.set_level("INFO", logger="trunnion.vllm")
    args = build_args(model, VLLMConfig(max_num_seqs=7, seed=0, engine_kwargs={"block_size": 32}))
    (line,) = [r.getMessage() for r in caplog.records if "differ" in r.getMessage()]
    assert line.endswith("{'max_num_seqs': 7, 'disable_log_stats': True, 'block_size': 32}")  # seed=0 is the default
    assert (args.max_num_seqs, args.block_size) == (7, 32)


def test_json_objects_become_config_classes(vllm):
    made = vllm.with_config_objects(
        {"structured_outputs_config": {"backend": "xgrammar"}, "speculative_config": {"method": "ngram"}}
    )
    assert made["structured_outputs_config"].backend == "xgrammar"
    assert made["speculative_config"] == {"method": "ngram"}
