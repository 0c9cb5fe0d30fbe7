/** Every event once and in order, whatever the server does. */

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import { isOver, Refused, watchProcess } from "../dist/index.js";
import { asMessage, event, problem, PROCESS, Server, until } from "./server.mjs";

let server;
let streams;

beforeEach(async () => {
  server = await new Server().start();
  streams = [];
});

afterEach(async () => {
  for (const stream of streams) {
    stream.close();
    await stream.finished;
  }
  await server.stop();
});

function watch(options = {}) {
  const seen = { numbers: [], gaps: [], states: [], events: [] };
  const stream = watchProcess({
    baseUrl: server.url,
    processId: PROCESS,
    backoff: { first: 5, longest: 50 },
    onEvent: (one) => {
      seen.numbers.push(one.event_sequence);
      seen.events.push(one);
    },
    onGap: (gap) => seen.gaps.push(gap),
    onState: (state) => seen.states.push(state.name),
    ...options,
  });
  streams.push(stream);
  return Object.assign(seen, { stream });
}

const upTo = (last, first = 1) => Array.from({ length: last - first + 1 }, (_, place) => first + place);
const range = (last, first = 1) => upTo(last, first).map((number) => event(number));

test("what there is comes first, then what happens", async () => {
  server.add(...range(3));
  const seen = watch();
  await until(() => seen.numbers.length === 3, "the past");

  server.tell(event(4), event(5));

  await until(() => seen.numbers.length === 5, "the present");
  assert.deepEqual(seen.numbers, upTo(5));
  assert.deepEqual(seen.states, ["connecting", "live"]);
  assert.equal(seen.stream.position, 5);
  assert.equal(server.count("/events"), 0);
  assert.deepEqual(seen.events[0], event(1));
});

test("what one has already is not asked for again", async () => {
  server.add(...range(9));
  const seen = watch({ since: 6 });

  await until(() => seen.numbers.length === 3, "the rest");

  assert.deepEqual(seen.numbers, [7, 8, 9]);
  assert.equal(server.requests[0].headers["last-event-id"], "6");
});

test("what comes twice is handed out once", async () => {
  const seen = watch();
  await until(() => server.streams === 1, "the connection");

  server.tell(event(1), event(2));
  server.tell(event(2), event(1), event(2), event(3));

  await until(() => seen.numbers.length === 3, "the events");
  assert.deepEqual(seen.numbers, [1, 2, 3]);
  assert.deepEqual(seen.gaps, []);
});

test("a missing number is fetched before anything later is handed out", async () => {
  const seen = watch();
  await until(() => server.streams === 1, "the connection");
  server.tell(event(1));
  server.add(event(2), event(3));

  server.tell(event(4), event(5));

  await until(() => seen.numbers.length === 5, "the events");
  assert.deepEqual(seen.numbers, upTo(5));
  assert.deepEqual(seen.gaps, []);
  assert.equal(server.count("/events"), 1);
});

test("a number that is gone is told as a gap, once", async () => {
  const seen = watch();
  await until(() => server.streams === 1, "the connection");
  server.tell(event(1));

  server.tell(event(4), event(5));

  await until(() => seen.numbers.length === 3, "the events");
  assert.deepEqual(seen.numbers, [1, 4, 5]);
  assert.deepEqual(seen.gaps, [{ from: 2, to: 3 }]);
});

test("a process whose beginning is archived begins with a gap", async () => {
  server.add(...range(60, 57));
  const seen = watch();

  await until(() => seen.numbers.length === 4, "the events");

  assert.deepEqual(seen.gaps, [{ from: 1, to: 56 }]);
  assert.deepEqual(seen.numbers, upTo(60, 57));
});

test("a source that is behind is asked again, and nothing is taken for gone", async () => {
  const seen = watch();
  await until(() => server.streams === 1, "the connection");
  server.tell(event(1));
  await until(() => seen.numbers.length === 1, "the first");

  server.say(asMessage(event(4)));
  setTimeout(() => server.add(event(2)), 30);
  setTimeout(() => server.add(event(3), event(4)), 60);

  await until(() => seen.numbers.length === 4, "the events");
  assert.deepEqual(seen.numbers, upTo(4));
  assert.deepEqual(seen.gaps, []);
});

test("after a lost connection nothing is missing and nothing comes twice", async () => {
  const seen = watch();
  for (const number of upTo(30)) {
    server.add(event(number));
    server.say(asMessage(event(number)));
    if (number % 5 === 0) {
      server.hangUp();
    }
    await new Promise((done) => setTimeout(done, 2));
  }

  await until(() => seen.numbers.length === 30, "the events");
  assert.deepEqual(seen.numbers, upTo(30));
  assert.ok(seen.states.includes("waiting"));
});

