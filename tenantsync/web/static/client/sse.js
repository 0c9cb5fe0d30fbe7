/** Characters of one message that are kept; the server's have 256 kB. */
const LARGEST = 4 * 2 ** 20;
/** Reads server-sent events out of text that comes in pieces cut anywhere (HTML, 9.2.6). */
export class Parser {
    #rest = "";
    #event = "";
    #data = [];
    #size = 0;
    #id = "";
    /** The messages that are complete with this piece. */
    *feed(piece) {
        this.#rest += piece;
        for (;;) {
            const end = this.#rest.search(/\r\n|\n|\r(?!$)/);
            if (end < 0) {
                this.#limit(this.#rest.length);
                return;
            }
            const line = this.#rest.slice(0, end);
            this.#rest = this.#rest.slice(end + (this.#rest.startsWith("\r\n", end) ? 2 : 1));
            if (line === "") {
                if (this.#data.length > 0) {
                    yield { event: this.#event || "message", data: this.#data.join("\n"), id: this.#id };
                }
                this.#event = "";
                this.#data = [];
                this.#size = 0;
            }
            else {
                this.#field(line);
            }
        }
    }
    #field(line) {
        const colon = line.indexOf(":");
        const name = colon < 0 ? line : line.slice(0, colon);
        const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
        if (name === "event") {
            this.#event = value;
        }
        else if (name === "data") {
            this.#data.push(value);
            this.#size += value.length + 1;
            this.#limit(this.#size);
        }
        else if (name === "id" && !value.includes("\0")) {
            this.#id = value;
        }
    }
    /** Throws where a message has no end. */
    #limit(size) {
        if (size > LARGEST) {
            throw new Error(`the server sent a message of more than ${LARGEST} characters`);
        }
    }
}
