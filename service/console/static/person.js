// One person: name, faces, and erasing either.

import { call, personPath } from "./api.js";
import { byId, fill, h, icon, pairs, problemNote, say } from "./dom.js";
import { erase } from "./erase.js";
import { counted, posture, when } from "./format.js";
import { chosen, refresh, tell } from "./session.js";

const FACES_SHOWN = 60;

let opened = null;
let running = new AbortController();

export const openedId = () => opened;

export function clearPerson() {
  running.abort();
  opened = null;
  byId("heading-person").textContent = "Person";
  fill(byId("person-body"), h("p", { class: "hint" }, "Choose somebody from the list."));
}

// Shows a person as they are now, under a `note` on why they are shown again; the heading takes the focus.
export async function showPerson(id, note = null) {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  const path = personPath(chosen(), id);
  opened = id;
  try {
    const { body: person, etag } = await call("GET", path, { signal });
    const { body } = await call("GET", `${path}/faces`, { signal });
    if (signal.aborted) return;
    render({ person, etag, path, faces: body.faces, signal }, note);
  } catch (problem) {
    if (signal.aborted) return;
    clearPerson();
    fill(byId("person-body"), problemNote(problem));
  }
}

function render(shown, note) {
  const { person, faces } = shown;
  const heading = byId("heading-person");
  heading.textContent = person.name || person.person_id;
  const facts = [
    ["Id", h("code", null, person.person_id)],
    ["Gallery", person.gallery],
    ["Enrolled", when(person.created_at)],
    ["Revision", String(person.revision)],
    ...Object.entries(person.metadata).map(([field, value]) => [field, plain(value)]),
  ];
  fill(
    byId("person-body"),
    note,
    h("dl", { class: "facts" }, pairs(facts)),
    renaming(shown),
    h("h3", null, counted(faces.length, "face", "faces")),
    h("ul", { class: "gallery" }, faces.slice(0, FACES_SHOWN).map((face) => tile(shown, face))),
    faces.length > FACES_SHOWN ? h("p", { class: "hint" }, `The first ${FACES_SHOWN} are shown.`) : null,
    h("button", { type: "button", class: "danger", onclick: () => erasePerson(shown) }, icon("bin"), "Erase person"),
  );
  heading.focus();
}

function renaming(shown) {
  const input = h("input", { id: "rename", value: shown.person.name ?? "", maxlength: 200, autocomplete: "off" });
  const trouble = h("div");
  const submit = h("button", { type: "submit" }, "Rename");
  return h(
    "form",
    {
      class: "rename",
      onsubmit: async (event) => {
        event.preventDefault();
        submit.disabled = true;
        fill(trouble);
        try {
          const json = { name: input.value.trim() || null };
          await call("PATCH", shown.path, { json, headers: { "If-Match": shown.etag } });
          await showPerson(shown.person.person_id);
          tell("people");
          say("The name has been changed");
        } catch (problem) {
          if (problem.kind === "revision-mismatch") await reload(shown);
          else fill(trouble, problemNote(problem));
        } finally {
          submit.disabled = false;
        }
      },
    },
    h("label", { for: "rename" }, "Name"),
    h("div", { class: "bar" }, input, submit),
    trouble,
  );
}

function tile(shown, face) {
  const view = h("div", { class: "crop" }, icon("face"));
  const label = `Erase face ${face.face_id}`;
  if (face.crop_kept) crop(shown, face, view);
  const facts = [`enrolled ${when(face.created_at)}`];
  if (face.quality) {
    facts.unshift(`${Math.round(face.quality.side_px)} px, sharpness ${Math.round(face.quality.sharpness)}`);
  }
  if (face.quality && posture(face.quality)) facts.push(posture(face.quality));
  if (face.expires_at) facts.push(`expires ${when(face.expires_at)}`);
  return h(
    "li",
    null,
    view,
    h("div", null, facts.map((fact) => h("p", null, fact)), face.crop_kept ? null : h("p", null, "no crop kept")),
    h(
      "button",
      { type: "button", class: "small", "aria-label": label, title: label, onclick: () => eraseFace(shown, face) },
      icon("bin"),
    ),
  );
}

async function crop({ path, person, signal }, face, view) {
  try {
    const where = `${path}/faces/${encodeURIComponent(face.face_id)}/crop`;
    const { body } = await call("GET", where, { as: "blob", signal });
    const url = URL.createObjectURL(body);
    const image = h("img", { alt: `Face of ${person.name || person.person_id}`, width: 112, height: 112 });
    image.onload = image.onerror = () => URL.revokeObjectURL(url);
    image.src = url;
    fill(view, image);
  } catch (problem) {
    if (!signal.aborted) view.title = problem.message;
  }
}

async function erasePerson(shown) {
  const name = shown.person.name || shown.person.person_id;
  const erased = await erase({
    title: `Erase ${name}?`,
    question: `The person and ${counted(shown.faces.length, "face", "faces")} go for good, everywhere.`,
    path: shown.path,
    etag: shown.etag,
    changed: () => reload(shown),
  });
  if (!erased) return;
  clearPerson();
  byId("heading-people").focus();
  await told(`${name} has been erased`);
}

async function eraseFace(shown, face) {
  const erased = await erase({
    title: "Erase this face?",
    question: "The face goes for good, everywhere. The person stays.",
    path: `${shown.path}/faces/${encodeURIComponent(face.face_id)}`,
    etag: shown.etag,
    changed: () => reload(shown),
  });
  if (!erased) return;
  await showPerson(shown.person.person_id);
  await told("The face has been erased");
}

async function told(message) {
  await refresh();
  tell("people");
  say(message);
}

function reload(shown) {
  tell("people");
  const note = h(
    "div",
    { class: "problem warn", role: "alert" },
    h("strong", null, "Changed meanwhile"),
    h("p", null, "Somebody else changed this person, who has been reloaded. Look, and try again."),
  );
  return showPerson(shown.person.person_id, note);
}

function plain(value) {
  return typeof value === "string" ? value : JSON.stringify(value);
}
