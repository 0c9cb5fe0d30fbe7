import { type ProcessEvent, type StreamState, type WatchOptions } from "./types.js";
/** Where events come from. */
export interface Feed {
    /** Events after a number, in order; `more` if that was not all of them. */
    after(sequence: number, signal: AbortSignal): Promise<{
        events: ProcessEvent[];
        more: boolean;
    }>;
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
/**
 * One reader of one process. Every event is handed out once and in the order of its number: what comes twice is
 * dropped, and where a number is missing it is fetched before anything later is handed out.
 */
export declare class ProcessStream {
    #private;
    constructor(feed: Feed, options: WatchOptions);
    /** The number of the last event that was handed out. */
    get position(): number;
    get state(): StreamState;
    /** Resolves when nothing is handed out any more. */
    get finished(): Promise<void>;
    /** End. No event is handed out after this returns, but for one whose `onEvent` is running. */
    close(): void;
    /** Look at once for what was missed: instead of waiting for the next try, or to make sure of a live connection. */
    wake(): void;
    /** Tell the server up to where one has read: by default up to the last event handed out. */
    acknowledge(sequence?: number): Promise<void>;
}
