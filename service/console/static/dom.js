// Small helpers over the DOM. Text from the service only ever becomes text nodes or plain attributes.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

// An element. `onclick` and the like are listeners, never attributes; true is an empty attribute, false is none.
export function h(tag, properties, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...present(children));
  return node;
}

export function fill(node, ...children) {
  node.replaceChildren(...present(children));
}

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

// Terms and values as groups of a description list; a value may be a node.
export function pairs(entries) {
  return entries.map(([term, ...values]) =>
    h("div", null, h("dt", null, term), ...values.map((value) => h("dd", null, value))),
  );
}

// What went wrong, as the service or the page says it.
export function problemNote(problem) {
  const body = problem.body ?? {};
  const fields = (body.errors ?? []).map((error) => h("li", null, `${error.field}: ${error.message}`));
  const issues = (body.issues ?? []).map((issue) => h("li", null, String(issue).replaceAll("-", " ")));
  return h(
    "div",
    { class: "problem", role: "alert" },
    h("strong", null, problem.message),
    body.detail ? h("p", null, body.detail) : null,
    fields.length + issues.length > 0 ? h("ul", null, fields, issues) : null,
    body.request_id ? h("p", { class: "hint" }, "Request ", h("code", null, body.request_id)) : null,
  );
}

let clearing = 0;

// One line at the foot of the page, read out by screen readers.
export function say(message) {
  const line = byId("status");
  line.textContent = message;
  clearTimeout(clearing);
  clearing = setTimeout(() => (line.textContent = ""), 8000);
}

function present(children) {
  return children.flat().filter((child) => child !== null && child !== undefined && child !== false);
}
