// @supabase/lite 0.10.0 with what keeps it from standing in for a hosted project repaired, without a fork.
// Everything that differs from run to run arrives in LITE_* variables.
import { createPostgresConnection } from "@supabase/lite/postgres";
import { open } from "node:fs/promises";

const { LITE_DATABASE_URL: url, LITE_JWT_SECRET, LITE_PUBLISHABLE_KEY, LITE_SECRET_KEY } = process.env;

// 1. On Node 20 a file's web stream yields ArrayBuffers, which a Response refuses: storage downloads come out empty.
const self = await open(new URL(import.meta.url));
const fileHandle = Object.getPrototypeOf(self);
const readableWebStream = fileHandle.readableWebStream;
fileHandle.readableWebStream = function (options) {
  return readableWebStream.call(this, { type: "bytes", ...options });
};
await self.close();

// 2. lite encodes json arguments of an RPC and the driver then does it again: the function would see a JSON string.
const json = (oid) => ({
  to: oid,
  from: [oid],
  serialize: (value) => (typeof value === "string" ? value : JSON.stringify(value)),
  parse: JSON.parse,
});

// 3. PostgREST answers ISO 8601; PostgreSQL's own text ("2026-11-20 12:38:30+00") is refused by the Python client.
const iso = (text) => (typeof text === "string" ? text.replace(" ", "T").replace(/([+-]\d\d)$/, "$1:00") : text);
const timestamp = (oid) => ({ to: oid, from: [oid], serialize: (value) => value, parse: iso });

const connection = createPostgresConnection({
  url,
  postgresOptions: {
    types: { json: json(114), jsonb: json(3802), timestamp: timestamp(1114), timestamptz: timestamp(1184) },
    max: Number(process.env.LITE_POOL),
    onnotice() {},
    connection: {
      application_name: "supabase-lite",
      statement_timeout: Number(process.env.LITE_STATEMENT_TIMEOUT),
    },
  },
});

// 4. Whether to switch roles is decided at the first request and kept for ever: a table that gets its policies later
// stays open. And when it is decided, every role is granted everything, which hides a missing GRANT that hosted
// Supabase would refuse. hosted.sql makes the roles, so the answer is always yes and nothing is granted.
connection.ensureRlsContext = async () => true;

// 5. The schema cache is never renewed. PostgREST listens on this channel; the triggers of hosted.sql notify it.
// The last argument runs after each (re)connection, when notifications may have been missed.
const reload = () => connection.clearSchemaCache();
await connection.driver.listen("pgrst", reload, reload);

export default {
  connection,
  api: {
    port: Number(process.env.LITE_PORT),
    schemas: process.env.LITE_SCHEMAS.split(","),
    max_rows: 1000,
  },
  db: { driver: "postgres", url },
  auth: {
    enabled: true,
    jwt_secret: LITE_JWT_SECRET,
    jwt_expiry: 3600,
    enable_signup: true,
    publishable_key: LITE_PUBLISHABLE_KEY,
    secret_key: LITE_SECRET_KEY,
    email: { enable_confirmations: false },
  },
  storage: { enabled: true, file_size_limit: "5MiB" },
};
