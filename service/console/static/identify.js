// The view that says who is in a picture.

import { call, Problem } from "./api.js";
import { conflictNote, faceCard, nameOf, turnedNote } from "./cards.js";
import { byId, fill, h, pairs, problemNote, say } from "./dom.js";
import { count, counted, milliseconds, odds, score } from "./format.js";
import { decoded } from "./orientation.js";
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
// Whether the answer may name somebody who has been renamed or erased since.
let stale = false;
// Attributes beside masks that the service has networks for, as its answers say.
let tellable = [];

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
  byId("masks").addEventListener("change", again);
  byId("more").addEventListener("change", again);
  session.addEventListener("chosen", again);
  session.addEventListener("people", () => (stale = true));
  new ResizeObserver(paint).observe(stage);
  byId("picture").addEventListener("click", (event) => point(faceAt(event.offsetX, event.offsetY), true));
}

// Called whenever the view is entered.
export function enter() {
  if (stale) again();
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
  stale = false;
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
  const attributes = [...(byId("masks").checked ? ["mask"] : []), ...(byId("more").checked ? tellable : [])];
  if (attributes.length > 0) form.append("attributes", attributes.join(","));
  try {
    const { body } = await call("POST", "identify", { form, signal });
    if (signal.aborted) return;
    asked.answer = body;
    offer(body.model.attributes);
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

function offer(networks) {
  tellable = Object.keys(networks).filter((name) => name !== "mask");
  byId("more-label").hidden = tellable.length === 0;
  const names = tellable.join(", ");
  byId("more-names").textContent = names.charAt(0).toUpperCase() + names.slice(1);
}

// Whether boxes are in the pixels that are shown: browser and service may differ about a tag that turns the picture.
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
  fill(byId("faces"), faces.map(cardOf));
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

function termsOf({ threshold, fpir, gallery, gallery_size: size, model, timings_ms: timings, faces }) {
  const stages = Object.entries(timings).map(([stage, value]) => `${stage} ${milliseconds(value)}`);
  // Networks that tell attributes run side by side: the slowest of them is what they took.
  const beside = Object.keys(faces[0]?.attributes ?? {}).map((name) => timings[name] ?? 0);
  const all = Object.values(timings).reduce((sum, value) => sum + value, 0);
  const took = all - beside.reduce((sum, value) => sum + value, 0) + Math.max(0, ...beside);
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
    label: face.decision.identified ? `${nameOf(face)}  ${score(face.matches[0].similarity)}` : nameOf(face),
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

function cardOf(face, index) {
  const { answer, bitmap, file } = looked;
  const alone = answer.faces_total === 1;
  const shown = alike(looked);
  const boxes = answer.faces.map(({ box }) => box);
  // The picture itself where nobody else is in it; else what is cut out of it, if it is known where that is.
  const cut = () => (alone ? file : faceFile(bitmap, boxes, index));
  return faceCard(face, {
    thumbnail: shown ? thumbnail(bitmap, face.box, THUMBNAIL_PX) : null,
    point: () => point(index),
    unfolded: answer.faces.length === 1,
    enrolment: alone || shown ? { gallery: answer.gallery, file: cut, done: enrolled } : null,
  });
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
