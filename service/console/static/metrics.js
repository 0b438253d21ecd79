// The Prometheus text format, as far as counters, gauges and histograms go.

const SAMPLE = /^([A-Za-z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/;
const LABEL = /([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"/g;

// Samples by name: [{labels, value}].
export function parse(text) {
  const samples = new Map();
  for (const line of text.split("\n")) {
    const found = line.startsWith("#") ? null : SAMPLE.exec(line);
    if (found === null) continue;
    const labels = {};
    for (const [, name, value] of (found[2] ?? "").matchAll(LABEL)) labels[name] = unescaped(value);
    if (!samples.has(found[1])) samples.set(found[1], []);
    samples.get(found[1]).push({ labels, value: number(found[3]) });
  }
  return samples;
}

// Sum of the samples of a name that `wanted` accepts.
export function total(samples, name, wanted = () => true) {
  return (samples.get(name) ?? []).filter(({ labels }) => wanted(labels)).reduce((sum, { value }) => sum + value, 0);
}

// Cumulative buckets of a histogram, ascending: [{le, count}].
export function buckets(samples, name, wanted = () => true) {
  const counts = new Map();
  for (const { labels, value } of samples.get(`${name}_bucket`) ?? []) {
    if (wanted(labels)) counts.set(number(labels.le), (counts.get(number(labels.le)) ?? 0) + value);
  }
  return [...counts].map(([le, count]) => ({ le, count })).sort((a, b) => a.le - b.le);
}

// A quantile, taken to lie evenly within its bucket as Prometheus' histogram_quantile does; null without observations,
// Infinity beyond the last finite bucket.
export function quantile(cumulative, q) {
  const all = cumulative.at(-1)?.count ?? 0;
  if (all === 0) return null;
  const rank = q * all;
  let lower = 0;
  let below = 0;
  for (const { le, count } of cumulative) {
    if (count >= rank && count > below) {
      return le === Infinity ? Infinity : lower + ((le - lower) * (rank - below)) / (count - below);
    }
    lower = le;
    below = count;
  }
  return Infinity;
}

function number(text) {
  return text === "+Inf" ? Infinity : Number(text);
}

function unescaped(value) {
  return value.replace(/\\(.)/g, (_, escaped) => (escaped === "n" ? "\n" : escaped));
}
