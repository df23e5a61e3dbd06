/* Read Prometheus' text format, and make rates of counters: per process, for each answer may come from another. */

function parseMetrics(text) {
  const samples = [];
  for (const line of text.split("\n")) {
    const found = /^([A-Za-z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!found || !found[1].startsWith("trunnion_")) continue;
    const labels = {};
    for (const [, name, value] of (found[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) {
      labels[name] = value.replace(/\\(.)/g, (_, c) => (c === "n" ? "\n" : c));
    }
    samples.push({ name: found[1].slice("trunnion_".length), labels, value: Number(found[3]) });
  }
  return samples;
}

function sum(samples, name, model) {
  let total = 0;
  for (const s of samples) if (s.name === name && (model === undefined || s.labels.model === model)) total += s.value;
  return total;
}

/* Return the buckets of a histogram over all models: [upper bound, count at most that]. */
function buckets(samples, name) {
  const counts = new Map();
  for (const s of samples) {
    if (s.name !== `${name}_bucket`) continue;
    const bound = s.labels.le === "+Inf" ? Infinity : Number(s.labels.le);
    counts.set(bound, (counts.get(bound) ?? 0) + s.value);
  }
  return [...counts].sort((a, b) => a[0] - b[0]);
}

/* Return the value below which a share of the observations lies, interpolated between two bounds. */
function quantile(share, counts) {
  const total = counts.length ? counts[counts.length - 1][1] : 0;
  if (!total) return null;
  let low = 0, before = 0;
  for (const [bound, count] of counts) {
    if (count >= share * total) {
      return bound === Infinity ? low : low + ((bound - low) * (share * total - before)) / (count - before);
    }
    low = bound; before = count;
  }
  return low;
}

const WINDOW = 10_000, FRESH = 15_000, FORGET = 60_000;

class Replicas {
  constructor() { this.known = new Map(); }

  /* Take what one process told just now, of itself and of the replicas it passes requests on to. */
  add(samples, now) {
    const told = new Map();
    for (const s of samples) {
      const replica = s.labels.replica;
      if (!told.has(replica)) told.set(replica, []);
      told.get(replica).push(s);
    }
    for (const [replica, own] of told) {
      const id = replica ?? own.find((s) => s.name === "info")?.labels.instance ?? "";
      const history = this.known.get(id) ?? [];
      history.push({ now, samples: own, asked: replica === undefined });
      while (history.length > 2 && now - history[1].now >= WINDOW) history.shift();
      this.known.set(id, history);
    }
    for (const [other, told] of this.known) if (now - told.at(-1).now > FORGET) this.known.delete(other);
  }

  /* Return what each process told last; of what goes up and down only where that is fresh. */
  latest(fresh) {
    const after = performance.now() - (fresh ? FRESH : Infinity);
    return [...this.known.values()].map((history) => history.at(-1)).filter((told) => told.now >= after);
  }

  /* Return the processes that answer this page themselves. */
  asked(fresh) { return this.latest(fresh).filter((told) => told.asked); }

  /* Tell whether a replica has told anything of a model. */
  tells(model) {
    return this.latest(false).some(({ asked, samples }) => !asked && samples.some((s) => s.labels.model === model));
  }

  total(name, model, fresh = false) {
    return this.latest(fresh).reduce((all, told) => all + sum(told.samples, name, model), 0);
  }

  gauge(name, model) { return this.total(name, model, true); }

  /* Return generated tokens per second of one process, over the last seconds. A stream's tokens are counted as they
     come, those of whole answers when they end. */
  rate(history) {
    const first = history[0], last = history.at(-1);
    if (last.now === first.now) return 0;
    const grown = (...names) => names.reduce((all, name) => all + sum(last.samples, name) - sum(first.samples, name), 0);
    const tokens = Math.max(
      grown("completion_tokens_total"), grown("inter_token_seconds_count", "time_to_first_token_seconds_count"));
    return Math.max(0, tokens) / ((last.now - first.now) / 1000);
  }

  get tokensPerSecond() { return [...this.known.values()].reduce((all, history) => all + this.rate(history), 0); }

  /* Return a quantile of a histogram over the last seconds of all processes; since their start if nothing happened. */
  quantile(share, name) {
    const recent = new Map(), whole = new Map();
    for (const history of this.known.values()) {
      const old = new Map(buckets(history[0].samples, name));
      for (const [bound, count] of buckets(history.at(-1).samples, name)) {
        whole.set(bound, (whole.get(bound) ?? 0) + count);
        recent.set(bound, (recent.get(bound) ?? 0) + count - (old.get(bound) ?? 0));
      }
    }
    return quantile(share, [...recent]) ?? quantile(share, [...whole]);
  }
}
