/** A ring of the tenant's private topic. */
export interface Ring {
    readonly event: string;
    readonly payload: Readonly<Record<string, unknown>>;
}
/** Where rings are heard until the signal is aborted or the connection ends, which rejects. */
export type Doorbell = (hear: {
    joined: () => void;
    ring: (ring: Ring) => void;
}, signal: AbortSignal) => Promise<void>;
export interface RealtimeOptions {
    /** Of the Supabase project. */
    readonly url: string;
    /** Its publishable key. */
    readonly apikey: string;
    readonly token: () => Promise<string>;
    readonly topic: string;
    /** For Node before 22, whose own there is none: `ws`, for instance. */
    readonly WebSocket?: typeof WebSocket;
}
/** A connection of its own to the project's Realtime. */
export declare function realtimeDoorbell(options: RealtimeOptions): Doorbell;
