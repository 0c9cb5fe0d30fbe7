import { ProcessStream } from "./stream.js";
import { Parser } from "./sse.js";
import { Refused } from "./types.js";
const PAGE = 500;
const SILENCE = 45_000; // three heartbeats of the server
/** Follow a process over the HTTP API: server-sent events, and what was missed by asking for it. */
export function watchProcess(options) {
    return new ProcessStream(new HttpFeed(options), options);
}
class HttpFeed {
    #options;
    #root;
    #fetch;
    constructor(options) {
        this.#options = options;
        this.#root = `${options.baseUrl.replace(/\/+$/, "")}/api/v1/processes/${encodeURIComponent(options.processId)}`;
        this.#fetch = options.fetch ?? fetch.bind(globalThis);
    }
    async after(sequence, signal) {
        const answer = await this.#ask(`/events?since_sequence=${sequence}&limit=${PAGE}`, { signal });
        const page = (await answer.json());
        return { events: page.items, more: page.next_since !== null };
    }
    async acknowledge(sequence, signal) {
        const headers = { "Content-Type": "application/json" };
        const answer = await this.#ask("/acknowledge", { method: "POST", headers, body: JSON.stringify({ sequence }), signal });
        await answer.arrayBuffer();
    }
    async listen(sequence, hooks, signal) {
        const headers = { Accept: "text/event-stream" };
        if (sequence > 0) {
            headers["Last-Event-ID"] = String(sequence);
        }
        const answer = await this.#ask("/stream", { headers, signal, cache: "no-store" });
        const type = answer.headers.get("content-type") ?? "";
        if (!answer.body || !type.startsWith("text/event-stream")) {
            throw new Error(`the server answered with ${type || "nothing"} instead of a stream`);
        }
        hooks.open();
        const reader = answer.body.getReader();
        try {
            await this.#read(reader, hooks);
        }
        finally {
            await reader.cancel().catch(() => undefined);
        }
    }
    async #read(reader, hooks) {
        const parser = new Parser();
        const decoder = new TextDecoder();
        for (;;) {
            const piece = await within(reader.read(), this.#options.silence ?? SILENCE);
            if (piece.done) {
                throw new Error("the connection ended");
            }
            for (const message of parser.feed(decoder.decode(piece.value, { stream: true }))) {
                if (message.event === "message") {
                    await hooks.event(JSON.parse(message.data));
                }
                else if (message.event === "end") {
                    throw new Error(`the server ended the stream (${message.data})`);
                }
            }
        }
    }
    /** One request; asked once more with a fresh token where the first one is not good any more. */
    async #ask(path, init) {
        let answer = await this.#request(path, init);
        if (answer.status === 401 && typeof this.#options.token === "function") {
            answer = await this.#request(path, init);
            if (answer.status === 401) {
                throw new Error("the token is refused");
            }
        }
        if (answer.ok) {
            return answer;
        }
        const told = await problem(answer);
        if (answer.status >= 400 && answer.status < 500 && answer.status !== 408 && answer.status !== 429) {
            throw new Refused(told, answer.status);
        }
        throw new Error(told);
    }
    async #request(path, init) {
        const headers = new Headers(init.headers);
        for (const [name, value] of Object.entries(this.#options.headers ?? {})) {
            headers.set(name, value);
        }
        const token = typeof this.#options.token === "function" ? await this.#options.token() : this.#options.token;
        if (token) {
            headers.set("Authorization", `Bearer ${token}`);
        }
        const credentials = this.#options.credentials ?? "same-origin";
        return this.#fetch(this.#root + path, { ...init, headers, credentials, redirect: "error" });
    }
}
/** What a problem document says, or the status where there is none. */
async function problem(answer) {
    try {
        const told = (await answer.json());
        return `${answer.status} ${[told.title, told.detail].filter(Boolean).join(": ")}`;
    }
    catch {
        return `${answer.status} ${answer.statusText}`.trim();
    }
}
async function within(work, milliseconds) {
    let timer;
    const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`the server has been silent for ${milliseconds} ms`)), milliseconds);
    });
    try {
        return await Promise.race([work, late]);
    }
    finally {
        clearTimeout(timer);
    }
}
