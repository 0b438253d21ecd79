// The dialog that asks for an API key.

import { byId } from "./dom.js";

// Resolves with a key that `refusal` found nothing against, or with null when the dialog was left.
export function askForKey(reason, refusal) {
  const dialog = byId("key-dialog");
  const form = dialog.querySelector("form");
  const input = byId("key-input");
  const error = byId("key-error");
  const submit = form.querySelector("[type=submit]");
  byId("key-reason").textContent = reason;
  error.textContent = "";
  return new Promise((resolve) => {
    let accepted = null;
    form.onsubmit = async (event) => {
      event.preventDefault();
      const candidate = input.value.trim();
      // Anything else could not travel in a header.
      if (!/^[\x21-\x7e]+$/.test(candidate)) {
        error.textContent = "A key is a word of letters, digits, dashes and underscores.";
        return;
      }
      submit.disabled = true;
      const found = await refusal(candidate);
      submit.disabled = false;
      if (found === null) {
        accepted = candidate;
        dialog.close();
        return;
      }
      error.textContent = found;
      input.select();
    };
    byId("key-cancel").onclick = () => dialog.close();
    dialog.onclose = () => {
      input.value = "";
      resolve(accepted);
    };
    dialog.showModal();
    input.focus();
  });
}
