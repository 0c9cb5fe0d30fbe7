export { watchProcess } from "./http.js";
export { watchProcessOnSupabase } from "./supabase.js";
export { ProcessStream } from "./stream.js";
export {} from "./realtime.js";
export {} from "./shared.js";
export { isOver, Refused, } from "./types.js";
