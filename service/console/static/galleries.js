// The view of all galleries: begin, configure, erase.

import { call, galleryPath } from "./api.js";
import { byId, fill, h, icon, problemNote, say } from "./dom.js";
import { erase } from "./erase.js";
import { count, odds } from "./format.js";
import { choose, chosen, galleries, refresh, session } from "./session.js";

const GATES = [
  ["", "as the service says"],
  ["strict", "strict"],
  ["standard", "standard"],
  ["off", "off"],
];

export function start() {
  const name = byId("gallery-name");
  byId("new-gallery").addEventListener("submit", async (event) => {
    event.preventDefault();
    const wanted = name.value.trim();
    const make = () => call("POST", "v1/galleries", { json: { name: wanted } });
    if (!(await attempt(byId("galleries-problem"), make))) return;
    name.value = "";
    await refresh();
    choose(wanted);
    say(`The gallery ${wanted} has begun`);
  });
  session.addEventListener("galleries", render);
  session.addEventListener("chosen", render);
}

function render() {
  const table = byId("galleries");
  const rows = galleries().map((gallery) =>
    h(
      "tr",
      gallery.name === chosen() ? { class: "chosen" } : null,
      h("th", { scope: "row" }, link(gallery.name)),
      h("td", { class: "figure" }, count(gallery.persons)),
      h("td", { class: "figure" }, count(gallery.faces)),
      h("td", { class: "wide" }, gallery.settings.target_fpir ? odds(gallery.settings.target_fpir) : "default"),
      h("td", { class: "wide" }, gallery.settings.quality_gate ?? "default"),
      h("td", { class: "wide" }, gallery.settings.keep_crops ? "kept" : "not kept"),
      h("td", { class: "figure wide" }, count(gallery.revision)),
      h(
        "td",
        { class: "actions" },
        action("cog", `Settings of ${gallery.name}`, () => configure(gallery)),
        action("bin", `Erase ${gallery.name}`, () => drop(gallery)),
      ),
    ),
  );
  // Drawn anew only when it says something else: the focus may be in it.
  const news = JSON.stringify([galleries(), chosen()]);
  if (table.dataset.shown === news) return;
  table.dataset.shown = news;
  fill(table.tBodies[0], rows);
  table.hidden = rows.length === 0;
  byId("no-galleries").hidden = rows.length > 0;
}

function link(name) {
  return h("button", { type: "button", class: "link", onclick: () => look(name) }, name);
}

function action(name, label, act) {
  return h("button", { type: "button", class: "small", "aria-label": label, title: label, onclick: act }, icon(name));
}

function look(name) {
  choose(name);
  location.hash = "#people";
}

async function configure(gallery) {
  const dialog = byId("dialog");
  const { settings } = gallery;
  const number = { type: "number", min: "0", max: "1", step: "any", placeholder: "as the service says" };
  const fpir = h("input", { id: "set-fpir", ...number, value: settings.target_fpir, autocomplete: "off" });
  const levels = GATES.map(([value, label]) => h("option", { value }, label));
  const gate = h("select", { id: "set-gate", autocomplete: "off" }, levels);
  gate.value = settings.quality_gate ?? "";
  const crops = h("input", { type: "checkbox", checked: settings.keep_crops, autocomplete: "off" });
  const range = h("span", { class: "hint" }, "(between 0 and 1)");
  const trouble = h("div");
  const save = async (event) => {
    event.preventDefault();
    // Only what was changed here, so that what somebody else changed meanwhile stays.
    const wanted = {
      target_fpir: fpir.value === "" ? null : Number(fpir.value),
      quality_gate: gate.value || null,
      keep_crops: crops.checked,
    };
    const json = Object.fromEntries(Object.entries(wanted).filter(([field, value]) => value !== settings[field]));
    if (await attempt(trouble, () => call("PATCH", galleryPath(gallery.name), { json }))) {
      dialog.close();
      await refresh();
      say(`The settings of ${gallery.name} have been changed`);
    }
  };
  byId("heading-dialog").textContent = `Settings of ${gallery.name}`;
  fill(
    byId("dialog-body"),
    h(
      "form",
      { onsubmit: save },
      h("label", { for: "set-fpir" }, "Target rate of false positives ", range),
      fpir,
      h("label", { for: "set-gate" }, "Quality a face must have to be enrolled"),
      gate,
      h("label", { class: "check" }, crops, " Keep aligned crops of faces enrolled from now on"),
      trouble,
      h(
        "div",
        { class: "bar end" },
        h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"),
        h("button", { type: "submit", class: "primary" }, "Save"),
      ),
    ),
  );
  dialog.onclose = null;
  dialog.showModal();
  fpir.focus();
}

async function drop(gallery) {
  const erased = await erase({
    title: `Erase the gallery ${gallery.name}?`,
    question: `All ${count(gallery.persons)} persons and ${count(gallery.faces)} faces in it go for good, everywhere.`,
    path: galleryPath(gallery.name),
    typed: gallery.name,
  });
  if (!erased) return;
  byId("heading-galleries").focus();
  await refresh();
  say(`The gallery ${gallery.name} has been erased`);
}

// Whether it went well; what went wrong is shown in `place`.
async function attempt(place, act) {
  fill(place);
  try {
    await act();
    return true;
  } catch (problem) {
    fill(place, problemNote(problem));
    return false;
  }
}
