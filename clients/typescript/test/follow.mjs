/** Follows a process as its environment says, and prints what comes as lines of JSON. Driven by the Python tests. */

import { watchProcess, watchProcessOnSupabase } from "../dist/index.js";

const options = JSON.parse(process.env.FOLLOW);
const say = (what) => process.stdout.write(JSON.stringify(what) + "\n");
const common = {
  processId: options.processId,
  since: options.since ?? 0,
  backoff: { first: 20, longest: 200 },
  onEvent: (event) => say({ event }),
  onGap: (gap) => say({ gap }),
  onState: (state) => say({ state: state.name, error: state.error?.message }),
};

async function onSupabase() {
  const { default: WebSocket } = await import("ws");
  const own = { ...common, url: options.url, apikey: options.apikey, token: options.token, tenantId: options.tenantId };
  if (!options.js) {
    return [watchProcessOnSupabase({ ...own, WebSocket, lookEvery: options.lookEvery ?? 60_000 })];
  }
  const { createClient } = await import("@supabase/supabase-js");
  const client = createClient(options.url, options.apikey, {
    accessToken: async () => options.token,
    realtime: { transport: WebSocket },
  });
  // two streams on one client share its channel
  const other = { ...own, client, lookEvery: 60_000, onEvent: (event) => say({ other: event }), onState: () => undefined };
  return [watchProcessOnSupabase({ ...own, client, lookEvery: 60_000 }), watchProcessOnSupabase(other)];
}

const streams = options.apikey
  ? await onSupabase()
  : [watchProcess({ ...common, baseUrl: options.url, token: options.token })];

process.stdin.on("data", (data) => {
  for (const word of data.toString().split("\n").filter(Boolean)) {
    if (word === "acknowledge") {
      streams[0].acknowledge().then(() => say({ acknowledged: streams[0].position }));
    } else {
      process.stdin.destroy();
      streams.forEach((stream) => stream.close());
    }
  }
});
await Promise.all(streams.map((stream) => stream.finished));
process.exit(0); // supabase-js keeps timers of its own
