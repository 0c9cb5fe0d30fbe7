import type { Doorbell } from "./realtime.js";
/** What is used of a client of supabase-js, which may be any version 2. */
export interface SupabaseLike {
    channel(topic: string, options: {
        config: {
            private: boolean;
        };
    }): ChannelLike;
    removeChannel(channel: never): Promise<unknown>;
    readonly realtime: {
        setAuth(token?: string): unknown;
    };
}
export interface ChannelLike {
    on(kind: "broadcast", filter: {
        event: string;
    }, hear: (message: {
        event: string;
        payload?: unknown;
    }) => void): unknown;
    subscribe(told: (status: string, error?: Error) => void): unknown;
}
/**
 * The connection that a web app has already, by its own supabase-js. A client has one channel a topic, so all streams
 * of a client share one.
 */
export declare function supabaseDoorbell(client: SupabaseLike, topic: string): Doorbell;
