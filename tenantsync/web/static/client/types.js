/** No further try can help: the request is wrong, or not allowed. */
export class Refused extends Error {
    status;
    name = "Refused";
    constructor(message, status) {
        super(message);
        this.status = status;
    }
}
/** Whether a process has come to its end with this event. */
export function isOver(event) {
    return (event.event_type === "process_completed" ||
        event.event_type === "process_cancelled" ||
        (event.event_type === "process_error" && event.event_data["error_type"] !== "recoverable"));
}
