// The pulse of the serving member: whether it answers, and whether it knows a leader. Without either the state of the
// members is unknown: the page is blind, shows old data, and calls nothing healthy.
import { sleep } from "./dom.js";

const every = 1000,
  hurry = 500,
  patience = 2500; // ms
const listeners = new Set();
const state = { status: null, heard: 0, lost: false, doubt: false };

/** Data that needs no token: {status, heard, lost}. */
export const pulse = () => state;

/** This member knows no leader. */
export const leaderless = () => Boolean(state.status) && !state.status.cluster.leaderNodeId;

/** The state of the members is unknown. */
export const blind = () => state.lost || state.doubt || leaderless();

/** Calls f when blind or the leader may have changed. */
export function whenTurned(f, signal) {
  listeners.add(f);
  signal?.addEventListener("abort", () => listeners.delete(f), { once: true });
}

let was = "";
function turned() {
  const now = [state.lost, state.doubt, state.status?.cluster.leaderNodeId].join();
  document.body.classList.toggle("blind", blind());
  if (now === was) return;
  was = now;
  listeners.forEach((f) => f());
}

/** Records whether reads from the leader fail although this member knows one. */
export function doubt(on) {
  state.doubt = on;
  turned();
}

async function look() {
  const limit = AbortSignal.timeout(patience);
  const r = await fetch("/api/v1/status", {
    cache: "no-store",
    credentials: "omit",
    redirect: "error",
    referrerPolicy: "no-referrer",
    signal: limit,
  });
  if (!r.ok) throw new Error("no status");
  return (await r.json()).result;
}

/** Polls the status; beat() is called after each poll. */
export async function follow(beat) {
  for (let failed = 0; ;) {
    try {
      state.status = await look();
      [state.heard, state.lost, failed] = [Date.now(), false, 0];
    } catch {
      state.lost = ++failed > 1; // one that got lost is no news
    }
    turned();
    beat();
    await sleep(blind() || failed ? hurry : every);
    while (document.hidden) await sleep(500);
  }
}
