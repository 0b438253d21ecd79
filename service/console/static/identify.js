// The view that says who is in a picture.

import { call, Problem } from "./api.js";
import { byId, fill, h, pairs, problemNote, say } from "./dom.js";
import { addButton, enrolForm } from "./enrol.js";
import { count, counted, milliseconds, odds, score } from "./format.js";
import { decoded } from "./orientation.js";
import { openPerson } from "./people.js";
import { draw, faceFile, thumbnail } from "./picture.js";
import { chosen, refresh, session, tell } from "./session.js";

const CANDIDATES = 5;
const THUMBNAIL_PX = 52;
// As in console.css.
const NARROW = "(max-width: 900px)";
const NARROW_SHARE = 0.6;

// The picture looked at: file and bitmap; `answer` once the service has spoken; the face pointed at.
let looked = null;
let running = new AbortController();
let shows = 0;

export function start() {
  const stage = byId("stage");
  const file = byId("file");
  byId("choose").addEventListener("click", () => file.click());
  file.addEventListener("change", () => {
    if (file.files.length > 0) show(file.files[0]);
    file.value = "";
  });
  // Anywhere on the page: a picture that misses the frame must not make the browser leave the page for it.
  document.addEventListener("dragover", (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    stage.classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) stage.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    stage.classList.remove("over");
    take(event.dataTransfer);
  });
  document.addEventListener("paste", (event) => take(event.clipboardData));
  byId("fpir").addEventListener("change", again);
  byId("exact").addEventListener("change", again);
  session.addEventListener("chosen", again);
  new ResizeObserver(paint).observe(stage);
  byId("picture").addEventListener("click", (event) => point(faceAt(event.offsetX, event.offsetY), true));
}

// Shows a picture and asks who is in it.
export async function show(file) {
  location.hash = "#identify";
  shows += 1;
  const show = shows;
  let bitmap;
  try {
    bitmap = await decoded(file);
  } catch {
    fill(byId("outcome"), problemNote(new Problem(0, { title: "This file is not a picture that can be shown" })));
    return;
  }
  if (show !== shows) {
    bitmap.close();
    return;
  }
  looked?.bitmap.close();
  looked = { file, bitmap, answer: null, pointed: -1, scale: 1 };
  fill(byId("conflicts"));
  await again();
}

function take(data) {
  const file = [...(data?.files ?? [])].find(({ type }) => type.startsWith("image/")) ?? data?.files?.[0];
  if (file) show(file);
}

// Asks about the picture that is shown, anew after an enrolment or under other terms.
async function again() {
  if (looked === null) return;
  running.abort();
  running = new AbortController();
  const { signal } = running;
  const asked = looked;
  asked.answer = null;
  fill(byId("outcome"));
  render();
  byId("busy").hidden = false;
  const form = new FormData();
  form.append("image", asked.file, "picture");
  form.append("top_k", String(CANDIDATES));
  if (chosen()) form.append("gallery", chosen());
  if (byId("fpir").value) form.append("fpir", byId("fpir").value);
  if (byId("exact").checked) form.append("exact", "true");
  try {
    const { body } = await call("POST", "identify", { form, signal });
    if (signal.aborted) return;
    asked.answer = body;
    render();
    tell("asked");
    say(`${counted(body.faces.length, "face", "faces")}: ${body.faces.map(nameOf).join(", ")}`);
  } catch (problem) {
    if (signal.aborted) return;
    fill(byId("outcome"), problemNote(problem));
  } finally {
    if (!signal.aborted) byId("busy").hidden = true;
  }
}

// Whether the boxes are in the pixels that are shown: browser and service may read tags that turn a picture differently.
function alike({ answer, bitmap }) {
  return answer !== null && answer.width === bitmap.width && answer.height === bitmap.height;
}

function render() {
  const { answer } = looked;
  const faces = answer?.faces ?? [];
  byId("empty").hidden = true;
  byId("picture").hidden = false;
  byId("stage").classList.add("shown");
  byId("no-faces").hidden = true;
  fill(byId("faces"), faces.map(card));
  byId("heading-faces").textContent = answer ? counted(answer.faces_total, "face", "faces") : "Faces";
  if (answer && answer.faces_total > faces.length) {
    byId("faces").append(h("li", { class: "hint" }, `and ${count(answer.faces_total - faces.length)} smaller ones`));
  }
  if (answer && !alike(looked)) fill(byId("outcome"), turnedNote());
  const terms = byId("terms");
  terms.hidden = answer === null;
  fill(terms, answer ? pairs(termsOf(answer)) : null);
  paint();
}

function termsOf({ threshold, fpir, gallery, gallery_size: size, model, timings_ms: timings }) {
  const stages = Object.entries(timings).map(([stage, value]) => `${stage} ${milliseconds(value)}`);
  const took = Object.values(timings).reduce((sum, value) => sum + value, 0);
  return [
    ["Threshold", score(threshold, 3)],
    ["Chance of a stranger (FPIR)", odds(fpir)],
    ["Searched", `${counted(size, "face", "faces")} in ${gallery}`],
    ["Model", model.embedder],
    ["Took", `${milliseconds(took)}: ${stages.join(", ")}`],
  ];
}

