const bells = new WeakMap();
/**
 * The connection that a web app has already, by its own supabase-js. A client has one channel a topic, so all streams
 * of a client share one.
 */
export function supabaseDoorbell(client, topic) {
    return (hear, signal) => new Promise((resolve, reject) => {
        const ofClient = bells.get(client) ?? new Map();
        bells.set(client, ofClient);
        const bell = ofClient.get(topic) ?? new SharedBell(client, topic);
        ofClient.set(topic, bell);
        const hearer = { ...hear, reject };
        signal.addEventListener("abort", () => {
            bell.leave(hearer);
            resolve();
        });
        if (signal.aborted) {
            resolve();
        }
        else {
            bell.enter(hearer);
        }
    });
}
class SharedBell {
    client;
    topic;
    #hearers = new Set();
    #channel = null;
    #joined = false;
    #broken = false;
    #turn = Promise.resolve();
    constructor(client, topic) {
        this.client = client;
        this.topic = topic;
    }
    enter(hearer) {
        this.#hearers.add(hearer);
        if (this.#joined) {
            hearer.joined();
        }
        this.#next();
    }
    leave(hearer) {
        this.#hearers.delete(hearer);
        this.#next();
    }
    /** One after the other: a channel that is being removed is still the client's channel of the topic. */
    #next() {
        this.#turn = this.#turn.then(() => this.#settle()).catch((error) => this.#fail(error));
    }
    async #settle() {
        if (this.#channel && (this.#hearers.size === 0 || this.#broken)) {
            const leaving = this.#channel;
            this.#channel = null;
            this.#joined = this.#broken = false;
            await this.client.removeChannel(leaving);
        }
        if (this.#hearers.size > 0 && !this.#channel) {
            await this.client.realtime.setAuth();
            const channel = this.client.channel(this.topic, { config: { private: true } });
            this.#channel = channel;
            channel.on("broadcast", { event: "*" }, (message) => {
                const ring = { event: message.event, payload: (message.payload ?? {}) };
                for (const hearer of [...this.#hearers]) {
                    hearer.ring(ring);
                }
            });
            channel.subscribe((status, error) => this.#told(channel, status, error));
        }
    }
    #told(channel, status, error) {
        if (channel !== this.#channel) {
            return;
        }
        if (status === "SUBSCRIBED") {
            this.#joined = true;
            for (const hearer of [...this.#hearers]) {
                hearer.joined();
            }
        }
        else {
            this.#fail(error ?? new Error(`Realtime: ${status}`));
        }
    }
    /** Everybody has to come again; the channel goes with the last of them. */
    #fail(error) {
        const told = error instanceof Error ? error : new Error(String(error));
        const away = [...this.#hearers];
        this.#hearers.clear();
        this.#broken = true;
        this.#next();
        for (const hearer of away) {
            hearer.reject(told);
        }
    }
}
