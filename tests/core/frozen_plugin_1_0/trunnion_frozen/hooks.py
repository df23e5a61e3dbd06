from trunnion.errors import PermissionDenied

LOG = []


class FrozenHooks:
    def __init__(self, config):
        pass

    def before_request(self, request):
        if request.tenant == "nobody":
            raise PermissionDenied("tenant 'nobody' may not ask; name another", param="tenant")
        return request.with_(priority=3)

    async def after_response(self, summary):
        LOG.append(("answered", summary.request.priority, summary.usage.completion_tokens))

    def on_error(self, summary):
        LOG.append(("failed", summary.error.code))

    def on_engine_start(self, info):
        LOG.append(("started", info.model))

    def on_engine_stop(self, info):
        LOG.append(("stopped", info.engine))
