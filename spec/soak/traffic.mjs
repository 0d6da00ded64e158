// SPDX-FileCopyrightText: The mooring authors
// SPDX-License-Identifier: Apache-2.0
//
// MCP clients that use some replicas for long, and judge every answer they get
// by what is going wrong at the time: see rules.mjs.
//
//   node traffic.mjs
//
// Commands on stdin, one JSON object a line, each answered by one:
//   {op:"start", urls, clients, idle, think}
//        that many clients; `idle` sessions more that are used once in a while;
//        ms between two requests of a client
//   {op:"begin", window:{kind, ...}} -> {window: number}
//   {op:"over", window: number}
//   {op:"counts"} -> {requests, kinds, excused, excused_sum, violated, violations:
//        the first ones}
//   {op:"stop"}   -> the same, when all have ended
//   {op:"judge", request, answer, windows} -> as rules.mjs, for its spec
//
// Every request has a connection of its own: one kept open may be closed by a
// worker that leaves just as the client uses it, which is no error of anybody.

import { randomUUID } from "node:crypto";
import http from "node:http";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";

import { judge } from "./rules.mjs";

const VERSION = "2025-06-18";
const KEPT = 20; // violations that are told in full
const PATIENCE = 20000; // ms for an answer

const now = () => Date.now();
const below = (n) => Math.floor(Math.random() * n);
const chance = (share) => Math.random() < share;

const windows = [];
const counts = {
  requests: 0, kinds: {}, excused: {}, excused_sum: 0, violated: 0, violations: [],
};
let urls = [];
let running = false;

/* ------------------------------------------------------------------ http -- */

function headersOf(id, body) {
  return {
    Accept: "application/json, text/event-stream",
    ...(body && { "Content-Type": "application/json" }),
    ...(id && { "Mcp-Session-Id": id, "MCP-Protocol-Version": VERSION }),
  };
}

/** The last JSON-RPC message with an id, of JSON or of an event stream. */
function parse(text) {
  const messages = text.startsWith("{") ? [text]
    : text.split("\n").filter((l) => l.startsWith("data: "))
      .map((l) => l.slice(6));
  let last;
  for (const message of messages) {
    try {
      const value = JSON.parse(message);
      if (value.id !== undefined || value.error) last = value;
    } catch { /* an empty event */ }
  }
  return last;
}

/**
 * One request. onStart is called with the response of an event stream that
 * shall not be read to its end.
 */
function send(replica, { method = "POST", id, body, onStart }) {
  return new Promise((resolve) => {
    const answer = {};
    const fail = (error) => {
      answer.error = error.code ?? error.message;
      resolve(answer);
    };
    const request = http.request(urls[replica], {
      method, agent: false, headers: headersOf(id, body),
    }, (response) => {
      answer.status = response.statusCode;
      answer.worker = Number(response.headers["x-worker"]) || undefined;
      answer.id = response.headers["mcp-session-id"];
      if (onStart && response.statusCode === 200) {
        onStart(response, request);
        return resolve(answer);
      }
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (chunk) => { text += chunk; });
      response.on("error", fail);
      response.on("end", () => {
        const message = parse(text);
        answer.code = message?.error?.code;
        Object.assign(answer, message?.result?.structuredContent);
        resolve(answer);
      });
    });
    request.setTimeout(PATIENCE, () => request.destroy(new Error("no answer")));
    request.on("error", fail);
    request.end(body && JSON.stringify({ jsonrpc: "2.0", ...body }));
  });
}

/* --------------------------------------------------------------- judging -- */

function record(request, answer) {
  const verdict = judge(request, answer, windows);
  counts.requests++;
  counts.kinds[request.kind] = (counts.kinds[request.kind] ?? 0) + 1;
  if (verdict.excuse) {
    const name = `${verdict.excuse} ${request.kind} ${answer.status ?? "cut"}`;
    counts.excused[name] = (counts.excused[name] ?? 0) + 1;
    counts.excused_sum++;
  }
  if (!verdict.ok) {
    counts.violated++;
    if (counts.violations.length < KEPT) {
      counts.violations.push({ why: verdict.why, request, answer,
        windows: windows.filter((w) => (w.to ?? Infinity) > request.start - 10000) });
    }
  }
  return verdict;
}

/** Sends and judges. @returns the answer, with .fine: as if nothing failed */
async function ask(kind, session, options) {
  const replica = below(urls.length);
  const request = { kind, replica, start: now(),
    session: session && { ...session, id: undefined } };
  const answer = await send(replica, { id: session?.id, ...options });
  request.end = now();
  const verdict = record(request, answer);
  answer.fine = verdict.ok && !verdict.excuse;
  return answer;
}

/* -------------------------------------------------------------- sessions -- */

const call = (name, args = {}) => ({
  id: 1 + below(1e6), method: "tools/call", params: { name, arguments: args },
});

const INITIALIZE = { id: 0, method: "initialize", params: {
  protocolVersion: VERSION, capabilities: {},
  clientInfo: { name: "soak", version: "1" } } };

