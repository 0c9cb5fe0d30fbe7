/** What happened in a process. Numbers begin at 1 and have no gaps, but for events that were archived. */
export interface ProcessEvent<Data = Record<string, unknown>> {
  readonly id: string;
  readonly process_id: string;
  readonly event_type: string;
  readonly event_sequence: number;
  readonly event_category: string;
  /** 1 is to be shown first, 10 last. */
  readonly event_priority: number;
  readonly event_source: string;
  /** ISO 8601. */
  readonly created_at: string;
  readonly event_data: Data;
}

/** Events that are not to be had any more: archived, because they were old. */
export interface Gap {
  readonly from: number;
  readonly to: number;
}

export type StreamState =
  /** Asking, or catching up after a connection was made. */
  | { readonly name: "connecting" }
  /** What happens is heard as it happens. */
  | { readonly name: "live" }
  /** Something failed; tried again in so many milliseconds, or as soon as the page is looked at. */
  | { readonly name: "waiting"; readonly error: Error; readonly retryIn: number }
  /** Over: by `close()`, by `until`, or because no further try can help, and then with the reason. */
  | { readonly name: "closed"; readonly error?: Error };

/** Of the caller's token: as it is, or asked for before each attempt. */
export type TokenSource = string | (() => string | Promise<string>);

export interface WatchOptions {
  readonly processId: string;
  /** The number of the last event that one has; 0, the default: from the beginning. */
  readonly since?: number;
  /** Called for every event, once and in order. What it returns is waited for. */
  readonly onEvent: (event: ProcessEvent) => unknown;
  readonly onGap?: (gap: Gap) => unknown;
  readonly onState?: (state: StreamState) => unknown;
  /** The stream closes after the first event for which this is true; `isOver` is one such test. */
  readonly until?: (event: ProcessEvent) => boolean;
  readonly signal?: AbortSignal;
  readonly fetch?: typeof fetch;
  readonly backoff?: BackoffOptions;
}

export interface BackoffOptions {
  /** Milliseconds before the second try. */
  readonly first?: number;
  readonly longest?: number;
}

/** No further try can help: the request is wrong, or not allowed. */
export class Refused extends Error {
  override readonly name = "Refused";
  constructor(
    message: string,
    readonly status?: number,
  ) {
    super(message);
  }
}

/** Whether a process has come to its end with this event. */
export function isOver(event: ProcessEvent): boolean {
  return (
    event.event_type === "process_completed" ||
    event.event_type === "process_cancelled" ||
    (event.event_type === "process_error" && event.event_data["error_type"] !== "recoverable")
  );
}
