/** A server like Tenantsync's HTTP API that misbehaves as a test says. */

import { createServer } from "node:http";

export const PROCESS = "0191f3c0-7a00-7000-8000-6d3b1c1f2a10";
const BASE = `/api/v1/processes/${PROCESS}`;

export function event(sequence, type = "step_update", data = {}) {
  return {
    id: `id-${sequence}`,
    process_id: PROCESS,
    event_type: type,
    event_sequence: sequence,
    event_category: "process",
    event_priority: 3,
    event_source: "worker",
    created_at: "2026-01-31T12:00:15.000000Z",
    event_data: data,
  };
}

export class Server {
  /** What there is, by number. */
  events = new Map();
  /** Requests as they came: { path, query, headers, body }. */
  requests = [];
  token = null;
  /** Called for each request; answers true when it has dealt with it. */
  trouble = () => false;
  #open = new Set();
  #http = createServer((request, response) => void this.#answer(request, response));

  async start() {
    await new Promise((done) => this.#http.listen(0, "127.0.0.1", done));
    this.url = `http://127.0.0.1:${this.#http.address().port}`;
    return this;
  }

  async stop() {
    this.hangUp();
    this.#http.closeAllConnections();
    await new Promise((done) => this.#http.close(done));
  }

  add(...events) {
    for (const one of events) {
      this.events.set(one.event_sequence, one);
    }
  }

  /** Write to every stream; `text` as it is. */
  say(text) {
    for (const stream of this.#open) {
      stream.write(text);
    }
  }

  tell(...events) {
    this.add(...events);
    this.say(events.map(asMessage).join(""));
  }

  hangUp() {
    for (const stream of this.#open) {
      stream.socket?.destroy();
    }
    this.#open.clear();
  }

  get streams() {
    return this.#open.size;
  }

  count(path) {
    return this.requests.filter((one) => one.path === path).length;
  }

  after(sequence, limit = 1e9) {
    return [...this.events.values()]
      .filter((one) => one.event_sequence > sequence)
      .sort((a, b) => a.event_sequence - b.event_sequence)
      .slice(0, limit);
  }

  async #answer(request, response) {
    const url = new URL(request.url, "http://x");
    let body = "";
    for await (const piece of request) {
      body += piece;
    }
    const path = url.pathname.replace(BASE, "");
    const asked = { path, query: url.searchParams, headers: request.headers, body };
    this.requests.push(asked);
    if (this.trouble(asked, response)) {
      return;
    }
    if (this.token !== null && request.headers.authorization !== `Bearer ${this.token}`) {
      problem(response, 401, "Not signed in");
    } else if (path === "/events") {
      const limit = Number(url.searchParams.get("limit"));
      const found = this.after(Number(url.searchParams.get("since_sequence")), limit + 1);
      const items = found.slice(0, limit);
      const next = found.length > limit ? items.at(-1).event_sequence : null;
      json(response, 200, { items, next_since: next, last_sequence: Math.max(0, ...this.events.keys()) });
    } else if (path === "/acknowledge") {
      json(response, 200, JSON.parse(body));
    } else if (path === "/stream") {
      response.writeHead(200, { "content-type": "text/event-stream; charset=utf-8" });
      response.write("retry: 1500\n\n");
      response.write(this.after(Number(request.headers["last-event-id"] ?? 0)).map(asMessage).join(""));
      this.#open.add(response);
      response.on("close", () => this.#open.delete(response));
    } else {
      problem(response, 404, "Not found");
    }
  }
}

export function asMessage(one) {
  return `id: ${one.event_sequence}\ndata: ${JSON.stringify(one)}\n\n`;
}

export function json(response, status, value) {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(value));
}

export function problem(response, status, title) {
  response.writeHead(status, { "content-type": "application/problem+json" });
  response.end(JSON.stringify({ status, title, detail: "said the test" }));
}

/** Resolves when the condition holds; fails after some seconds. */
export async function until(condition, about) {
  const ends = Date.now() + 5000;
  while (!condition()) {
    if (Date.now() > ends) {
      throw new Error(`${about} did not happen`);
    }
    await new Promise((done) => setTimeout(done, 2));
  }
}
