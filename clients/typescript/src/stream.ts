import { Backoff, linked, sleep } from "./backoff.js";
import { Refused, type ProcessEvent, type StreamState, type WatchOptions } from "./types.js";

/** Where events come from. */
export interface Feed {
  /** Events after a number, in order; `more` if that was not all of them. */
  after(sequence: number, signal: AbortSignal): Promise<{ events: ProcessEvent[]; more: boolean }>;
  /** Hear what happens until it ends, which it always does, or fails. */
  listen(sequence: number, hooks: Hooks, signal: AbortSignal): Promise<void>;
  acknowledge?(sequence: number, signal: AbortSignal): Promise<void>;
}

export interface Hooks {
  /** The connection stands. */
  open(): void;
  /** An event came. To be awaited: only then is it handed out. */
  event(event: ProcessEvent): Promise<void>;
  /** There is something new to fetch, up to a number if that is known. */
  ring(upTo?: number): Promise<void>;
}

/** What a source that is behind is given to catch up: milliseconds between two questions for the same events. */
const PATIENCE = [20, 50, 100, 200, 400, 800, 1600];
/** A connection that stood for so many milliseconds was a good one: what comes after it is new trouble. */
const STEADY = 10_000;

/**
 * One reader of one process. Every event is handed out once and in the order of its number: what comes twice is
 * dropped, and where a number is missing it is fetched before anything later is handed out.
 */
export class ProcessStream {
  readonly #feed: Feed;
  readonly #options: WatchOptions;
  readonly #closing = new AbortController();
  readonly #backoff: Backoff;
  readonly #finished: Promise<void>;
  #position: number;
  #state: StreamState = { name: "connecting" };
  #turn: Promise<unknown> = Promise.resolve();
  #wake: () => void = () => undefined;
  #woken = false;

