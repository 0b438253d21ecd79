// Calls to the service. The API key lives in this module's memory and nowhere else.

import { askForKey } from "./key.js";

const TIMEOUT_MS = 60_000;

// Tells "change" when a key has been taken or is needed.
export const lock = new EventTarget();

let key = null;
let needed = false;
let asking = null;

// An answer that is an error (RFC 9457), or none at all. `kind` is the end of its type, such as `no-face`.
export class Problem extends Error {
  constructor(status, body) {
    super(body.title ?? `The service answered with status ${status}`);
    this.status = status;
    this.body = body;
    this.kind = String(body.type ?? "").split(":").pop();
  }
}

export const hasKey = () => key !== null;

export const locked = () => needed && key === null;

// Makes a call and gives {body, etag}. Where the service wants a key, asks for one and calls again, unless `quiet`.
//   json, form: the body; as: "json", "text" or "blob"; headers, signal: as in fetch.
export async function call(method, path, options = {}) {
  for (;;) {
    const used = key;
    try {
      return await send(method, path, options, used);
    } catch (problem) {
      if (problem.kind !== "unauthenticated") throw problem;
      needed = true;
      lock.dispatchEvent(new Event("change"));
      if (options.quiet) throw problem;
      if (key === used) await unlock(problem);
    }
  }
}

// Asks for a key whatever the service wants; throws what was the matter when none is given.
export async function unlock(problem = new Problem(401, { title: "An API key is needed" })) {
  const reason = key === null ? "This service wants an API key." : "The service no longer takes the API key.";
  asking ??= askForKey(reason, refusal).finally(() => (asking = null));
  const given = await asking;
  if (given === null) throw problem;
  key = given;
  lock.dispatchEvent(new Event("change"));
}

export const galleryPath = (gallery) => `v1/galleries/${encodeURIComponent(gallery)}`;

export const personPath = (gallery, person) => `${galleryPath(gallery)}/persons/${encodeURIComponent(person)}`;

// Why a key is not taken, or null where it is.
async function refusal(candidate) {
  try {
    await send("GET", "v1/galleries", {}, candidate);
  } catch (problem) {
    if (problem.kind === "unauthenticated") return "The service does not take this key.";
    if (problem.status === 0 || problem.status === 429) return problem.body.detail ?? problem.message;
  }
  return null;
}

async function send(method, path, options, apiKey) {
  const headers = { ...options.headers };
  if (apiKey !== null) headers["X-API-Key"] = apiKey;
  let body = options.form;
  if (options.json !== undefined) {
    headers["Content-Type"] = "application/json";
    body = JSON.stringify(options.json);
  }
  const limit = AbortSignal.timeout(TIMEOUT_MS);
  const signal = options.signal ? AbortSignal.any([options.signal, limit]) : limit;
  try {
    const answer = await fetch(path, { method, headers, body, signal, cache: "no-store" });
    if (!answer.ok) throw new Problem(answer.status, await answer.json().catch(() => ({})));
    return { body: await answer[options.as ?? "json"](), etag: answer.headers.get("ETag") };
  } catch (error) {
    if (error instanceof Problem || options.signal?.aborted) throw error;
    throw new Problem(0, { title: "The service does not answer", detail: "Is it running, and can it be reached?" });
  }
}
