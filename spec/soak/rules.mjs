// SPDX-FileCopyrightText: The mooring authors
// SPDX-License-Identifier: Apache-2.0
//
// What a client may see, and when. Everything else is a violation.
//
// A request:  { kind, replica, start, end, session? }  (ms)
//   kind     open      initialize
//            ready     notifications/initialized
//            use       a tool call; `stream` and `notify` are ones, too
//            listen    a GET stream; its end is an answer of its own: `cut`
//            delete    DELETE
//            gone      a tool call after the DELETE
//            unknown   a tool call with an id that nobody has issued
//   session  { backend, opened, count, lost }: the name of its backend, when it
//            was opened, the last count it was told, calls of unknown outcome
// An answer:  { status, server?, count?, code?, error?, worker? }
//   code     of the JSON-RPC error; error: the connection failed or was cut
// A window:   { kind, from, to?, replica?, backend?, worker? }  to: when it was
//             over, absent while it is not
//   redis    Redis cannot be reached           backend  it was restarted
//   lost     Redis lost its data               kill     a worker was killed
//
// The rules are those of DESIGN and README, "When things break". A reload opens
// no window: nothing may be seen of it.

const RECOVERY = 5000; // ms after Redis is back: connections come with back-off
const SETTLING = 2000; // ms after a death: what was in flight is answered

const NO_STORE = -32050;
const NO_SESSION = -32001;

const overlaps = (request, window, grace = 0) =>
  request.end >= window.from
  && request.start <= (window.to ?? Infinity) + grace;

/** What is to be seen when nothing fails: a text when the answer is wrong. */
function wrong({ kind, session }, { status, server, count, code, error }) {
  if (error) return `failed: ${error}`;
  switch (kind) {
    case "open":
      return status === 200 ? undefined : `status ${status}`;
    case "ready":
      return status === 202 ? undefined : `status ${status}`;
    case "delete":
    case "listen":
      return status === 200 ? undefined : `status ${status}`;
    case "cut":
      return "the stream was cut";
    case "gone":
      return status === 404 ? undefined : `status ${status}`;
    case "unknown":
      return status === 404 && code === NO_SESSION ? undefined
        : `status ${status}, code ${code}`;
    default:
      break;
  }
  if (status !== 200) return `status ${status}`;
  if (server !== session.backend) {
    return `answered by ${server} instead of ${session.backend}`;
  }
  if (count === undefined) return undefined;
  return count > session.count && count <= session.count + 1 + session.lost
    ? undefined : `count ${count} after ${session.count}, ${session.lost} lost`;
}

const isAnsweredElsewhere = (request, answer) =>
  request.session && answer.status === 200 && answer.server !== undefined
  && answer.server !== request.session.backend;

const excuses = {
  redis: (request, answer, window) =>
    overlaps(request, window, RECOVERY)
    && answer.status === 503 && answer.code === NO_STORE,

  lost: (request, answer, window) =>
    answer.status === 404 && request.session
    && request.session.opened <= (window.to ?? Infinity)
    && request.end >= window.from,

  // Its sessions are over; others see nothing of it.
  backend(request, answer, window) {
    if (request.kind === "open") {
      return overlaps(request, window, SETTLING)
        && [502, 504].includes(answer.status);
    }
    const { session } = request;
    return session?.backend === window.backend
      && session.opened <= (window.to ?? Infinity)
      && request.end >= window.from
      && (request.kind === "cut" || answer.error !== undefined
          || [404, 502, 504].includes(answer.status));
  },

  // initialize and DELETE pass through two workers: the other one answers.
  kill(request, answer, window) {
    if (request.replica !== window.replica || !overlaps(request, window)) {
      return false;
    }
    if (["open", "delete"].includes(request.kind)
        && [502, 504].includes(answer.status)) {
      return true;
    }
    return (answer.worker === undefined || answer.worker === window.worker)
      && (request.kind === "cut" || answer.error !== undefined);
  },
};

/**
 * Judges an answer.
 * @returns {ok: true}, {ok: true, excuse: kind of the window} or {ok: false, why}
 */
export function judge(request, answer, windows) {
  const why = wrong(request, answer);
  if (why === undefined) return { ok: true };
  if (!isAnsweredElsewhere(request, answer)) {
    const window = windows.find((w) => excuses[w.kind](request, answer, w));
    if (window) return { ok: true, excuse: window.kind };
  }
  return { ok: false, why };
}
