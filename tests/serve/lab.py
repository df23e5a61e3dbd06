"""Run Ray and Serve in a process of their own, and obey commands: JSON lines in, JSON lines out."""

import json
import logging
import os
import sys
import traceback
from pathlib import Path

import ray
from ray import serve

from trunnion.errors import ConfigError
from trunnion_ray.serve import LLMConfig, build_llm_deployment, build_openai_app, ensure_serve
from trunnion_ray.serve.run import take_down


def main() -> None:
    topology, port = sys.argv[1], int(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever else prints goes to stderr
    ray.init(
        address="local",
        num_cpus=16,
        include_dashboard=False,
        object_store_memory=100 * 2**20,
        log_to_driver=bool(os.environ.get("TRUNNION_LAB_LOGS")),
    )
    try:
        answers.write(json.dumps({"offers": ensure_serve(topology, port=port)}) + "\n")
        for line in sys.stdin:
            command = json.loads(line)
            if command["do"] == "stop":
                break
            try:
                answer = {"ok": globals()[f"do_{command.pop('do')}"](**command)}
            except Exception as error:
                traceback.print_exc()
                answer = {"error": f"{type(error).__name__}: {error}"}
            answers.write(json.dumps(answer) + "\n")
    finally:
        serve.shutdown()
        ray.shutdown()


def do_run(name, app):
    serve.run(build_openai_app(app), name=name, route_prefix=f"/{name}")


def do_deploy(name, app):
    """Deploy without waiting until everything runs."""
    from ray.serve.api import RunTarget, _run_many

    target = RunTarget(target=build_openai_app(app), name=name, route_prefix=f"/{name}")
    _run_many([target], wait_for_applications_running=False)


def do_delete(name):
    serve.delete(name)


def do_take_down(name, drain):
    return take_down(name, drain=drain)


def do_applications():
    return list(serve.status().applications)


def do_load(name, deployment):
    load = serve.get_deployment_handle(deployment, name).load.remote().result(timeout_s=20)
    return [load.running, load.waiting]


def do_generate(name, deployment, text, max_tokens):
    from trunnion import GenerateRequest, SamplingParams, TextPrompt

    request = GenerateRequest(prompt=TextPrompt(text=text), sampling=SamplingParams(max_tokens=max_tokens))
    handle = serve.get_deployment_handle(deployment, name).options(stream=True)
    return [choice.text for event in handle.generate.remote(request) for choice in event.choices]


def do_chat(name, deployment, request):
    """Talk to an LLMServer by handle, as programs for Ray's modules do."""
    handle = serve.get_deployment_handle(deployment, name).options(stream=True)
    return list(handle.chat.remote(request))


def do_run_deployment(name, config):
    serve.run(build_llm_deployment(LLMConfig(**config)), name=name, route_prefix=None)


def do_ensure(topology):
    """Return what ``ensure_serve`` says, and its warnings."""
    records = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    handler.setLevel(logging.WARNING)
    logging.getLogger("trunnion.serve").addHandler(handler)
    try:
        return [ensure_serve(topology), records]
    except ConfigError as error:
        return [error.param, [str(error)]]
    finally:
        logging.getLogger("trunnion.serve").removeHandler(handler)


def do_embed_error(name, deployment):
    """Return what the unwrapped error of a refused call looks like."""
    from trunnion import TextPrompt
    from trunnion_ray.serve.errors import unwrap

    try:
        serve.get_deployment_handle(deployment, name).embed.remote([TextPrompt(text="x")]).result(timeout_s=20)
    except Exception as error:
        return unwrap(error).to_dict()


def do_judge(name, deployment):
    """Score and classify through what a gateway holds of a model."""
    import asyncio

    from trunnion import TextPrompt
    from trunnion_ray.serve.remote_model import ModelCard, RemoteModel

    model = RemoteModel(ModelCard(name=deployment), serve.get_deployment_handle(deployment, name))

    async def ask():
        scores = await model.score("the cat", ["the cat", "a dog"])
        labels = await model.classify([TextPrompt(text="a negative day")])
        return [one.value for one in scores], [one.label for one in labels]

    return asyncio.run(ask())


def do_transcribe(name, deployment, audio):
    """Transcribe through what a gateway holds of a model; return the text and its tokens, or what is wrong."""
    import asyncio

    from trunnion.errors import TrunnionError
    from trunnion_ray.serve.remote_model import ModelCard, RemoteModel

    model = RemoteModel(ModelCard(name=deployment), serve.get_deployment_handle(deployment, name))
    try:
        found = asyncio.run(model.transcribe(audio.encode(), mime_type="audio/wav", language="en"))
    except TrunnionError as error:
        return error.to_dict()
    return [found.text, found.usage.prompt_tokens]


def do_replicas(name):
    """Return the running replicas of each deployment of an application."""
    deployments = serve.status().applications[name].deployments
    return {key: deployment.replica_states.get("RUNNING", 0) for key, deployment in deployments.items()}


def do_lines(text):
    """Return the lines of the workers' logs that contain a text."""
    from ray._private.worker import global_worker

    logs = Path(global_worker.node.get_logs_dir_path()).glob("worker-*.err")
    return [line for log in logs for line in log.read_text(errors="replace").splitlines() if text in line]


def do_pids(name):
    """Return the process ids of an application's replicas."""
    from ray.serve.context import _get_global_client

    details = _get_global_client().get_serve_details()["applications"][name]["deployments"]
    return {key: [replica.get("pid") for replica in value["replicas"]] for key, value in details.items()}


if __name__ == "__main__":
    main()
