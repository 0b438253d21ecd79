// Live figures, read every few seconds while the page is looked at.

import { call, locked } from "./api.js";
import { byId } from "./dom.js";
import { count, counted, milliseconds, share } from "./format.js";
import { buckets, parse, quantile, total } from "./metrics.js";
import { chosenGallery, refresh, session } from "./session.js";

const EVERY_MS = 4000;
// Over less than this a rate says nothing.
const RATE_OVER_MS = 3000;
const PICTURE_ROUTES = new Set([
  "/identify", "/enroll", "/v1/verify", "/v1/detect", "/v1/embeddings", "/v1/batch/identify", "/v1/batch/enroll",
]);

let timer = 0;
let before = null;

export function start() {
  document.addEventListener("visibilitychange", () => {
    clearTimeout(timer);
    if (!document.hidden) tick();
  });
  session.addEventListener("galleries", showGallery);
  session.addEventListener("chosen", showGallery);
  session.addEventListener("people", now);
  session.addEventListener("asked", now);
  tick();
}

function now() {
  clearTimeout(timer);
  return tick();
}

async function tick() {
  try {
    const { body } = await call("GET", "metrics", { as: "text", quiet: true });
    showService(parse(body));
    if (!locked()) await refresh({ quiet: true });
  } catch {
    // Whatever is the matter, an action of the user will say so; figures only stand still.
    before = null;
  }
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(tick, EVERY_MS);
}

function showGallery() {
  const gallery = chosenGallery();
  byId("figure-faces").textContent = gallery ? counted(gallery.faces, "face", "faces") : "–";
  byId("figure-persons").textContent = gallery ? `of ${counted(gallery.persons, "person", "persons")}` : "empty";
}

function showService(samples) {
  const seen = {
    at: performance.now(),
    requests: total(samples, "shrinkface_requests_total", ({ route }) => PICTURE_ROUTES.has(route)),
  };
  showRate(seen);
  const latency = buckets(samples, "shrinkface_request_seconds", ({ route }) => route === "/identify");
  const recall = samples.get("shrinkface_gallery_recall_vs_exact")?.[0];
  byId("figure-requests").textContent = count(seen.requests);
  byId("figure-p50").textContent = estimate(latency, 0.5);
  byId("figure-p99").textContent = estimate(latency, 0.99);
  byId("figure-recall").textContent = recall ? share(recall.value) : "–";
}

function showRate(seen) {
  if (before !== null && seen.requests >= before.requests) {
    const passed = seen.at - before.at;
    if (passed < RATE_OVER_MS) return;
    const rate = ((seen.requests - before.requests) * 1000) / passed;
    byId("figure-rate").textContent = `with pictures, ${rate.toFixed(1)} a second`;
  }
  before = seen;
}

function estimate(cumulative, q) {
  const seconds = quantile(cumulative, q);
  if (seconds === null) return "–";
  const highest = cumulative.filter(({ le }) => le !== Infinity).at(-1)?.le ?? 0;
  return seconds === Infinity ? `over ${milliseconds(highest * 1000)}` : `≈ ${milliseconds(seconds * 1000)}`;
}
