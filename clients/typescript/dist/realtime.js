const HEARTBEAT = 25_000;
const JOIN = 10_000;
const EARLY = 30_000; // before a token expires, its successor is handed in
/** A connection of its own to the project's Realtime. */
export function realtimeDoorbell(options) {
    return async (hear, signal) => {
        const token = await options.token();
        signal.throwIfAborted();
        await new Promise((resolve, reject) => new Connection(options, token, hear, { resolve, reject }, signal));
    };
}
class Connection {
    hear;
    settle;
    #socket;
    #topic;
    #options;
    #timers = new Set();
    #ref = 0;
    #unanswered = null;
    #ended = false;
    constructor(options, token, hear, settle, signal) {
        this.hear = hear;
        this.settle = settle;
        this.#options = options;
        this.#topic = `realtime:${options.topic}`;
        const Socket = options.WebSocket ?? globalThis.WebSocket;
        const root = options.url.replace(/^http/, "ws").replace(/\/+$/, "");
        this.#socket = new Socket(`${root}/realtime/v1/websocket?apikey=${encodeURIComponent(options.apikey)}&vsn=1.0.0`);
        signal.addEventListener("abort", () => this.#end());
        this.#socket.onopen = () => this.#join(token);
        this.#socket.onmessage = (message) => this.#hear(String(message.data));
        this.#socket.onerror = () => this.#end(new Error("Realtime cannot be reached"));
        this.#socket.onclose = () => this.#end(new Error("Realtime hung up"));
        this.#after(JOIN, () => this.#end(new Error("Realtime did not answer in time")), "join");
    }
    #joinTimer;
    #after(milliseconds, work, kind) {
        const timer = setTimeout(() => {
            this.#timers.delete(timer);
            work();
        }, milliseconds);
        this.#timers.add(timer);
        if (kind === "join") {
            this.#joinTimer = timer;
        }
    }
    #say(topic, event, payload) {
        const ref = String(++this.#ref);
        this.#socket.send(JSON.stringify({ topic, event, payload, ref, join_ref: topic === "phoenix" ? null : "1" }));
        return ref;
    }
    #join(token) {
        const config = { private: true, broadcast: { ack: false, self: false }, presence: { enabled: false } };
        this.#say(this.#topic, "phx_join", { config, access_token: token });
        this.#after(HEARTBEAT, () => this.#beat());
        this.#renewLater(token);
    }
    #beat() {
        if (this.#unanswered !== null) {
            this.#end(new Error("Realtime does not answer any more"));
            return;
        }
        this.#unanswered = this.#say("phoenix", "heartbeat", {});
        this.#after(HEARTBEAT, () => this.#beat());
    }
    #renewLater(token) {
        const expiry = expiryOf(token);
        if (expiry !== null) {
            const wait = Math.min(Math.max(expiry - Date.now() - EARLY, 1000), 2 ** 31 - 1);
            this.#after(wait, () => void this.#renew().catch(() => undefined)); // the channel closes, and is joined again
        }
    }
    async #renew() {
        const token = await this.#options.token();
        if (!this.#ended) {
            this.#say(this.#topic, "access_token", { access_token: token });
            this.#renewLater(token);
        }
    }
    #hear(data) {
        const told = JSON.parse(data);
        if (told.topic === "phoenix") {
            this.#unanswered = null;
        }
        else if (told.topic === this.#topic) {
            this.#told(told);
        }
    }
    #told(told) {
        if (told.event === "phx_reply" && told.ref === "1") {
            const reply = told.payload;
            clearTimeout(this.#joinTimer);
            if (reply.status === "ok") {
                this.hear.joined();
            }
            else {
                this.#end(new Error(`Realtime refuses the topic: ${reply.response?.reason ?? "no reason given"}`));
            }
        }
        else if (told.event === "broadcast") {
            const ring = told.payload;
            this.hear.ring({ event: ring.event, payload: ring.payload ?? {} });
        }
        else if (told.event === "system" && told.payload["status"] === "error") {
            this.#end(new Error(`Realtime: ${String(told.payload["message"])}`));
        }
        else if (told.event === "phx_close" || told.event === "phx_error") {
            this.#end(new Error("Realtime closed the channel"));
        }
    }
    #end(error) {
        if (this.#ended) {
            return;
        }
        this.#ended = true;
        for (const timer of this.#timers) {
            clearTimeout(timer);
        }
        this.#socket.onclose = null;
        if (this.#socket.readyState <= 1) {
            this.#socket.close(1000);
        }
        if (error) {
            this.settle.reject(error);
        }
        else {
            this.settle.resolve();
        }
    }
}
/** Milliseconds since 1970, or null where the token does not say. */
function expiryOf(token) {
    try {
        const middle = (token.split(".")[1] ?? "").replace(/-/g, "+").replace(/_/g, "/");
        const claims = JSON.parse(atob(middle));
        return typeof claims.exp === "number" ? claims.exp * 1000 : null;
    }
    catch {
        return null;
    }
}
