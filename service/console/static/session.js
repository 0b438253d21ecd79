// Which galleries there are and which one is looked at.

import { call } from "./api.js";
import { byId, fill, h } from "./dom.js";

// Tells "galleries" when the list has been read, "chosen" when another one is looked at, "asked" when there is an
// answer about a picture, "people" when somebody has been enrolled, renamed or erased.
export const session = new EventTarget();

const state = { galleries: [], chosen: "" };

export const galleries = () => state.galleries;

// Name of the gallery looked at; empty while there is none, which the service takes for its default.
export const chosen = () => state.chosen;

export const chosenGallery = () => state.galleries.find(({ name }) => name === state.chosen);

export const tell = (event) => session.dispatchEvent(new Event(event));

export async function refresh(options = {}) {
  const { body } = await call("GET", "v1/galleries", options);
  state.galleries = body.galleries;
  const names = state.galleries.map(({ name }) => name);
  const fallback = names.includes("default") ? "default" : (names[0] ?? "");
  const before = state.chosen;
  if (!names.includes(before)) state.chosen = fallback;
  render(names);
  tell("galleries");
  if (state.chosen !== before) tell("chosen");
}

export function choose(name) {
  if (name === state.chosen) return;
  state.chosen = name;
  byId("gallery").value = name;
  tell("chosen");
}

export function start() {
  const select = byId("gallery");
  select.addEventListener("change", () => choose(select.value));
  render([]);
}

function render(names) {
  const select = byId("gallery");
  const options = names.length > 0 ? names : [""];
  // Left alone while it says the same: an open list would close.
  const shown = [...select.options].map(({ value }) => value);
  if (JSON.stringify(shown) !== JSON.stringify(options)) {
    fill(select, options.map((name) => h("option", { value: name }, name || "none yet")));
  }
  select.value = state.chosen;
}
