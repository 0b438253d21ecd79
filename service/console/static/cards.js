// What is said of each face of a picture, for the list beside it.

import { h } from "./dom.js";
import { addButton, enrolForm } from "./enrol.js";
import { attribute, counted, masking, odds, posture, score } from "./format.js";
import { openPerson } from "./people.js";

export function nameOf({ decision, matches }) {
  if (!decision.identified) return "unknown";
  const match = matches.find(({ person_id: id }) => id === decision.person_id);
  return match?.name || decision.person_id;
}

// A list item. `context` is {thumbnail, point(), unfolded, enrolment}: the first and the last may be null.
export function faceCard(face, { thumbnail, point, unfolded, enrolment }) {
  const known = face.decision.identified;
  const { person_id: id } = face.decision;
  const open = h("button", { type: "button", class: "small", onclick: () => openPerson(id) }, "Open person");
  const add = enrolment && known ? addButton(enrolment, id, nameOf(face)) : null;
  const title = known ? "Enrol as somebody else" : "Enrol this face";
  return h(
    "li",
    { class: known ? "face known" : "face", onmouseenter: point, onfocusin: point },
    h(
      "div",
      { class: "face-head" },
      thumbnail,
      h("div", null, h("h3", null, known ? nameOf(face) : "Unknown"), h("p", null, verdict(face))),
    ),
    h("p", { class: "hint" }, seen(face)),
    face.quality.issues.length > 0
      ? h("p", { class: "issues" }, face.quality.issues.map((issue) => h("span", null, issue.replaceAll("-", " "))))
      : null,
    face.matches.length > 0 ? candidates(face) : null,
    known ? h("div", { class: "bar" }, open, add) : null,
    enrolment ? enrolForm(enrolment, title, unfolded && !known) : null,
  );
}

export function conflictNote(name, conflicts) {
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

export function turnedNote() {
  return h(
    "div",
    { class: "problem warn", role: "alert" },
    h("strong", null, "Boxes cannot be shown"),
    h("p", null, "This browser and the service turn this picture differently."),
  );
}

function verdict({ decision, matches }) {
  if (matches.length === 0) return "Nobody is enrolled to compare with.";
  const [best] = matches;
  if (decision.identified) return `${score(best.similarity)}, chance of a stranger ${odds(best.fpir)}`;
  const nearest = best.name || best.person_id;
  return `Nearest is ${nearest}, ${score(best.similarity)}; the threshold is ${score(decision.threshold)}`;
}

function seen({ quality, mask, attributes }) {
  const others = Object.entries(attributes).filter(([name]) => name !== "mask");
  const told = others.map(([name, reading]) => attribute(name, reading));
  return [posture(quality), mask ? masking(mask) : null, ...told].filter(Boolean).join(", ");
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
