// The page's beginning: views, theme, key, and the parts that fill the views.

import { hasKey, lock, locked, unlock } from "./api.js";
import * as camera from "./camera.js";
import { byId, say } from "./dom.js";
import * as figures from "./figures.js";
import * as galleries from "./galleries.js";
import * as identify from "./identify.js";
import * as people from "./people.js";
import * as session from "./session.js";

const VIEWS = ["identify", "people", "galleries"];

let shown = "identify";

function showView() {
  const wanted = location.hash.slice(1);
  // Other anchors, such as the skip link's, leave the view as it is.
  if (!VIEWS.includes(wanted) || wanted === shown) return;
  shown = wanted;
  for (const view of VIEWS) {
    byId(`view-${view}`).hidden = view !== shown;
    const link = document.querySelector(`nav a[href="#${view}"]`);
    if (view === shown) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const heading = byId(`heading-${shown}`);
  document.title = `${heading.textContent} · ShrinkFace`;
  heading.focus();
  if (shown === "people") people.enter();
  if (shown === "identify") identify.enter();
}

function showTheme(dark) {
  const button = byId("theme");
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  button.setAttribute("aria-pressed", String(dark));
}

function startTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  let dark = system.matches;
  showTheme(dark);
  byId("theme").addEventListener("click", () => showTheme((dark = !dark)));
  system.addEventListener("change", () => showTheme((dark = system.matches)));
}

function showKey() {
  const button = byId("key");
  button.hidden = !hasKey() && !locked();
  button.querySelector("span").textContent = hasKey() ? "Forget key" : "Enter key";
}

function startKey() {
  lock.addEventListener("change", showKey);
  byId("key").addEventListener("click", () => {
    // A new page has no key and shows nobody: the surest way to forget both.
    if (hasKey()) location.reload();
    else unlock().then(begin, () => {});
  });
}

async function begin() {
  try {
    await session.refresh();
  } catch (problem) {
    say(problem.message);
  }
}

session.start();
startTheme();
startKey();
identify.start();
people.start();
galleries.start();
camera.start(identify.show);
addEventListener("hashchange", showView);
showView();
figures.start();
await begin();
