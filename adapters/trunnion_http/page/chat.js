/* Ask the API, and stream a conversation. */

const BASE = location.pathname.replace(/\/?$/, "/"); // where the server is mounted, with or without the slash
const KEY = "trunnion-api-key";
const byId = (id) => document.getElementById(id);

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function ask(path, options = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = { ...(key ? { authorization: `Bearer ${key}` } : {}), ...options.headers };
  return fetch(BASE + path, { credentials: "same-origin", cache: "no-store", ...options, headers });
}

class Failure extends Error {
  constructor(message, title, status) { super(message); this.title = title; this.status = status; }
}

async function failureOf(response) {
  let told = null;
  try { told = (await response.json()).error; } catch { /* not ours: a proxy's own answer */ }
  return new Failure(
    told?.message ?? `The server answered ${response.status} ${response.statusText}`.trim() + ".",
    `${told?.code ?? "error"} (${response.status})`, response.status);
}

/* Yield the data of server-sent events. */
async function* serverSentEvents(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  while (true) {
    const { value, done } = await reader.read();
    if (done) return;
    const frames = (rest + value).split(/\r?\n\r?\n/);
    rest = frames.pop();
    for (const frame of frames) {
      const data = frame.split(/\r?\n/).filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart());
      if (data.length) yield data.join("\n");
    }
  }
}

class Turn {
  constructor(role) {
    this.box = element("div", `turn ${role}`);
    this.box.append(element("span", "hidden", role === "user" ? "You: " : "Model: "));
    this.text = element("p", "text");
    this.box.append(this.text);
    this.thoughts = null;
  }

  think(text) {
    if (!this.thoughts) {
      const folded = element("details");
      this.thoughts = element("p", "text");
      folded.append(element("summary", "", "Reasoning"), this.thoughts);
      this.box.insertBefore(folded, this.text);
    }
    this.thoughts.append(text);
  }

  note(text) { this.box.append(element("p", "quiet", text)); }
}

class Conversation {
  constructor(log) { this.log = log; this.messages = []; this.abort = null; }

  show(turn) {
    this.log.querySelector(".empty")?.remove();
    this.log.append(turn.box);
    this.log.scrollTop = this.log.scrollHeight;
    return turn;
  }

  /* Let something grow, and stay at the end where the end was in sight. */
  grow(change) {
    const atEnd = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 40;
    change();
    if (atEnd) this.log.scrollTop = this.log.scrollHeight;
  }

  clear() {
    this.stop();
    this.messages = [];
    this.log.replaceChildren(element("p", "empty", "Ask something."));
  }

  stop() { this.abort?.abort(); }

  fail(failure) {
    const turn = new Turn("error");
    turn.box.firstChild.textContent = "Error: ";
    turn.box.insertBefore(element("strong", "", failure.title ?? "The request failed"), turn.text);
    turn.text.textContent = failure.message;
    this.show(turn);
  }

  /* Send a message and stream the answer. Throws what went wrong, once it was shown. */
  async say(text, options, system) {
    const said = this.messages, before = said.length; // a cleared conversation goes on with another list
    said.push({ role: "user", content: text });
    this.show(new Turn("user")).text.textContent = text;
    const turn = new Turn("assistant");
    turn.box.setAttribute("aria-busy", "true");
    this.abort = new AbortController();
    const began = performance.now();
    const seen = { first: 0, usage: null, reason: "", text: "" };
    try {
      const messages = [...(system ? [{ role: "system", content: system }] : []), ...said];
      const response = await ask("v1/chat/completions", {
        method: "POST", signal: this.abort.signal, headers: { "content-type": "application/json" },
        body: JSON.stringify({ ...options, messages, stream: true, stream_options: { include_usage: true } }),
      });
      if (!response.ok) throw await failureOf(response);
      this.show(turn);
      await this.read(response, turn, seen);
      this.grow(() => turn.note(describe(seen, began)));
      said.push({ role: "assistant", content: seen.text });
    } catch (error) {
      if (error.name === "AbortError") {
        if (turn.box.isConnected) this.grow(() => turn.note("stopped"));
        if (seen.text) said.push({ role: "assistant", content: seen.text });
        else said.length = before;
        return;
      }
      said.length = before;
      const shown = error instanceof Failure ? error : new Failure(`${error.message}.`, "The server cannot be reached");
      this.fail(shown);
      throw shown;
    } finally {
      turn.box.removeAttribute("aria-busy");
      this.abort = null;
    }
  }

  async read(response, turn, seen) {
    for await (const data of serverSentEvents(response)) {
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new Failure(event.error.message, `${event.error.code ?? "error"}, in mid-stream`);
      seen.usage = event.usage ?? seen.usage;
      const choice = event.choices?.[0];
      if (!choice) continue;
      seen.first ||= performance.now();
      seen.reason = choice.finish_reason ?? seen.reason;
      const { content, reasoning_content: thought } = choice.delta;
      seen.text += content ?? "";
      this.grow(() => {
        if (thought) turn.think(thought);
        if (content) turn.text.append(content);
      });
    }
    throw new Failure("The connection ended before the answer did; it may be cut short.", "Broken stream");
  }
}

function describe(seen, began) {
  const parts = [];
  const tokens = seen.usage?.completion_tokens;
  const seconds = (performance.now() - seen.first) / 1000;
  if (seen.first) parts.push(`first token after ${((seen.first - began) / 1000).toFixed(2)} s`);
  if (tokens !== undefined) parts.push(`${seen.usage.prompt_tokens} tokens in, ${tokens} out`);
  if (tokens > 1 && seconds > 0) parts.push(`${((tokens - 1) / seconds).toFixed(1)} tokens/s`);
  if (seen.reason) parts.push(`ended by ${seen.reason}`);
  return parts.join(" · ");
}
