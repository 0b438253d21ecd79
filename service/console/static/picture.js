// Pictures: cutting faces out, and drawing them with boxes.

const MARGIN = 0.6;
const COVER = "#808080";
const QUALITY = 0.95;
const MAX_ENLARGEMENT = 3;
// On photographs, so the same in both themes. Known and unknown differ by line as well, not by colour alone.
const KNOWN = { line: "#2ec4b6", tag: "#0b5a55", text: "#ffffff", dash: [] };
const UNKNOWN = { line: "#ffb020", tag: "#4a3000", text: "#ffe6b3", dash: [7, 5] };

// Where to cut a face out: its box with a margin, in whole pixels of the picture.
export function cropOf(box, width, height, margin = MARGIN) {
  const left = Math.max(0, Math.floor(box.x - box.width * margin));
  const top = Math.max(0, Math.floor(box.y - box.height * margin));
  const right = Math.min(width, Math.ceil(box.x + box.width * (1 + margin)));
  const bottom = Math.min(height, Math.ceil(box.y + box.height * (1 + margin)));
  return { x: left, y: top, width: Math.max(1, right - left), height: Math.max(1, bottom - top) };
}

// A JPEG of one face of the picture and nobody else: other faces within the cut are covered.
export async function faceFile(bitmap, boxes, index) {
  const own = boxes[index];
  const cut = cropOf(own, bitmap.width, bitmap.height);
  const canvas = new OffscreenCanvas(cut.width, cut.height);
  const pen = canvas.getContext("2d");
  pen.translate(-cut.x, -cut.y);
  pen.drawImage(bitmap, 0, 0);
  pen.fillStyle = COVER;
  boxes.forEach((box, other) => {
    if (other !== index) pen.fillRect(box.x, box.y, box.width, box.height);
  });
  pen.beginPath();
  pen.rect(own.x, own.y, own.width, own.height);
  pen.clip();
  pen.drawImage(bitmap, 0, 0);
  const blob = await canvas.convertToBlob({ type: "image/jpeg", quality: QUALITY });
  return new File([blob], "face.jpg", { type: "image/jpeg" });
}

// A small square of one face, for the list.
export function thumbnail(bitmap, box, side) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = side * 2;
  canvas.className = "thumbnail";
  canvas.setAttribute("aria-hidden", "true");
  const size = Math.max(box.width, box.height) * 1.4;
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  const left = box.x + (box.width - size) / 2;
  const top = box.y + (box.height - size) / 2;
  pen.drawImage(bitmap, left, top, size, size, 0, 0, canvas.width, canvas.height);
  return canvas;
}

// Draws the picture as large as `room` allows, with a box and a label for each face: {box, label, known}.
// Returns how many CSS pixels one pixel of the picture takes.
export function draw(canvas, room, bitmap, faces, chosen) {
  const scale = Math.min(room.width / bitmap.width, room.height / bitmap.height, MAX_ENLARGEMENT);
  const density = window.devicePixelRatio || 1;
  canvas.style.width = `${Math.round(bitmap.width * scale)}px`;
  canvas.style.height = `${Math.round(bitmap.height * scale)}px`;
  canvas.width = Math.round(bitmap.width * scale * density);
  canvas.height = Math.round(bitmap.height * scale * density);
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  pen.scale(density, density);
  faces.forEach((face, index) => outline(pen, scaled(face.box, scale), face.known, index === chosen));
  const limits = { width: bitmap.width * scale, height: bitmap.height * scale };
  // Labels over all boxes, so that no line runs through a name.
  for (const face of faces) tag(pen, scaled(face.box, scale), face, limits);
  return scale;
}

function outline(pen, box, known, chosen) {
  const style = known ? KNOWN : UNKNOWN;
  pen.setLineDash([]);
  pen.lineWidth = chosen ? 6 : 5;
  pen.strokeStyle = "rgba(0, 0, 0, 0.45)";
  pen.strokeRect(box.x, box.y, box.width, box.height);
  pen.setLineDash(style.dash);
  pen.lineWidth = chosen ? 4 : 3;
  pen.strokeStyle = style.line;
  pen.strokeRect(box.x, box.y, box.width, box.height);
}

function tag(pen, box, face, limits) {
  const style = face.known ? KNOWN : UNKNOWN;
  const height = 21;
  pen.font = `600 13px ${getComputedStyle(pen.canvas).fontFamily}`;
  pen.textBaseline = "middle";
  const text = shortened(pen, face.label, Math.max(box.width, 150) - 14);
  const width = pen.measureText(text).width + 14;
  const left = Math.max(0, Math.min(box.x - 1, limits.width - width));
  const top = box.y - height >= 0 ? box.y - height : Math.min(box.y + box.height, limits.height - height);
  pen.fillStyle = style.tag;
  pen.fillRect(left, top, width, height);
  pen.fillStyle = style.text;
  pen.fillText(text, left + 7, top + height / 2 + 0.5);
}

function shortened(pen, text, room) {
  let letters = Array.from(text);
  if (pen.measureText(text).width <= room) return text;
  while (letters.length > 1 && pen.measureText(`${letters.join("")}…`).width > room) letters = letters.slice(0, -1);
  return `${letters.join("")}…`;
}

function scaled(box, scale) {
  return { x: box.x * scale, y: box.y * scale, width: box.width * scale, height: box.height * scale };
}
