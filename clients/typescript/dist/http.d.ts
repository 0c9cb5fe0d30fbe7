import { ProcessStream } from "./stream.js";
import { type TokenSource, type WatchOptions } from "./types.js";
export interface HttpOptions extends WatchOptions {
    /** Of the Tenantsync server, for instance `https://sync.example.com`; in one of its own pages, `location.origin`. */
    readonly baseUrl: string;
    /** Sent as a bearer token. A page of Tenantsync itself needs none: its cookie goes along. */
    readonly token?: TokenSource;
    /** Sent along with every request. */
    readonly headers?: Readonly<Record<string, string>>;
    readonly credentials?: RequestCredentials;
    /** Milliseconds without a word, heartbeats included, after which a connection counts as lost. */
    readonly silence?: number;
}
/** Follow a process over the HTTP API: server-sent events, and what was missed by asking for it. */
export declare function watchProcess(options: HttpOptions): ProcessStream;
