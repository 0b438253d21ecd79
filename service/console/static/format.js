// Figures as people read them.

const whole = new Intl.NumberFormat("en-GB");
const rounded = new Intl.NumberFormat("en-GB", { maximumSignificantDigits: 2 });
const tenths = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 1 });
const moment = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" });

const RAREST = 1e-9;

export const count = (value) => whole.format(value);

export const counted = (value, one, many) => `${whole.format(value)} ${value === 1 ? one : many}`;

export const score = (similarity, digits = 2) => similarity.toFixed(digits);

export const when = (iso) => moment.format(new Date(iso));

// A chance: percent down to a tenth, then one in so many, to two digits, since no impostor curve knows more.
export function odds(rate) {
  if (rate >= 0.1) return rate > 0.99 ? "over 99%" : `${Math.round(rate * 100)}%`;
  if (rate < RAREST) return `under 1 in ${whole.format(1 / RAREST)}`;
  return `1 in ${rounded.format(1 / rate)}`;
}

export function milliseconds(value) {
  if (value >= 1000) return `${(value / 1000).toFixed(value < 10000 ? 1 : 0)} s`;
  return `${value.toFixed(value < 10 ? 1 : 0)} ms`;
}

// A share in [0, 1]; never rounded up to all.
export function share(value) {
  return value === 1 ? "100%" : `${(Math.floor(value * 1000) / 10).toFixed(1)}%`;
}

// How a head is held, as whoever looks at the picture sees it; what is nearly straight is not worth a word.
export function posture({ yaw_deg: yaw, pitch_deg: pitch, roll_deg: roll }) {
  if (yaw === null) return null;
  const turns = [
    [yaw, "turned", "to the right", "to the left"],
    [pitch, "", "up", "down"],
    [roll, "tilted", "clockwise", "anticlockwise"],
  ];
  const told = turns
    .filter(([angle]) => Math.abs(angle) >= 5)
    .map(([angle, verb, over, under]) => `${verb} ${Math.round(Math.abs(angle))}° ${angle > 0 ? over : under}`.trim());
  return told.length > 0 ? `Head ${told.join(", ")}` : "Looks ahead";
}

// Whether a mask is worn and how likely that answer is.
export function masking({ worn, probability }) {
  return `${worn ? "wears a mask" : "no mask"} (${share(worn ? probability : 1 - probability)})`;
}

// What a network says of a face, and how likely that is where it says so.
export function attribute(name, { kind, value, probability, unit }) {
  if (kind === "value") return `${name} ${tenths.format(value)}${unit ? ` ${unit}` : ""}`;
  if (kind === "score") return `${name} ${value ? "yes" : "no"} (${share(value ? probability : 1 - probability)})`;
  return `${name} ${value} (${share(probability)})`;
}
