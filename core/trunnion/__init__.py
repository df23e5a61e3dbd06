"""Mount any LLM engine once; serve batches, online traffic and in-process Python from the same mount.

The contract lives here: requests and events, engines, stages and routers, capabilities, errors, specs, the plugin
registry and the planner. Importing it loads neither Ray nor torch nor an engine.
"""

from .capabilities import FEATURES, Capabilities, Support
from .choice import EngineChoice, choose_engine
from .completion import Completion, CompletionChoice, ToolCall, collect
from .deprecation import PluginApiDeprecated, TrunnionDeprecationWarning
from .engine import (
    AdapterRef,
    Classification,
    Classifies,
    Embedding,
    Embeds,
    EmitsKVEvents,
    Engine,
    EngineInfo,
    HotAdapters,
    KVLayout,
    LoadReport,
    ProbesHealth,
    Relays,
    ReportsLoad,
    ResetsCache,
    Score,
    Scores,
    Sleeps,
    TokenizerRef,
    Transcribes,
    Transcription,
)
from .errors import TrunnionError
from .events import ChoiceDelta, GenerateEvent, TokenLogprob, ToolCallDelta, Usage
from .fetch import FetchJob, FetchProgress, FetchSettings, Source
from .formats import Choice, Grammar, JsonObject, JsonSchema, OutputFormat, Regex
from .hooks import RequestHooks, RequestSummary
from .hookspecs import hookimpl
from .loader import PluginRecord, PluginState
from .media_policy import MediaPolicy
from .pipeline import Pipeline, open_pipeline
from .planner import Plan
from .plugin import (
    API_VERSION,
    EnginePlugin,
    HooksPlugin,
    LibraryRequirement,
    NoConfig,
    PluginConfig,
    RouterPlugin,
    SourcePlugin,
    StagePlugin,
)
from .preparation import Prepared
from .registry import Registry, engine_spec, get_registry
from .requests import (
    ChatMessage,
    GenerateRequest,
    MediaPart,
    MessagesPrompt,
    Prompt,
    SamplingParams,
    TextPrompt,
    TokensPrompt,
    new_request_id,
)
from .router import Candidate, RankedGroup, Ranking, Router
from .sources import local_path
from .spec import Bundle, EngineSpec, PipelineSpec, PluginPolicy, Resources, StageSpec
from .stage import Stage, StageContext, StreamStage, Transducer
from .startup import Startup, StartupStage
from .suitability import EngineQuestion, Machine, ModelFacts, Suitability
from .sync import LoopThread, SyncPipeline, as_prompt, generate

__version__ = "0.1.0"

__all__ = [
    "API_VERSION",
    "FEATURES",
    "AdapterRef",
    "Bundle",
    "Candidate",
    "Capabilities",
    "ChatMessage",
    "Choice",
    "ChoiceDelta",
    "Classification",
    "Classifies",
    "Completion",
    "CompletionChoice",
    "Embedding",
    "Embeds",
    "EmitsKVEvents",
    "Engine",
    "EngineChoice",
    "EngineInfo",
    "EnginePlugin",
    "EngineQuestion",
    "EngineSpec",
    "FetchJob",
    "FetchProgress",
    "FetchSettings",
    "GenerateEvent",
    "GenerateRequest",
    "Grammar",
    "HooksPlugin",
    "HotAdapters",
    "JsonObject",
    "JsonSchema",
    "KVLayout",
    "LibraryRequirement",
    "LoadReport",
    "LoopThread",
    "Machine",
    "MediaPart",
    "MediaPolicy",
    "MessagesPrompt",
    "ModelFacts",
    "NoConfig",
    "OutputFormat",
    "Pipeline",
    "PipelineSpec",
    "Plan",
    "PluginApiDeprecated",
    "PluginConfig",
    "PluginPolicy",
    "PluginRecord",
    "PluginState",
    "Prepared",
    "ProbesHealth",
    "Prompt",
    "RankedGroup",
    "Ranking",
    "Regex",
    "Registry",
    "Relays",
    "ReportsLoad",
    "RequestHooks",
    "RequestSummary",
    "ResetsCache",
    "Resources",
    "Router",
    "RouterPlugin",
    "SamplingParams",
    "Score",
    "Scores",
    "Sleeps",
    "Source",
    "SourcePlugin",
    "Stage",
    "StageContext",
    "StagePlugin",
    "StageSpec",
    "Startup",
    "StartupStage",
    "StreamStage",
    "Suitability",
    "Support",
    "SyncPipeline",
    "TextPrompt",
    "TokenLogprob",
    "TokenizerRef",
    "TokensPrompt",
    "ToolCall",
    "ToolCallDelta",
    "Transcribes",
    "Transcription",
    "Transducer",
    "TrunnionDeprecationWarning",
    "TrunnionError",
    "Usage",
    "as_prompt",
    "choose_engine",
    "collect",
    "engine_spec",
    "generate",
    "get_registry",
    "hookimpl",
    "local_path",
    "new_request_id",
    "open_pipeline",
]
