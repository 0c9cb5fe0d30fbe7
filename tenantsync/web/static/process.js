// Follows a process: its events as they happen, without a gap, and the rest of the page when something has changed.

import { watchProcess } from "./client/http.js";

const list = document.getElementById("events");
const chip = document.getElementById("connection");
const words = JSON.parse(document.getElementById("event-words").textContent);
const MOST = 400;
// As in pages/processes.py.
const TELLING = ["message", "prompt", "reason", "query", "chunk", "html_chunk", "content", "description", "current_step", "step", "status", "name"];
const QUIET = new Set(["heartbeat", "section_chunk"]);
let waiting = 0;

function about(data) {
  for (const name of TELLING) {
    const said = data[name];
    if (typeof said === "string" && said) return (name === "status" ? words.state[said] ?? said : said).slice(0, 400);
  }
  if (typeof data.percentage === "number") return `${data.percentage.toFixed(0)} %`;
  const selected = data.selected?.title ?? data.selected;
  return selected == null ? "" : (typeof selected === "string" ? selected : JSON.stringify(selected)).slice(0, 400);
}

function element(tag, name, text) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  made.textContent = text;
  return made;
}

function show(event) {
  if (list.querySelector(`[data-sequence="${event.event_sequence}"]`)) return;
  const item = element("li", "fresh", "");
  item.dataset.sequence = event.event_sequence;
  const time = element("time", "", String(event.created_at).slice(11, 19));
  time.dateTime = event.created_at;
  item.append(element("span", "seq", event.event_sequence), element("span", "what", words.event[event.event_type] ?? event.event_type), time);
  const text = about(event.event_data ?? {});
  if (text) item.append(element("span", "about", text));
  list.prepend(item);
  while (list.children.length > MOST) list.lastElementChild.remove();
  if (!QUIET.has(event.event_type)) soon();
}

function soon() {
  clearTimeout(waiting);
  waiting = setTimeout(() => document.dispatchEvent(new CustomEvent("stale")), 250);
}

function say(tone, word) {
  chip.hidden = false;
  chip.className = `chip ${tone}`;
  chip.textContent = word;
}

const stream = watchProcess({
  baseUrl: location.origin,
  processId: list.dataset.stream.split("/").at(-2),
  since: Number(list.dataset.last),
  onEvent: show,
  onState: (state) => {
    if (state.name === "live") say("ok", chip.dataset.liveWord);
    else if (state.name === "closed") say("off", chip.dataset.overWord);
    else if (state.name === "waiting") say("wait", chip.dataset.lostWord);
  },
});
addEventListener("online", () => stream.wake());
addEventListener("pagehide", () => stream.close());
document.addEventListener("visibilitychange", () => document.hidden || stream.wake());
