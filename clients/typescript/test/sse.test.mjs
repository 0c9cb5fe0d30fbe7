/** Server-sent events, cut anywhere. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Parser } from "../dist/sse.js";

const TEXT = [
  ": comment\n\n",
  "id: 1\ndata: one\n\n",
  "event: end\r\ndata: two\r\ndata:  lines\r\n\r\n",
  "data\n\n",
  "retry: 5\nunknown: field\n\n",
  "id: 3\ndata:three: with colon\n\n",
  "data: never ended\n",
].join("");
const WANTED = [
  { event: "message", data: "one", id: "1" },
  { event: "end", data: "two\n lines", id: "1" },
  { event: "message", data: "", id: "1" },
  { event: "message", data: "three: with colon", id: "3" },
];

test("messages are read out of one piece", () => {
  assert.deepEqual([...new Parser().feed(TEXT)], WANTED);
});

test("messages are read out of pieces cut anywhere", () => {
  for (let size = 1; size < TEXT.length; size++) {
    const parser = new Parser();
    const found = [];
    for (let at = 0; at < TEXT.length; at += size) {
      found.push(...parser.feed(TEXT.slice(at, at + size)));
    }
    assert.deepEqual(found, WANTED, `pieces of ${size}`);
  }
});

test("a message without end is not kept", () => {
  const line = new Parser();
  const lines = new Parser();
  const piece = "x".repeat(65_536);

  assert.throws(() => {
    for (let count = 0; count < 100; count++) {
      [...line.feed(piece)];
    }
  }, /more than 4194304 characters/);
  assert.throws(() => {
    for (let count = 0; count < 100; count++) {
      [...lines.feed(`data: ${piece}\n`)];
    }
  }, /more than 4194304 characters/);
});

test("no text in an event makes another event", () => {
  const text = "a\u2028\u2028data: {}\u2029\u0085\v\f\x1c";

  assert.deepEqual([...new Parser().feed(`data: ${text}\n\n`)], [{ event: "message", data: text, id: "" }]);
});
