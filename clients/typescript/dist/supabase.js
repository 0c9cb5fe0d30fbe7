import { sleep } from "./backoff.js";
import { realtimeDoorbell } from "./realtime.js";
import { supabaseDoorbell } from "./shared.js";
import { ProcessStream } from "./stream.js";
import { Refused } from "./types.js";
const PAGE = 500;
const LOOK = 30_000;
const COLUMNS = "id,process_id,event_type,event_sequence:sequence,event_category,event_priority,event_source,created_at,event_data";
/** Follow a process over Supabase: Realtime rings, and what is new is read from the table. */
export function watchProcessOnSupabase(options) {
    return new ProcessStream(new SupabaseFeed(options), options);
}
class SupabaseFeed {
    #options;
    #fetch;
    #doorbell;
    constructor(options) {
        this.#options = options;
        this.#fetch = options.fetch ?? fetch.bind(globalThis);
        const topic = `tenant:${options.tenantId}`;
        const own = { url: options.url, apikey: options.apikey, token: () => this.#token(), topic };
        this.#doorbell = options.client
            ? supabaseDoorbell(options.client, topic)
            : realtimeDoorbell(options.WebSocket ? { ...own, WebSocket: options.WebSocket } : own);
    }
    async #token() {
        return typeof this.#options.token === "function" ? this.#options.token() : this.#options.token;
    }
    async after(sequence, signal) {
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
        const events = (await answer.json());
        return { events, more: events.length === PAGE };
    }
    async listen(sequence, hooks, signal) {
        await hooks.ring(); // although Realtime may be away
        const over = new AbortController();
        const stop = () => over.abort();
        signal.addEventListener("abort", stop);
        let failure;
        const look = (upTo) => {
            hooks.ring(upTo).catch((error) => {
                failure ??= error;
                stop();
            });
        };
        let known = sequence;
        const ring = (heard) => {
            const { process_id: process, sequence: told } = heard.payload;
            if (heard.event === "process_events" && process === this.#options.processId && Number(told) > known) {
                known = Number(told);
                look(known);
            }
        };
        const joined = () => {
            hooks.open();
            look(); // for what rang while nobody listened
        };
        const looking = this.#lookAgain(look, over.signal);
        try {
            await this.#doorbell({ joined, ring }, over.signal);
        }
        finally {
            stop();
            signal.removeEventListener("abort", stop);
            await looking;
        }
        if (failure !== undefined) {
            throw failure;
        }
    }
    async #lookAgain(look, signal) {
        for (;;) {
            await sleep(this.#options.lookEvery ?? LOOK, signal);
            if (signal.aborted) {
                return;
            }
            look();
        }
    }
}
