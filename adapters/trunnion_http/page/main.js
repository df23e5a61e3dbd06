/* Show what the server tells of itself, every two seconds, and run the playground. */

const PERIOD = 2000, MODELS_PERIOD = 10_000, SPARK = 60;
const replicas = new Replicas();
const conversation = new Conversation(byId("log"));
const page = { models: [], ready: {}, place: null, spark: [], metrics: true, modelsAsked: -Infinity };
const count = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const seconds = (value) =>
  value === null ? "–" : value < 1 ? `${(value * 1000).toPrecision(value < 0.1 ? 2 : 3)} ms` : `${value.toFixed(2)} s`;

function row(cells, className) {
  const made = element("tr");
  made.append(...cells.map((text) => element("td", className, text)));
  return made;
}

/* Replace the rows of a table, unless they are the same: what is selected or read out stays as it is. */
function fill(id, rows) {
  const body = byId(id);
  if (body.textContent !== rows.map((r) => r.textContent).join("")) body.replaceChildren(...rows);
}

async function timed(path) { return ask(path, { signal: AbortSignal.timeout(5000) }); }

async function lookReady() {
  let state = "unreachable";
  try {
    page.ready = await (await timed("ready")).json();
    state = page.ready.status;
  } catch { page.ready = {}; }
  const pill = byId("state"), topology = page.ready.topology;
  const words = state === "unreachable" ? "cannot be reached" : topology ? `${state}, ${topology} topology` : state;
  if (pill.textContent !== words) pill.textContent = words;
  pill.dataset.state = state;
  byId("topology").textContent = page.ready.topology_reason ?? "";
}

async function lookMetrics() {
  if (!page.metrics) return;
  let response;
  try { response = await timed("metrics"); } catch { return; }
  if (response.status === 404) {
    page.metrics = false;
    byId("load-note").textContent = "Metrics are switched off on this server.";
    return;
  }
  if (response.ok) replicas.add(parseMetrics(await response.text()), performance.now());
}

/* Ask as often as there are processes that answer, at once: whoever shares requests out shares these out as well. */
async function lookReplicas() {
  const times = Math.min(4, Math.max(1, replicas.asked(false).length));
  await Promise.all(Array.from({ length: times }, lookMetrics));
}

async function lookModels(now) {
  if (now - page.modelsAsked < MODELS_PERIOD) return;
  page.modelsAsked = now;
  let response;
  try { response = await timed("v1/models"); } catch { return; }
  byId("models-note").textContent = response.status === 401 ? "This server asks for an API key: see the playground." : "";
  if (response.status === 401) byId("key-box").open = true;
  if (!response.ok) return;
  page.models = (await response.json()).data;
  const select = byId("model"), chosen = select.value;
  const names = page.models.map((model) => model.id);
  if (names.join("\n") === [...select.options].map((option) => option.value).join("\n")) return;
  select.replaceChildren(...page.models.map((model) => {
    const option = element("option", "", model.parent ? `${model.id} (adapter of ${model.parent})` : model.id);
    option.value = model.id;
    return option;
  }));
  if (names.includes(chosen)) select.value = chosen;
}

function showModels() {
  fill("models", page.models.map((model) => {
    if (model.parent) return row([model.id, "adapter", "", "", "", "", ""], "adapter");
    const told = page.ready.topology !== "gateway" || replicas.tells(model.id); // it asks nothing of a model that may sleep
    const of = (name, how = "total") =>
      page.metrics && (told || name === "requests_total") ? count.format(replicas[how](name, model.id)) : "–";
    const state = page.ready.models?.[model.id], running = page.ready.replicas?.[model.id];
    const words = state === undefined ? "–" : state ? "ready" : "starting";
    return row([model.id, running === undefined ? words : `${words} (${running})`, of("engine_running", "gauge"),
      of("engine_waiting", "gauge"), of("requests_total"), of("prompt_tokens_total"), of("completion_tokens_total")]);
  }));
}

