import type { Doorbell, Ring } from "./realtime.js";

/** What is used of a client of supabase-js, which may be any version 2. */
export interface SupabaseLike {
  channel(topic: string, options: { config: { private: boolean } }): ChannelLike;
  removeChannel(channel: never): Promise<unknown>;
  readonly realtime: { setAuth(token?: string): unknown };
}

export interface ChannelLike {
  on(
    kind: "broadcast",
    filter: { event: string },
    hear: (message: { event: string; payload?: unknown }) => void,
  ): unknown;
  subscribe(told: (status: string, error?: Error) => void): unknown;
}

interface Hearer {
  joined: () => void;
  ring: (ring: Ring) => void;
  reject: (error: Error) => void;
}

const bells = new WeakMap<SupabaseLike, Map<string, SharedBell>>();

/**
 * The connection that a web app has already, by its own supabase-js. A client has one channel a topic, so all streams
 * of a client share one.
 */
export function supabaseDoorbell(client: SupabaseLike, topic: string): Doorbell {
  return (hear, signal) =>
    new Promise<void>((resolve, reject) => {
      const ofClient = bells.get(client) ?? new Map<string, SharedBell>();
      bells.set(client, ofClient);
      const bell = ofClient.get(topic) ?? new SharedBell(client, topic);
      ofClient.set(topic, bell);
      const hearer: Hearer = { ...hear, reject };
      signal.addEventListener("abort", () => {
        bell.leave(hearer);
        resolve();
      });
      if (signal.aborted) {
        resolve();
      } else {
        bell.enter(hearer);
      }
    });
}

class SharedBell {
  readonly #hearers = new Set<Hearer>();
  #channel: ChannelLike | null = null;
  #joined = false;
  #broken = false;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly client: SupabaseLike,
    private readonly topic: string,
  ) {}

  enter(hearer: Hearer): void {
    this.#hearers.add(hearer);
    if (this.#joined) {
      hearer.joined();
    }
    this.#next();
  }

  leave(hearer: Hearer): void {
    this.#hearers.delete(hearer);
    this.#next();
  }

  /** One after the other: a channel that is being removed is still the client's channel of the topic. */
  #next(): void {
    this.#turn = this.#turn.then(() => this.#settle()).catch((error: unknown) => this.#fail(error));
  }

  async #settle(): Promise<void> {
    if (this.#channel && (this.#hearers.size === 0 || this.#broken)) {
      const leaving = this.#channel;
      this.#channel = null;
      this.#joined = this.#broken = false;
      await this.client.removeChannel(leaving as never);
    }
    if (this.#hearers.size > 0 && !this.#channel) {
      await this.client.realtime.setAuth();
      const channel = this.client.channel(this.topic, { config: { private: true } });
      this.#channel = channel;
      channel.on("broadcast", { event: "*" }, (message) => {
        const ring = { event: message.event, payload: (message.payload ?? {}) as Record<string, unknown> };
        for (const hearer of [...this.#hearers]) {
          hearer.ring(ring);
        }
      });
      channel.subscribe((status, error) => this.#told(channel, status, error));
    }
  }

  #told(channel: ChannelLike, status: string, error?: Error): void {
    if (channel !== this.#channel) {
      return;
    }
    if (status === "SUBSCRIBED") {
      this.#joined = true;
      for (const hearer of [...this.#hearers]) {
        hearer.joined();
      }
    } else {
      this.#fail(error ?? new Error(`Realtime: ${status}`));
    }
  }

  /** Everybody has to come again; the channel goes with the last of them. */
  #fail(error: unknown): void {
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