test("a connection that breaks in the middle of an event hands out no half", async () => {
  const seen = watch();
  await until(() => server.streams === 1, "the connection");
  server.add(event(1));
  server.say(asMessage(event(1)).slice(0, -30));

  server.hangUp();

  await until(() => seen.numbers.length === 1, "the event");
  assert.deepEqual(seen.events, [event(1)]);
});

test("a server that is away is tried again, ever more seldom, until it is back", async () => {
  const times = [];
  server.trouble = (asked, response) => {
    times.push(performance.now());
    if (times.length <= 6) {
      problem(response, 503, "Busy");
    }
    return times.length <= 6;
  };
  server.add(...range(2));

  const seen = watch({ backoff: { first: 20, longest: 10_000 } });

  await until(() => seen.numbers.length === 2, "the events");
  const pauses = times.slice(1).map((time, place) => time - times[place]);
  assert.equal(pauses.length, 6);
  assert.ok(pauses[5] > 4 * pauses[0], String(pauses));
});

test("what was missed in many pages arrives whole", async () => {
  server.add(...range(1230));
  server.trouble = (asked, response) => {
    if (asked.path === "/stream" && server.count("/stream") === 1) {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.end(asMessage(event(1230)));
      return true;
    }
    return false;
  };

  const seen = watch();

  await until(() => seen.numbers.length === 1230, "the events");
  assert.deepEqual(seen.numbers, upTo(1230));
  assert.equal(server.count("/events"), 3);
});

test("a silent connection is given up", async () => {
  server.add(event(1));
  const seen = watch({ silence: 40 });
  await until(() => seen.numbers.length === 1, "the first");

  await until(() => server.count("/stream") >= 2, "another try");

  assert.ok(seen.states.includes("waiting"));
  assert.deepEqual(seen.numbers, [1]);
});

test("heartbeats keep a quiet connection", async () => {
  const seen = watch({ silence: 100 });
  await until(() => server.streams === 1, "the connection");

  for (let beat = 0; beat < 15; beat++) {
    server.say(": heartbeat\n\n");
    await new Promise((done) => setTimeout(done, 20));
  }

  assert.deepEqual(seen.states, ["connecting", "live"]);
});

test("a stream that the server ends is begun again", async () => {
  const seen = watch();
  await until(() => server.streams === 1, "the connection");
  server.tell(event(1));

  server.say("event: end\ndata: restart\n\n");

  await until(() => server.count("/stream") === 2, "another try");
  server.tell(event(2));
  await until(() => seen.numbers.length === 2, "the next");
});

test("a slow reader gets every event, one after the other", async () => {
  let busy = 0;
  const numbers = [];
  server.add(...range(20));
  watch({
    onEvent: async (one) => {
      assert.equal(busy++, 0);
      await new Promise((done) => setTimeout(done, 3));
      busy--;
      numbers.push(one.event_sequence);
    },
  });

  await until(() => numbers.length === 20, "the events");
  assert.deepEqual(numbers, upTo(20));
});

test("a reader that stumbles over an event gets the next one", async (context) => {
  const thrown = [];
  const listeners = process.listeners("uncaughtException");
  process.removeAllListeners("uncaughtException");
  process.once("uncaughtException", (error) => thrown.push(error.message));
  context.after(() => listeners.forEach((one) => process.on("uncaughtException", one)));
  server.add(...range(3));
  const numbers = [];

  watch({
    onEvent: (one) => {
      numbers.push(one.event_sequence);
      if (one.event_sequence === 2) {
        throw new Error("theirs");
      }
    },
  });

  await until(() => numbers.length === 3 && thrown.length === 1, "the events");
  assert.deepEqual(thrown, ["theirs"]);
});

test("nothing is handed out after closing", async () => {
  server.add(...range(2));
  const seen = watch();
  await until(() => seen.numbers.length === 2, "the events");

  seen.stream.close();
  server.tell(event(3));
  await seen.stream.finished;

  assert.deepEqual(seen.numbers, [1, 2]);
  assert.equal(seen.states.at(-1), "closed");
  await until(() => server.streams === 0, "the end of the connection");
});

test("a signal closes as well, before the first question or later", async () => {
  const control = new AbortController();
  const seen = watch({ signal: control.signal });
  await until(() => server.streams === 1, "the connection");
  const never = watch({ signal: AbortSignal.abort() });

  control.abort();

  await Promise.all([seen.stream.finished, never.stream.finished]);
  assert.equal(seen.stream.state.name, "closed");
  assert.equal(server.count("/stream"), 1);
});

test("it closes by itself after the event that is waited for", async () => {
  server.add(event(1), event(2, "process_error", { error_type: "recoverable" }), event(3, "process_completed"), event(4));

  const seen = watch({ until: isOver });

  await seen.stream.finished;
  assert.deepEqual(seen.numbers, [1, 2, 3]);
});

