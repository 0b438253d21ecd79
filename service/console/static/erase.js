// Asking before something is erased, and showing what the erasure took away.

import { call } from "./api.js";
import { byId, fill, h, pairs, problemNote } from "./dom.js";
import { count, when } from "./format.js";

// Resolves with true once it is erased and the receipt has been read, false when it was not erased, and throws
// nothing. `etag`: erase only this state; `changed()` is called where it is another one. `typed`: a word to be typed
// first.
export function erase({ title, question, path, etag, typed, changed }) {
  const dialog = byId("dialog");
  const heading = byId("heading-dialog");
  const body = byId("dialog-body");
  const trouble = h("div");
  const confirm = h("button", { type: "submit", class: "danger", disabled: Boolean(typed) }, "Erase");
  const cancel = h("button", { type: "button", onclick: () => dialog.close() }, "Cancel");
  const word = typed ? h("input", { id: "typed", autocomplete: "off", spellcheck: "false" }) : null;
  word?.addEventListener("input", () => (confirm.disabled = word.value !== typed));
  heading.textContent = title;
  return new Promise((resolve) => {
    let erased = false;
    const form = h(
      "form",
      {
        onsubmit: async (event) => {
          event.preventDefault();
          confirm.disabled = true;
          fill(trouble);
          try {
            const { body: receipt } = await call("DELETE", path, { headers: etag ? { "If-Match": etag } : {} });
            erased = true;
            showReceipt(dialog, heading, body, receipt);
          } catch (problem) {
            confirm.disabled = false;
            if (problem.kind === "revision-mismatch" && changed) {
              dialog.close();
              changed();
            } else fill(trouble, problemNote(problem));
          }
        },
      },
      h("p", null, question),
      word ? [h("label", { for: "typed" }, "Type ", h("code", null, typed), " to go on"), word] : null,
      trouble,
      h("div", { class: "bar end" }, cancel, confirm),
    );
    fill(body, form);
    dialog.onclose = () => resolve(erased);
    dialog.showModal();
    (word ?? cancel).focus();
  });
}

function showReceipt(dialog, heading, body, receipt) {
  const cache = receipt.cache_entries;
  const entries = [
    ["Persons", count(receipt.persons)],
    ["Faces", count(receipt.faces)],
    ["Index entries", count(receipt.index_entries)],
    ["Cache entries", cache === null ? "the cache does not answer; they go as soon as it does" : count(cache)],
    ["Crops", count(receipt.crops)],
    ["Kept answers", count(receipt.kept_answers)],
    ["Revision", count(receipt.revision)],
    ["Erased", when(receipt.erased_at)],
  ];
  const close = h("button", { type: "button", class: "primary", onclick: () => dialog.close() }, "Close");
  heading.textContent = "Receipt";
  fill(
    body,
    h("p", null, "Nothing of it is left on disk. Removed were:"),
    h("dl", { class: "receipt" }, pairs(entries)),
    h("div", { class: "bar end" }, close),
  );
  heading.focus();
}
