import { type SupabaseLike } from "./shared.js";
import { ProcessStream } from "./stream.js";
import { type TokenSource, type WatchOptions } from "./types.js";
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
/** Follow a process over Supabase: Realtime rings, and what is new is read from the table. */
export declare function watchProcessOnSupabase(options: SupabaseOptions): ProcessStream;
