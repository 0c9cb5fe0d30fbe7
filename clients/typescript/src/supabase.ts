import { sleep } from "./backoff.js";
import { realtimeDoorbell, type Doorbell, type Ring } from "./realtime.js";
import { supabaseDoorbell, type SupabaseLike } from "./shared.js";
import { ProcessStream, type Feed, type Hooks } from "./stream.js";
import { Refused, type ProcessEvent, type TokenSource, type WatchOptions } from "./types.js";

export interface SupabaseOptions extends WatchOptions {
  /** Of the Supabase project. */
  readonly url: string;
  /** Its publishable key. */
  readonly apikey: string;
  /** The signed-in member's access token. */
  readonly token: TokenSource;
  readonly tenantId: string;
  /** A client of supabase-js whose connection is used; without it, one of our own is made. */
  readonly client?: SupabaseLike;
  readonly WebSocket?: typeof WebSocket;
  /** Milliseconds between two looks without a ring, because Realtime promises no delivery. */
  readonly lookEvery?: number;
}

const PAGE = 500;
const LOOK = 30_000;
const COLUMNS =
  "id,process_id,event_type,event_sequence:sequence,event_category,event_priority,event_source,created_at,event_data";

/** Follow a process over Supabase: Realtime rings, and what is new is read from the table. */
export function watchProcessOnSupabase(options: SupabaseOptions): ProcessStream {
  return new ProcessStream(new SupabaseFeed(options), options);
}

class SupabaseFeed implements Feed {
  readonly #options: SupabaseOptions;
  readonly #fetch: typeof fetch;
  readonly #doorbell: Doorbell;

  constructor(options: SupabaseOptions) {
    this.#options = options;
    this.#fetch = options.fetch ?? fetch.bind(globalThis);
    const topic = `tenant:${options.tenantId}`;
    const own = { url: options.url, apikey: options.apikey, token: () => this.#token(), topic };
    this.#doorbell = options.client
      ? supabaseDoorbell(options.client, topic)
      : realtimeDoorbell(options.WebSocket ? { ...own, WebSocket: options.WebSocket } : own);
  }

  async #token(): Promise<string> {
    return typeof this.#options.token === "function" ? this.#options.token() : this.#options.token;
  }

  async after(sequence: number, signal: AbortSignal): Promise<{ events: ProcessEvent[]; more: boolean }> {
    const query = new URLSearchParams({
      select: COLUMNS,
      process_id: `eq.${this.#options.processId}`,
      sequence: `gt.${sequence}`,
      order: "sequence",
      limit: String(PAGE),
    });
    const headers = { apikey: this.#options.apikey, Authorization: `Bearer ${await this.#token()}` };
    const root = this.#options.url.replace(/\/+$/, "");
    const answer = await this.#fetch(`${root}/rest/v1/process_events?${query.toString()}`, {
      headers,
      signal,
      redirect: "error", // the keys are for this address alone
    });
    if (!answer.ok) {
      const told = `Supabase answered ${answer.status}`;
      const staticToken = typeof this.#options.token !== "function";
      throw answer.status === 401 && staticToken ? new Refused(told, 401) : new Error(told);
    }
    const events = (await answer.json()) as ProcessEvent[];
    return { events, more: events.length === PAGE };
  }

  async listen(sequence: number, hooks: Hooks, signal: AbortSignal): Promise<void> {
    await hooks.ring(); // although Realtime may be away
    const over = new AbortController();
    const stop = (): void => over.abort();
    signal.addEventListener("abort", stop);
    let failure: unknown;
    const look = (upTo?: number): void => {
      hooks.ring(upTo).catch((error: unknown) => {
        failure ??= error;
        stop();
      });
    };
    let known = sequence;
    const ring = (heard: Ring): void => {
      const { process_id: process, sequence: told } = heard.payload as { process_id?: unknown; sequence?: unknown };
      if (heard.event === "process_events" && process === this.#options.processId && Number(told) > known) {
        known = Number(told);
        look(known);
      }
    };
    const joined = (): void => {
      hooks.open();
      look(); // for what rang while nobody listened
    };
    const looking = this.#lookAgain(look, over.signal);
    try {
      await this.#doorbell({ joined, ring }, over.signal);
    } finally {
      stop();
      signal.removeEventListener("abort", stop);
      await looking;
    }
    if (failure !== undefined) {
      throw failure;
    }
  }

  async #lookAgain(look: () => void, signal: AbortSignal): Promise<void> {
    for (;;) {
      await sleep(this.#options.lookEvery ?? LOOK, signal);
      if (signal.aborted) {
        return;
      }
      look();
    }
  }
}
