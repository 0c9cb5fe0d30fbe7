// A web app that knows nothing of the API but its description: api.ts is generated from that, and tsc holds every
// path, parameter, body and answer below to it.
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

type Problem = components["schemas"]["ProblemDocument"];
type Task = components["schemas"]["Task"];

declare const process: { argv: string[] };
const [url = "", email = "", password = "", missing = ""] = process.argv.slice(2);

function sure<T>(answer: { data?: T; error?: Problem }): T {
  if (answer.data === undefined) throw new Error(JSON.stringify(answer.error));
  return answer.data;
}

const nobody = createClient<paths>({ baseUrl: url });
const tokens = sure(await nobody.POST("/api/v1/auth/login", { body: { email, password } }));
const api = createClient<paths>({ baseUrl: url, headers: { Authorization: `Bearer ${tokens.access_token}` } });

const task: Task = sure(
  await api.POST("/api/v1/tasks", {
    params: { header: { "Idempotency-Key": "generated-client" } },
    body: { kind: "calendar.sync_now", payload: { wait: 1 }, priority: 3 },
  }),
);
const processes = sure(await api.GET("/api/v1/processes", { params: { query: { state: ["pending"], limit: 5 } } }));
const events = sure(
  await api.GET("/api/v1/processes/{process_id}/events", {
    params: { path: { process_id: task.task_id }, query: { since_sequence: 0 } },
  }),
);
const nothing = await api.GET("/api/v1/tasks/{task_id}", { params: { path: { task_id: missing } } });
const problem: Problem | undefined = nothing.error;

// @ts-expect-error: what the API would refuse does not compile
const unfit = await api.POST("/api/v1/tasks", { body: { kind: "calendar.sync_now", priority: "urgent" } });
const refused: Problem | undefined = unfit.error;

console.log(
  JSON.stringify({
    task: { id: task.task_id, status: task.status },
    processes: processes.items.map((one) => ({ id: one.process_id, state: one.state, title: one.title })),
    events: events.items.map((one) => `${one.event_sequence} ${one.event_type}`),
    problem: { status: problem?.status, title: problem?.title },
    refused: { status: refused?.status, field: refused?.errors?.[0]?.loc },
  }),
);