for (const status of [400, 403, 404, 409, 422]) {
  test(`no further try follows ${status}`, async () => {
    server.trouble = (asked, response) => {
      problem(response, status, "No");
      return true;
    };

    const seen = watch();

    await seen.stream.finished;
    assert.equal(seen.stream.state.name, "closed");
    assert.ok(seen.stream.state.error instanceof Refused);
    assert.equal(seen.stream.state.error.status, status);
    assert.match(seen.stream.state.error.message, /No: said the test/);
    assert.equal(server.requests.length, 1);
  });
}

test("a token that is refused ends the stream", async () => {
  server.token = "good";

  const seen = watch({ token: "bad" });

  await seen.stream.finished;
  assert.equal(seen.stream.state.error.status, 401);
});

test("a token is asked for anew when it is not good any more", async () => {
  server.token = "first";
  let asked = 0;
  const seen = watch({ token: async () => (asked++ === 0 ? "first" : "second") });
  await until(() => server.streams === 1, "the connection");
  server.token = "second";
  server.tell(event(1));
  server.hangUp();
  server.tell(event(2));

  await until(() => seen.numbers.length === 2, "the events");
  assert.deepEqual(seen.numbers, [1, 2]);
});

test("what one has read is acknowledged", async () => {
  server.add(...range(4));
  const seen = watch({ headers: { "X-CSRF-Token": "t" } });
  await until(() => seen.numbers.length === 4, "the events");

  await seen.stream.acknowledge();
  await seen.stream.acknowledge(2);

  const said = server.requests.filter((one) => one.path === "/acknowledge");
  assert.deepEqual(said.map((one) => JSON.parse(one.body)), [{ sequence: 4 }, { sequence: 2 }]);
  assert.equal(said[0].headers["x-csrf-token"], "t");
});

test("waking ends a long wait", async () => {
  server.trouble = (asked, response) => {
    problem(response, 503, "Busy");
    return true;
  };
  const seen = watch({ backoff: { first: 60_000 } });
  await until(() => seen.states.includes("waiting"), "the wait");
  server.trouble = () => false;
  server.add(event(1));

  seen.stream.wake();

  await until(() => seen.numbers.length === 1, "the event");
});

test("waking while an attempt fails is not forgotten", async () => {
  let fail;
  server.trouble = (asked, response) => {
    fail = () => problem(response, 503, "Busy");
    return server.count("/stream") === 1;
  };
  const seen = watch({ backoff: { first: 60_000 } });
  await until(() => fail !== undefined, "the first try");
  server.add(event(1));

  seen.stream.wake();
  fail();

  await until(() => seen.numbers.length === 1, "the event");
});

test("waking finds what a connection that is dead has not brought, and makes a new one", async () => {
  const seen = watch();
  await until(() => server.streams === 1, "the connection");
  server.add(event(1)); // and not told

  seen.stream.wake();

  await until(() => seen.numbers.length === 1 && server.count("/stream") === 2, "the event and a new connection");
  assert.ok(!seen.states.includes("waiting"));
});

test("a page that is looked at again, or back in the network, looks at once", async (context) => {
  const page = new EventTarget();
  page.visibilityState = "visible";
  globalThis.document = page;
  globalThis.window = new EventTarget();
  context.after(() => {
    delete globalThis.document;
    delete globalThis.window;
  });
  server.trouble = (asked, response) => {
    problem(response, 503, "Busy");
    return true;
  };
  const seen = watch({ backoff: { first: 60_000 } });
  await until(() => seen.stream.state.name === "waiting", "the wait");

  page.dispatchEvent(new Event("visibilitychange"));
  await until(() => server.requests.length === 2, "the second try");
  await until(() => seen.stream.state.name === "waiting", "the wait");
  window.dispatchEvent(new Event("online"));
  await until(() => server.requests.length === 3, "the third try");
  await until(() => seen.stream.state.name === "waiting", "the wait");
  page.visibilityState = "hidden";
  page.dispatchEvent(new Event("visibilitychange"));
  await new Promise((done) => setTimeout(done, 50));
  assert.equal(server.requests.length, 3);
});

test("an answer that is no stream is not taken for one", async () => {
  server.trouble = (asked, response) => {
    if (server.requests.length > 1) {
      return false;
    }
    response.writeHead(200, { "content-type": "text/html" });
    response.end("<!DOCTYPE html>");
    return true;
  };
  server.add(event(1));

  const seen = watch();

  await until(() => seen.numbers.length === 1, "the event");
  assert.deepEqual(seen.states, ["connecting", "waiting", "connecting", "live"]);
});
