// SPDX-License-Identifier: Apache-2.0
// The way to the server: one stream of events that comes back by itself, and requests that act.

const KEY = "reflex-key";
const OWN = { "X-Reflex-Page": "1" }; // a page of another site may not send it
const SILENT_MS = 3000; // events come five times a second; after this the picture is old
const ACT_MS = 4000;
const LONGEST_WAIT_MS = 4000;

let key = "";
try {
  key = sessionStorage.getItem(KEY) ?? "";
} catch {
  // a browser may forbid the storage: then the key is typed again after a reload
}

export function setKey(typed) {
  key = typed.trim();
  try {
    sessionStorage.setItem(KEY, key);
  } catch {
    // see above
  }
}

function headers(more = {}) {
  return key ? { ...more, Authorization: `Bearer ${key}` } : more;
}

/** POST a document. Resolves to {ok, status, text}; never rejects. */
export async function act(path, body) {
  try {
    const answer = await fetch(path, {
      method: "POST",
      headers: headers({ "Content-Type": "application/json" }),
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(ACT_MS),
      cache: "no-store",
    });
    const document = await answer.json().catch(() => ({}));
    return { ok: answer.ok, status: answer.status, text: String(document.message ?? "") };
  } catch {
    return { ok: false, status: 0, text: "no connection to the robot" };
  }
}

/**
 * Keep a stream open for as long as the page can be seen.
 * hear(name, document): an event. lost(reason): silence. refused(): the server asks for a key, nothing happens until wake().
 */
export function listen({ hear, lost, refused }) {
  let current = null;
  let wait_ms = 250;
  let timer = 0;

  async function open() {
    clearTimeout(timer);
    current?.abort();
    if (document.hidden) return;
    const mine = new AbortController();
    current = mine;
    let watchdog = setTimeout(() => mine.abort(), SILENT_MS);
    try {
      const answer = await fetch("/events", { headers: headers(OWN), signal: mine.signal, cache: "no-store" });
      if (answer.status === 401) {
        refused();
        return;
      }
      if (!answer.ok) throw new Error((await answer.json()).message);
      await read(answer.body.getReader(), (name, text) => {
        clearTimeout(watchdog);
        watchdog = setTimeout(() => mine.abort(), SILENT_MS);
        wait_ms = 250;
        hear(name, JSON.parse(text));
      });
      throw new Error("");
    } catch (error) {
      if (current !== mine || document.hidden) return;
      lost(mine.signal.aborted || error instanceof TypeError ? "" : error.message);
      timer = setTimeout(open, wait_ms);
      wait_ms = Math.min(2 * wait_ms, LONGEST_WAIT_MS);
    } finally {
      clearTimeout(watchdog);
    }
  }

  document.addEventListener("visibilitychange", () => (document.hidden ? current?.abort() : open()));
  window.addEventListener("online", open);
  open();
  return { wake: open };
}

/** Server-sent events as they are written by this server: an `event:` line, one `data:` line, an empty line. */
async function read(reader, heard) {
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + decoder.decode(value, { stream: true })).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const found = /^event: (\w+)\ndata: (.*)$/s.exec(part);
      if (found) heard(found[1], found[2]);
    }
  }
}
