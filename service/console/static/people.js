// The view of who is in the gallery: a page at a time, filtered by name.

import { call, galleryPath } from "./api.js";
import { byId, fill, h, problemNote } from "./dom.js";
import { counted, when } from "./format.js";
import { clearPerson, openedId, showPerson } from "./person.js";
import { chosen, session } from "./session.js";

const PAGE = 25;
const PAUSE_MS = 250;
// A filtered page may come short, or empty, with more to come behind it.
const MOST_EMPTY_PAGES = 40;

// Cursors of the pages up to this one; the first page has none.
let cursors = [null];
let nextCursor = null;
let running = new AbortController();
let typing = 0;

export function start() {
  const filter = byId("name-filter");
  byId("filter").addEventListener("submit", (event) => {
    event.preventDefault();
    first();
  });
  filter.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(first, PAUSE_MS);
  });
  byId("previous").addEventListener("click", () => {
    cursors.pop();
    load();
  });
  byId("next").addEventListener("click", () => {
    cursors.push(nextCursor);
    load();
  });
  session.addEventListener("chosen", () => {
    clearPerson();
    first();
  });
  session.addEventListener("people", load);
}

// Called whenever the view is entered: others may have enrolled somebody.
export const enter = () => load();

// Shows a person in this view.
export function openPerson(id) {
  location.hash = "#people";
  return showPerson(id);
}

function first() {
  cursors = [null];
  return load();
}

async function load() {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  fill(byId("people-problem"));
  if (!chosen()) {
    render([], null);
    return;
  }
  try {
    const { persons, cursor } = await page(cursors.at(-1), signal);
    if (!signal.aborted) render(persons, cursor);
  } catch (problem) {
    if (signal.aborted) return;
    render([], null);
    fill(byId("people-problem"), problemNote(problem));
  }
}

async function page(cursor, signal) {
  const persons = [];
  for (let asked = 0; asked < MOST_EMPTY_PAGES; asked += 1) {
    const query = new URLSearchParams({ limit: String(PAGE - persons.length) });
    if (byId("name-filter").value.trim()) query.set("name", byId("name-filter").value.trim());
    if (cursor) query.set("cursor", cursor);
    const { body } = await call("GET", `${galleryPath(chosen())}/persons?${query}`, { signal });
    persons.push(...body.persons);
    cursor = body.next_cursor;
    if (cursor === null || persons.length >= PAGE) break;
  }
  return { persons, cursor };
}

function render(persons, cursor) {
  nextCursor = cursor;
  const rows = persons.map((person) =>
    h(
      "tr",
      person.person_id === openedId() ? { class: "chosen" } : null,
      h(
        "th",
        { scope: "row" },
        link(person),
        h("code", null, person.person_id),
      ),
      h("td", { class: "figure" }, String(person.face_ids.length)),
      h("td", { class: "wide" }, when(person.created_at)),
    ),
  );
  fill(byId("people").tBodies[0], rows);
  byId("previous").disabled = cursors.length === 1;
  byId("next").disabled = cursor === null;
  byId("page").textContent = note(persons.length, cursor);
}

function link(person) {
  const properties = { type: "button", class: "link", onclick: (event) => pick(person, event) };
  return h("button", properties, person.name || "(no name)");
}

function note(shown, cursor) {
  if (shown > 0) return `Page ${cursors.length}, ${counted(shown, "person", "persons")}`;
  if (cursor !== null) return "Nobody so far; go on with Next";
  return byId("name-filter").value.trim() ? "Nobody has such a name" : "Nobody is enrolled";
}

function pick(person, event) {
  for (const row of byId("people").tBodies[0].rows) row.classList.remove("chosen");
  event.target.closest("tr").classList.add("chosen");
  return showPerson(person.person_id);
}
