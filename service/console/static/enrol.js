// The form that enrols a face where it was found.

import { call } from "./api.js";
import { fill, h, problemNote } from "./dom.js";

let forms = 0;

// `enrolment` is {gallery, file(), done(answer)} in both: where to, what, and what comes after.

// A form under `title` that folds out, for somebody new or under an id.
export function enrolForm(enrolment, title, open) {
  const number = ++forms;
  const name = h("input", { id: `name-${number}`, maxlength: 200, required: true, autocomplete: "off" });
  const id = h("input", { id: `id-${number}`, maxlength: 128, autocomplete: "off", spellcheck: "false" });
  const extend = h("input", { type: "checkbox", autocomplete: "off" });
  const trouble = h("div");
  const submit = h("button", { type: "submit", class: "primary" }, "Enrol");
  const fields = () => ({
    name: name.value.trim(),
    person_id: id.value.trim(),
    on_existing: extend.checked ? "extend" : "",
  });
  const form = h(
    "form",
    { autocomplete: "off", onsubmit: sender(enrolment, fields, submit, trouble) },
    h("label", { for: name.id }, "Name"),
    name,
    h("label", { for: id.id }, "Person id ", h("span", { class: "hint" }, "(optional)")),
    id,
    h("label", { class: "check" }, extend, " If the id exists, add the face to that person"),
    trouble,
    submit,
  );
  return h("details", { class: "enrol", open }, h("summary", null, title), form);
}

// A button that adds the face to somebody enrolled.
export function addButton(enrolment, id, name) {
  const trouble = h("div");
  const submit = h("button", { type: "submit", class: "small", title: `Enrol it under ${name}` }, "Add this face");
  const fields = () => ({ person_id: id, on_existing: "extend" });
  return h("form", { class: "addition", onsubmit: sender(enrolment, fields, submit, trouble) }, submit, trouble);
}

function sender(enrolment, fields, submit, trouble) {
  return async (event) => {
    event.preventDefault();
    submit.disabled = true;
    fill(trouble);
    try {
      const form = new FormData();
      form.append("image", await enrolment.file(), "face");
      form.append("gallery", enrolment.gallery);
      for (const [field, value] of Object.entries(fields())) {
        if (value) form.append(field, value);
      }
      const { body } = await call("POST", "enroll", { form });
      await enrolment.done(body);
    } catch (problem) {
      fill(trouble, problemNote(problem));
    } finally {
      submit.disabled = false;
    }
  };
}
