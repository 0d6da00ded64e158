// SPDX-FileCopyrightText: The mooring authors
// SPDX-License-Identifier: Apache-2.0
//
// A wire between a replica and Redis that can be made bad: proxy.mjs <socket to
// listen on> <socket of Redis>. What is sent to Redis always passes at once (a
// barrier of the driver relies on it); what Redis sends can be late:
//
//   {"op":"hold"}            pushes: bytes to listener connections are kept
//   {"op":"release"}         ... and now delivered, in order
//   {"op":"cut"}             ... or lost: those connections are closed
//   {"op":"delay","ms":80}   replies: each one to data connections comes late
//
// A listener connection is one that speaks of CLIENT, TRACKING or SUBSCRIBE.
// Every command is answered by {"n":<its n>,"listeners":<how many there are>}.

import net from "node:net";
import readline from "node:readline";

const [listenOn, redis] = process.argv.slice(2);
const LISTENER = /CLIENT|TRACKING|SUBSCRIBE/;

const wires = new Set();
let holding = false;
let delay = 0;

function deliver(wire, chunk) {
  if (!wire.client.destroyed) wire.client.write(chunk);
}

// A reply is late by what `delay` is when it comes, and never overtakes another.
function sendDue(wire) {
  const now = Date.now();
  while (wire.late.length > 0 && wire.late[0].due <= now) {
    deliver(wire, wire.late.shift().chunk);
  }
  if (wire.late.length > 0 && !wire.timer) {
    wire.timer = setTimeout(() => {
      wire.timer = undefined;
      sendDue(wire);
    }, wire.late[0].due - now);
  }
}

function fromRedis(wire, chunk) {
  if (wire.listener && holding) {
    wire.kept.push(chunk);
  } else if (wire.listener) {
    deliver(wire, chunk);
  } else {
    wire.late.push({ chunk, due: Date.now() + delay });
    sendDue(wire);
  }
}

function close(wire) {
  wires.delete(wire);
  wire.client.destroy();
  // Ended, not destroyed: what the client has sent still reaches Redis.
  wire.server.end();
}

const server = net.createServer({ noDelay: true }, (client) => {
  const wire = {
    client, server: net.connect(redis), listener: false,
    kept: [], // of a listener connection, while holding
    late: [], // of a data connection: { chunk, due }
    timer: undefined,
  };
  wires.add(wire);
  client.on("data", (chunk) => {
    if (!wire.listener) wire.listener = LISTENER.test(chunk.toString("latin1"));
    if (!wire.server.destroyed) wire.server.write(chunk);
  });
  wire.server.on("data", (chunk) => fromRedis(wire, chunk));
  for (const end of [client, wire.server]) {
    end.on("error", () => {});
    end.on("close", () => close(wire));
  }
});

const listeners = () => [...wires].filter((wire) => wire.listener);

const OPS = {
  hold() { holding = true; },
  release() {
    holding = false;
    for (const wire of listeners()) {
      for (const chunk of wire.kept) deliver(wire, chunk);
      wire.kept = [];
    }
  },
  cut() {
    holding = false;
    listeners().forEach(close);
  },
  delay(command) { delay = command.ms; },
};

const say = (object) => process.stdout.write(JSON.stringify(object) + "\n");

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const command = JSON.parse(line);
  OPS[command.op](command);
  say({ n: command.n, listeners: listeners().length });
});

server.listen(listenOn, () => say({ ready: true }));
