const FIRST = 250;
const LONGEST = 30_000;
/** Pauses that double, each anywhere between half and all of its length, so that clients do not come back together. */
export class Backoff {
    #next;
    #first;
    #longest;
    constructor(options = {}) {
        this.#first = options.first ?? FIRST;
        this.#longest = options.longest ?? LONGEST;
        this.#next = this.#first;
    }
    pause() {
        const chosen = this.#next * (0.5 + Math.random() / 2);
        this.#next = Math.min(this.#next * 2, this.#longest);
        return Math.round(chosen);
    }
    reset() {
        this.#next = this.#first;
    }
}
/** Resolves after so many milliseconds, or at once when the signal is or gets aborted. */
export function sleep(milliseconds, signal) {
    return new Promise((resolve) => {
        if (signal.aborted) {
            resolve();
            return;
        }
        const done = () => {
            clearTimeout(timer);
            signal.removeEventListener("abort", done);
            resolve();
        };
        const timer = setTimeout(done, milliseconds);
        signal.addEventListener("abort", done);
    });
}
/** A signal that is aborted with the other one, or by hand; `release` forgets the other one. */
export function linked(signal) {
    const own = new AbortController();
    const follow = () => own.abort(signal.reason);
    if (signal.aborted) {
        follow();
    }
    signal.addEventListener("abort", follow);
    return {
        signal: own.signal,
        abort: (why) => own.abort(why),
        release: () => signal.removeEventListener("abort", follow),
    };
}
