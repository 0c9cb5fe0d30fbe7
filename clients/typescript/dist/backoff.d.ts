import type { BackoffOptions } from "./types.js";
/** Pauses that double, each anywhere between half and all of its length, so that clients do not come back together. */
export declare class Backoff {
    #private;
    constructor(options?: BackoffOptions);
    pause(): number;
    reset(): void;
}
/** Resolves after so many milliseconds, or at once when the signal is or gets aborted. */
export declare function sleep(milliseconds: number, signal: AbortSignal): Promise<void>;
/** A signal that is aborted with the other one, or by hand; `release` forgets the other one. */
export declare function linked(signal: AbortSignal): {
    signal: AbortSignal;
    abort: (why?: unknown) => void;
    release: () => void;
};