/** @returns a session that was used once, or undefined */
async function open() {
  const opened = await ask("open", undefined, { body: INITIALIZE });
  if (!opened.fine) return undefined;
  const session = { id: opened.id, opened: now(), count: 0, lost: 0 };
  // Whose it is, its first answer says.
  const replica = below(urls.length);
  const request = { kind: "use", replica, start: now(), session };
  const answer = await send(replica, { id: session.id, body: call("counter") });
  session.backend = answer.server;
  request.end = now();
  if (answer.server === undefined) {
    // While one of them fails, it may have been that one's.
    session.backend = windows.findLast((w) => w.kind === "backend")?.backend;
    record({ ...request, session: { ...session, id: undefined } }, answer);
    return undefined;
  }
  record({ ...request, session: { ...session, id: undefined } }, answer);
  session.count = 1;
  const ready = await ask("ready", session,
    { body: { method: "notifications/initialized" } });
  return ready.fine ? session : undefined;
}

/** @returns whether the session can be used on */
async function use(session) {
  const answer = await ask("use", session, { body: call("counter") });
  if (answer.status === 200 && answer.count !== undefined) {
    session.lost = Math.max(0, session.lost - (answer.count - session.count - 1));
    session.count = answer.count;
    return true;
  }
  session.lost++;
  return answer.status !== 404 && answer.status !== undefined
    ? true : answer.error !== undefined;
}

async function progress(session) {
  const answer = await ask("stream", session,
    { body: call("stream", { events: 3, interval: 30 }) });
  return answer.fine;
}

/** A GET stream, a message on it, and its end by the client. */
async function listen(session) {
  const replica = below(urls.length);
  let stream;
  let ended = false;
  let heard = "";
  const request = { kind: "listen", replica, start: now(),
    session: { ...session, id: undefined } };
  const answer = await send(replica, { method: "GET", id: session.id,
    onStart(response, it) {
      stream = it;
      response.on("data", (chunk) => { heard += chunk; });
      const cut = () => {
        if (ended) return;
        ended = true;
        record({ ...request, kind: "cut", end: now() },
          { worker: answer_worker(response) });
      };
      response.on("error", cut);
      response.on("end", cut);
    } });
  request.end = now();
  const verdict = record(request, answer);
  if (!stream) return verdict.ok && !verdict.excuse;
  const text = randomUUID();
  const told = await ask("notify", session, { body: call("notify", { text }) });
  const patience = now() + PATIENCE;
  while (told.fine && !ended && !heard.includes(text) && now() < patience) {
    await sleep(100);
  }
  const deadline = now() + 2000 + below(8000);
  while (running && !ended && now() < deadline) await sleep(100);
  if (told.fine && !ended && !heard.includes(text)) {
    record({ ...request, kind: "cut", end: now() },
      { worker: answer.worker, status: "not heard" });
  }
  const alive = !ended;
  ended = true;
  stream.destroy();
  return alive;
}

const answer_worker = (response) =>
  Number(response.headers["x-worker"]) || undefined;

async function end(session) {
  const answer = await ask("delete", session, { method: "DELETE" });
  if (answer.fine) await ask("gone", session, { body: call("counter") });
}

const unknown = () =>
  ask("unknown", { id: randomUUID(), count: 0, lost: 0 },
    { body: call("counter") });

/* --------------------------------------------------------------- clients -- */

async function client(think) {
  while (running) {
    const session = await open();
    const uses = 3 + below(60);
    let alive = session !== undefined;
    for (let i = 0; alive && running && i < uses; i++) {
      await sleep(2 * think * Math.random());
      if (chance(0.02)) await unknown();
      if (chance(0.05)) {
        alive = await progress(session);
      } else {
        alive = await use(session);
      }
    }
    if (alive && running && chance(0.3)) alive = await listen(session);
    if (alive && running && chance(0.9)) await end(session);
    if (!session) await sleep(think);
  }
}

/** Sessions that are used seldom: copies of others push them out. */
async function idler(think) {
  await sleep(think * Math.random());
  while (running) {
    const session = await open();
    while (session && running && await use(session)) {
      for (let t = 20 * think; running && t > 0; t -= 200) await sleep(200);
    }
    if (!session) await sleep(think);
  }
}

/* -------------------------------------------------------------- commands -- */

let ended;

const commands = {
  start(options) {
    urls = options.urls;
    running = true;
    const { think = 300, clients = 20, idle = 0 } = options;
    ended = Promise.all([
      ...Array.from({ length: clients }, () => client(think)),
      ...Array.from({ length: idle }, () => idler(think)),
    ]);
  },
  begin({ window }) {
    windows.push({ from: now(), ...window });
    return { window: windows.length - 1 };
  },
  over({ window }) {
    windows[window].to = now();
  },
  counts: () => counts,
  async stop() {
    running = false;
    await ended;
    return counts;
  },
  judge: ({ request, answer, windows: given }) =>
    judge(request, answer, given ?? []),
};

const print = (value) => process.stdout.write(JSON.stringify(value) + "\n");

createInterface({ input: process.stdin })
  .on("line", async (line) => {
    const { n, op, ...rest } = JSON.parse(line);
    print({ n, ...(await commands[op](rest)) });
  })
  .on("close", () => process.exit());

print({ ready: true });
