// SPDX-FileCopyrightText: The mooring authors
// SPDX-License-Identifier: Apache-2.0
//
// The demo's MCP clients. Like the driver of the specs it takes commands as
// lines of JSON, here for all sessions at once, and reports progress meanwhile:
//
//   open   { replicas: [url...], count }  sessions, opened through each in turn
//   call   { rounds }    the counter of every session, replicas alternating
//   end    { every }     every n-th session, through another replica than the
//                        one it was opened through
// Every wrong answer counts: another backend's, a count that is not one higher.

import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";

import { Session } from "../fixtures/mcp/client.mjs";

const print = (value) => process.stdout.write(JSON.stringify(value) + "\n");

// A replica may go on believing in an ended session for 2 s (and we are slow).
const PROMISE = 2500;

const all = [];
const tally = { done: 0, wrong: 0 };
let replicas;

function report(session, problem) {
  tally.done++;
  if (problem) {
    tally.wrong++;
    session.wrong++;
    session.problem ??= problem;
  }
  print({ event: "progress", ...tally });
}

/** A session and one client of it per replica: the first one opens it. */
async function openOne(first) {
  const order = replicas.map((_, i) => (first + i) % replicas.length);
  const opener = await new Session({ urls: [replicas[first]] }).open();
  const clients = [];
  for (const i of order) {
    clients[i] = i === first ? opener : await new Session({
      urls: [replicas[i]], session: opener.id,
    }).open();
  }
  const session = {
    id: opener.id, opened: first, clients, count: 0, wrong: 0,
    backend: undefined, calls: replicas.map(() => 0),
  };
  all.push(session);
  report(session);
}

async function callOnce(session, replica) {
  try {
    const { value } = await session.clients[replica].call("counter");
    session.calls[replica]++;
    session.backend ??= value.server;
    session.count++;
    report(session,
      (value.server !== session.backend && `answered by ${value.server}`) ||
      (value.count !== session.count &&
        `count ${value.count} instead of ${session.count}`));
    session.count = value.count;
  } catch (error) {
    report(session, error.message);
  }
}

async function callMany(session, rounds) {
  for (let i = 0; i < rounds; i++) {
    await callOnce(session, (session.opened + i) % replicas.length);
  }
}

/** How long (ms) a replica goes on accepting calls of an ended session. */
async function untilRefused(client) {
  const start = performance.now();
  for (;;) {
    try {
      await client.call("counter");
    } catch (error) {
      if (error.code !== 404) throw error;
      return performance.now() - start;
    }
    if (performance.now() - start > 2 * PROMISE) return Infinity;
    await sleep(20);
  }
}

async function endOne(session) {
  const other = (session.opened + 1) % replicas.length;
  const { id, clients } = session;
  try {
    // A client of its own: after ending it, the others still know the id.
    const ender = await new Session({
      urls: [replicas[other]], session: id,
    }).open();
    await ender.end();
    session.ended = true;
    session.refused = Math.max(...await Promise.all(clients.map(untilRefused)));
    report(session, session.refused > PROMISE &&
      `accepted ${session.refused} ms after its end`);
  } catch (error) {
    report(session, error.message);
  }
}

const operations = {
  async open({ replicas: urls, count }) {
    replicas = urls;
    for (let i = 0; i < count; i++) await openOne(i % urls.length);
  },
  async call({ rounds }) {
    await Promise.all(all.map((session) => callMany(session, rounds)));
  },
  async end({ every }) {
    await Promise.all(all.filter((_, i) => i % every === 0).map(endOne));
  },
  close: () => Promise.all(
    all.flatMap(({ clients }) => clients.map((client) => client.close()))),
};

createInterface({ input: process.stdin }).on("line", async (line) => {
  const { n, op, ...args } = JSON.parse(line);
  Object.assign(tally, { done: 0, wrong: 0 });
  try {
    await operations[op](args);
    const sessions = all.map(({ clients, ...session }) => session);
    print({ n, ok: true, ...tally, sessions });
  } catch (error) {
    print({ n, ok: false, message: String(error.stack ?? error) });
  }
}).on("close", () => process.exit());

print({ ready: true });
