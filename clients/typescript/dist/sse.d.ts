/** A message of a stream of server-sent events. */
export interface Message {
    readonly event: string;
    readonly data: string;
    readonly id: string;
}
/** Reads server-sent events out of text that comes in pieces cut anywhere (HTML, 9.2.6). */
export declare class Parser {
    #private;
    /** The messages that are complete with this piece. */
    feed(piece: string): Generator<Message>;
}