function paint() {
  if (looked === null) return;
  const { bitmap, answer, pointed } = looked;
  const stage = byId("stage");
  const canvas = byId("picture");
  const faces = (alike(looked) ? answer.faces : []).map((face) => ({
    box: face.box,
    known: face.decision.identified,
    label: face.decision.identified ? `${nameOf(face)}  ${score(face.matches[0].similarity)}` : "unknown",
  }));
  // On narrow pages the frame follows the picture, elsewhere the picture the frame.
  const height = matchMedia(NARROW).matches ? window.innerHeight * NARROW_SHARE : stage.clientHeight;
  const room = { width: stage.clientWidth, height };
  if (room.width <= 0) return;
  looked.scale = draw(canvas, room, bitmap, faces, pointed);
  canvas.setAttribute("aria-label", described(answer));
}

function described(answer) {
  if (!answer) return "The picture; faces have not been looked for yet";
  return `The picture with ${counted(answer.faces.length, "face", "faces")}: ${answer.faces.map(nameOf).join(", ")}`;
}

function nameOf({ decision, matches }) {
  if (!decision.identified) return "unknown";
  const match = matches.find(({ person_id: id }) => id === decision.person_id);
  return match?.name || decision.person_id;
}

function card(face, index) {
  const { answer, bitmap } = looked;
  const known = face.decision.identified;
  const best = face.matches[0];
  const node = h(
    "li",
    { class: known ? "face known" : "face", onmouseenter: () => point(index), onfocusin: () => point(index) },
    h(
      "div",
      { class: "face-head" },
      alike(looked) ? thumbnail(bitmap, face.box, THUMBNAIL_PX) : null,
      h("div", null, h("h3", null, known ? nameOf(face) : "Unknown"), h("p", null, verdict(face))),
    ),
    face.quality.issues.length > 0
      ? h("p", { class: "issues" }, face.quality.issues.map((issue) => h("span", null, issue.replaceAll("-", " "))))
      : null,
    face.matches.length > 0 ? candidates(face, index) : null,
  );
  const oneFile = answer.faces_total === 1;
  const boxes = answer.faces.map(({ box }) => box);
  const enrolment = {
    gallery: answer.gallery,
    file: () => (oneFile ? looked.file : faceFile(bitmap, boxes, index)),
    done: enrolled,
  };
  const enrollable = oneFile || alike(looked);
  if (known) {
    const open = h("button", { type: "button", class: "small", onclick: () => openPerson(best.person_id) }, "Open person");
    node.append(h("div", { class: "bar" }, open, enrollable ? addButton(enrolment, best.person_id, nameOf(face)) : null));
  }
  if (enrollable) {
    const title = known ? "Enrol as somebody else" : "Enrol this face";
    node.append(enrolForm(enrolment, title, !known && answer.faces.length === 1));
  }
  return node;
}

function verdict({ decision, matches }) {
  if (matches.length === 0) return "Nobody is enrolled to compare with.";
  const [best] = matches;
  if (decision.identified) return `${score(best.similarity)}, chance of a stranger ${odds(best.fpir)}`;
  const nearest = best.name || best.person_id;
  return `Nearest is ${nearest}, ${score(best.similarity)}; the threshold is ${score(decision.threshold)}`;
}

function candidates({ matches, decision }) {
  const rows = matches.map(({ name, person_id: id, similarity, fpir }) =>
    h(
      "tr",
      similarity >= decision.threshold ? { class: "over" } : null,
      h("th", { scope: "row" }, name || h("code", null, id)),
      h("td", { class: "figure" }, score(similarity, 3)),
      h("td", { class: "figure" }, odds(fpir)),
    ),
  );
  return h(
    "details",
    null,
    h("summary", null, counted(matches.length, "candidate", "candidates")),
    h(
      "table",
      null,
      h(
        "thead",
        null,
        h(
          "tr",
          null,
          h("th", { scope: "col" }, "Person"),
          h("th", { scope: "col", class: "figure" }, "Similarity"),
          h("th", { scope: "col", class: "figure" }, "Stranger"),
        ),
      ),
      h("tbody", null, rows),
    ),
  );
}

function turnedNote() {
  return h(
    "div",
    { class: "problem warn", role: "alert" },
    h("strong", null, "Boxes cannot be shown"),
    h("p", null, "This browser and the service turn this picture differently."),
  );
}

async function enrolled({ person, conflicts, faces }) {
  const name = person.name || person.person_id;
  fill(byId("conflicts"), conflicts.length > 0 ? conflictNote(name, conflicts) : null);
  await refresh();
  tell("people");
  await again();
  const before = faces.every(({ already }) => already);
  say(before ? `This very picture of ${name} had been enrolled before` : `${name} is enrolled, and it is on disk`);
  byId("heading-faces").focus();
}

function conflictNote(name, conflicts) {
  return h(
    "div",
    { class: "problem warn", role: "alert" },
    h("strong", null, `${name} looks like somebody enrolled before`),
    h(
      "ul",
      null,
      conflicts.map((each) => h("li", null, `${each.name || each.person_id}, similarity ${score(each.similarity)}`)),
    ),
    h("p", null, "Both are kept. If they are one person, erase one of the two."),
  );
}

function point(index, scroll = false) {
  if (looked === null || index === looked.pointed) return;
  looked.pointed = index;
  [...byId("faces").children].forEach((node, at) => node.classList.toggle("pointed", at === index));
  if (scroll && index >= 0) byId("faces").children[index].scrollIntoView({ block: "nearest" });
  paint();
}

function faceAt(x, y) {
  const faces = looked?.answer?.faces ?? [];
  const [left, top] = [x / looked.scale, y / looked.scale];
  return faces.findIndex(
    ({ box }) => left >= box.x && left <= box.x + box.width && top >= box.y && top <= box.y + box.height,
  );
}