function showLoad() {
  const rate = replicas.tokensPerSecond;
  const inFlight = Math.max(0, replicas.gauge("requests_in_flight") - replicas.asked(true).length); // without our own question
  const tiles = [
    ["In flight", count.format(inFlight)],
    ["Running", count.format(replicas.gauge("engine_running"))],
    ["Waiting", count.format(replicas.gauge("engine_waiting"))],
    ["Tokens/s", count.format(rate)],
    ["First token, median", seconds(replicas.quantile(0.5, "time_to_first_token_seconds"))],
    ["First token, p95", seconds(replicas.quantile(0.95, "time_to_first_token_seconds"))],
    ["Between tokens, median", seconds(replicas.quantile(0.5, "inter_token_seconds"))],
  ];
  if (byId("tiles").children.length !== tiles.length) {
    byId("tiles").replaceChildren(...tiles.map(([name]) => {
      const tile = element("div");
      tile.append(element("dt", "", name), element("dd", "", "–"));
      return tile;
    }));
  }
  tiles.forEach(([, value], index) => {
    const cell = byId("tiles").children[index].lastChild;
    if (cell.textContent !== value) cell.textContent = value;
  });
  page.spark = [...page.spark, rate].slice(-SPARK);
  const top = Math.max(1, ...page.spark);
  const left = SPARK - page.spark.length; // the newest is at the right
  const points = page.spark.map((value, index) =>
    `${(((left + index) * 120) / (SPARK - 1)).toFixed(1)},${(31 - (29 * value) / top).toFixed(1)}`);
  byId("spark").firstElementChild.setAttribute("points", points.join(" "));
  byId("spark-note").textContent = `tokens per second, the last two minutes; at most ${count.format(Math.max(...page.spark))}`;
}

function showReplicas(now) {
  byId("place").hidden = !page.ready.topology && replicas.known.size < 2;
  const gateway = page.ready.topology === "gateway";
  byId("place-note").textContent = gateway
    ? "Those behind the gateway that were running in the last minute; the figures above are their sums."
    : "Those that have answered this page in the last minute; the figures above are their sums.";
  fill("replicas", [...replicas.known].filter(([, history]) => !gateway || !history.at(-1).asked).map(([id, history]) => {
    const { samples, now: seen } = history.at(-1);
    const age = Math.round((now - seen) / 1000);
    const model = gateway && samples.find((s) => s.labels.model)?.labels.model;
    return row([model ? `${model} ${id}` : id || "this process", count.format(sum(samples, "engine_running")), count.format(sum(samples, "engine_waiting")),
      count.format(replicas.rate(history)), age < 2 ? "now" : `${age} s ago`]);
  }));
}

async function look() {
  if (!document.hidden) {
    const now = performance.now();
    await Promise.all([lookReady(), lookReplicas(), lookModels(now)]);
    showModels();
    if (page.metrics) {
      showLoad();
      showReplicas(performance.now());
    }
  }
  setTimeout(look, PERIOD);
}

async function send(event) {
  event.preventDefault();
  const message = byId("message"), text = message.value.trim();
  if (!text || conversation.abort || !byId("ask").reportValidity()) return;
  const options = { model: byId("model").value };
  for (const [field, id] of [["temperature", "temperature"], ["max_tokens", "max-tokens"]]) {
    if (byId(id).value !== "") options[field] = byId(id).valueAsNumber;
  }
  message.value = "";
  byId("send").disabled = true;
  byId("stop").disabled = false;
  try {
    await conversation.say(text, options, byId("system").value.trim());
  } catch (failure) {
    message.value ||= text; // to be sent again
    if (failure.status === 401) { byId("key-box").open = true; byId("key").focus(); }
  } finally {
    byId("send").disabled = false;
    byId("stop").disabled = true;
  }
}

byId("ask").addEventListener("submit", send);
byId("stop").addEventListener("click", () => { conversation.stop(); byId("message").focus(); });
byId("clear").addEventListener("click", () => { conversation.clear(); byId("message").focus(); });
byId("message").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event);
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape") conversation.stop(); });
byId("key").value = sessionStorage.getItem(KEY) ?? "";
byId("key").addEventListener("input", () => {
  const key = byId("key").value.trim();
  if (key) sessionStorage.setItem(KEY, key); else sessionStorage.removeItem(KEY);
  page.modelsAsked = -Infinity;
});
timed("version").then((response) => response.json()).then((told) => {
  const engines = [...new Set(Object.values(told.engines))];
  byId("version").textContent = [told.version, ...engines].join(" · ");
}, () => {});
look();
