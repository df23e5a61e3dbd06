from trunnion import RankedGroup, Ranking


class FrozenRouter:
    def __init__(self, config):
        self.seen = []

    def rank(self, request, candidates):
        ordered = sorted((c for c in candidates if c.weight), key=lambda c: (c.in_flight, c.id))
        return Ranking(groups=tuple(RankedGroup(candidates=(c,), reason="fewest in flight") for c in ordered))

    def routed(self, request, candidate):
        self.seen.append(candidate.id)

    def completed(self, request, candidate, *, ok):
        self.seen.append(ok)

    def replicas_changed(self, candidates):
        self.seen.clear()
