export { watchProcess, type HttpOptions } from "./http.js";
export { watchProcessOnSupabase, type SupabaseOptions } from "./supabase.js";
export { ProcessStream, type Feed, type Hooks } from "./stream.js";
export { type Doorbell, type Ring } from "./realtime.js";
export { type SupabaseLike } from "./shared.js";
export {
  isOver,
  Refused,
  type BackoffOptions,
  type Gap,
  type ProcessEvent,
  type StreamState,
  type TokenSource,
  type WatchOptions,
} from "./types.js";