  constructor(feed: Feed, options: WatchOptions) {
    this.#feed = feed;
    this.#options = options;
    this.#position = options.since ?? 0;
    this.#backoff = new Backoff(options.backoff);
    const close = (): void => this.close();
    options.signal?.addEventListener("abort", close);
    const unwatch = onComeback(() => this.wake());
    this.#finished = this.#run().finally(() => {
      unwatch();
      options.signal?.removeEventListener("abort", close);
    });
    if (options.signal?.aborted) {
      this.close();
    }
  }

  /** The number of the last event that was handed out. */
  get position(): number {
    return this.#position;
  }

  get state(): StreamState {
    return this.#state;
  }

  /** Resolves when nothing is handed out any more. */
  get finished(): Promise<void> {
    return this.#finished;
  }

  /** End. No event is handed out after this returns, but for one whose `onEvent` is running. */
  close(): void {
    this.#closing.abort();
  }

  /** Look at once for what was missed: instead of waiting for the next try, or to make sure of a live connection. */
  wake(): void {
    this.#woken = true;
    this.#wake();
  }

  /** Tell the server up to where one has read: by default up to the last event handed out. */
  async acknowledge(sequence: number = this.#position): Promise<void> {
    if (!this.#feed.acknowledge) {
      throw new Refused("acknowledgements go to the HTTP API; this stream reads from Supabase");
    }
    await this.#feed.acknowledge(sequence, this.#closing.signal);
  }

  async #run(): Promise<void> {
    const closing = this.#closing.signal;
    await Promise.resolve(); // whoever made this has it in hand before the first state is told
    let refusal: Error | undefined;
    while (!closing.aborted) {
      this.#tell({ name: "connecting" });
      this.#woken = false;
      try {
        await this.#listen();
      } catch (error) {
        if (closing.aborted) {
          break;
        }
        if (error instanceof Refused) {
          refusal = error;
          break;
        }
        await this.#wait(error instanceof Error ? error : new Error(String(error)));
      }
    }
    this.#closing.abort();
    await this.#turn.catch(() => undefined);
    this.#tell(refusal ? { name: "closed", error: refusal } : { name: "closed" });
  }

  async #listen(): Promise<void> {
    const attempt = linked(this.#closing.signal);
    const began = performance.now();
    let failure: unknown;
    let renewed = false;
    const fail = (error: unknown): void => {
      failure ??= error;
      attempt.abort();
    };
    const hooks: Hooks = {
      open: () => {
        this.#tell({ name: "live" });
      },
      event: (event) => this.#inTurn(() => this.#take(event, attempt.signal)),
      ring: (upTo = 0) => this.#inTurn(() => this.#catchUpTo(upTo, attempt.signal)),
    };
    const look = async (): Promise<void> => {
      const before = this.#position;
      await hooks.ring();
      if (this.#position > before) {
        renewed = true; // the connection should have brought that: it may be dead without knowing
        attempt.abort();
      }
    };
    this.#wake = () => void look().catch(fail);
    try {
      await this.#feed.listen(this.#position, hooks, attempt.signal);
    } catch (error) {
      if (!renewed) {
        throw failure ?? error;
      }
    } finally {
      this.#wake = () => undefined;
      if (performance.now() - began > STEADY) {
        this.#backoff.reset();
      }
      attempt.abort();
      attempt.release();
    }
    if (failure !== undefined) {
      throw failure;
    }
  }

  async #wait(error: Error): Promise<void> {
    const waiting = linked(this.#closing.signal);
    this.#wake = () => waiting.abort();
    const retryIn = this.#backoff.pause();
    this.#tell({ name: "waiting", error, retryIn });
    if (!this.#woken) {
      // nor after somebody looked while the attempt was failing
      await sleep(retryIn, waiting.signal);
    }
    this.#wake = () => undefined;
    waiting.release();
  }

  /** Nothing is handed out while something else is. */
  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#turn.then(work, work);
    this.#turn = done.catch(() => undefined);
    return done;
  }

  async #take(event: ProcessEvent, signal: AbortSignal): Promise<void> {
    if (event.event_sequence > this.#position + 1) {
      await this.#fill(event.event_sequence, signal);
    } else if (event.event_sequence === this.#position + 1) {
      await this.#hand(event, signal);
    }
  }

  /** Fetch what is missing before a number. A source that is behind is asked again; in the end it is a failure. */
  async #fill(wanted: number, signal: AbortSignal): Promise<void> {
    for (const pause of PATIENCE) {
      await this.#catchUp(signal);
      if (this.#position >= wanted) {
        return;
      }
      await sleep(pause, signal);
      signal.throwIfAborted();
    }
    throw new Error(`event ${this.#position + 1} cannot be had, though ${wanted} was told of`);
  }

  /** Catch up; where the source does not have yet what was told of, ask again for a while. */
  async #catchUpTo(upTo: number, signal: AbortSignal): Promise<void> {
    await this.#catchUp(signal);
    for (const pause of PATIENCE) {
      if (this.#position >= upTo) {
        return;
      }
      await sleep(pause, signal);
      await this.#catchUp(signal);
    }
  }

  async #catchUp(signal: AbortSignal): Promise<void> {
    let more = true;
    while (more) {
      const before = this.#position;
      const found = await this.#feed.after(before, signal);
      for (const event of found.events) {
        if (event.event_sequence > this.#position + 1) {
          // what was asked for has it not: it is gone
          const gap = { from: this.#position + 1, to: event.event_sequence - 1 };
          this.#position = gap.to;
          this.#options.onGap?.(gap);
        }
        if (event.event_sequence === this.#position + 1) {
          await this.#hand(event, signal);
        }
      }
      more = found.more && this.#position > before; // a source that repeats itself has nothing more
    }
  }

  async #hand(event: ProcessEvent, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    this.#position = event.event_sequence;
    this.#backoff.reset();
    try {
      await this.#options.onEvent(event);
    } catch (error) {
      tellLater(error); // theirs, not ours: the stream goes on
    }
    if (this.#options.until?.(event)) {
      this.close();
    }
  }

  #tell(state: StreamState): void {
    if (this.#state.name === "closed" || (this.#state.name === state.name && state.name === "live")) {
      return;
    }
    this.#state = state;
    try {
      this.#options.onState?.(state);
    } catch (error) {
      tellLater(error);
    }
  }
}

function tellLater(error: unknown): void {
  setTimeout(() => {
    throw error;
  });
}

/** In a page: when it is looked at again, and when the network is back. Returns what takes that back. */
function onComeback(look: () => void): () => void {
  if (typeof document === "undefined" || typeof window === "undefined") {
    return () => undefined;
  }
  const seen = (): void => {
    if (document.visibilityState === "visible") {
      look();
    }
  };
  document.addEventListener("visibilitychange", seen);
  window.addEventListener("online", look);
  window.addEventListener("pageshow", look);
  return () => {
    document.removeEventListener("visibilitychange", seen);
    window.removeEventListener("online", look);
    window.removeEventListener("pageshow", look);
  };
}
