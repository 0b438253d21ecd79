// How a WebP picture is to be turned. Browsers read that tag in JPEG and PNG files, but not all of them in WebP, where
// the service does; so it is read here, and taken out of what the browser decodes.

const TAG = 0x0112;
const MOST_CHUNKS = 1000;
// Transforms of canvases of the upright size, for pictures of width w and height h as stored, by orientation.
const TURNS = {
  2: (w) => [-1, 0, 0, 1, w, 0],
  3: (w, h) => [-1, 0, 0, -1, w, h],
  4: (w, h) => [1, 0, 0, -1, 0, h],
  5: () => [0, 1, 1, 0, 0, 0],
  6: (w, h) => [0, 1, -1, 0, h, 0],
  7: (w, h) => [0, -1, -1, 0, h, w],
  8: (w) => [0, -1, 1, 0, 0, w],
};

// The picture upright, as an ImageBitmap; throws where the browser cannot decode it.
export async function decoded(file) {
  const upright = (source) => createImageBitmap(source, { imageOrientation: "from-image" });
  const place = (await isWebp(file)) ? webpOrientation(new DataView(await file.arrayBuffer())) : null;
  if (place === null) return upright(file);
  const turn = TURNS[place.get()];
  place.set(1);
  const stored = await upright(new Blob([place.bytes], { type: "image/webp" }));
  return turn ? turned(stored, turn) : stored;
}

async function isWebp(file) {
  const head = new DataView(await file.slice(0, 12).arrayBuffer());
  return head.byteLength === 12 && head.getUint32(0) === 0x52494646 && head.getUint32(8) === 0x57454250;
}

function turned(stored, turn) {
  const { width, height } = stored;
  const transform = turn(width, height);
  // A quarter turn has nothing on its diagonal.
  const canvas = transform[0] === 0 ? new OffscreenCanvas(height, width) : new OffscreenCanvas(width, height);
  const pen = canvas.getContext("2d");
  pen.setTransform(...transform);
  pen.drawImage(stored, 0, 0);
  stored.close();
  return canvas.transferToImageBitmap();
}

// Where a WebP file has its orientation: RFC 9649, section 2.3 to 2.7, and TIFF 6.0, section 2. Null without one.
function webpOrientation(file) {
  let at = 12;
  for (let chunks = 0; chunks < MOST_CHUNKS && at + 8 <= file.byteLength; chunks += 1) {
    const size = file.getUint32(at + 4, true);
    const end = Math.min(at + 8 + size, file.byteLength);
    if (file.getUint32(at) === 0x45584946) return tiffOrientation(file, at + 8, end);
    at += 8 + size + (size % 2);
  }
  return null;
}

function tiffOrientation(file, begin, end) {
  // Some writers put the "Exif" of JPEG files before it.
  const start = begin + 8 <= end && file.getUint32(begin) === 0x45786966 ? begin + 6 : begin;
  if (start + 8 > end) return null;
  const order = file.getUint16(start);
  if (order !== 0x4949 && order !== 0x4d4d) return null;
  const little = order === 0x4949;
  const directory = start + file.getUint32(start + 4, little);
  if (directory + 2 > end) return null;
  const entries = file.getUint16(directory, little);
  const last = Math.min(directory + 2 + entries * 12, end);
  for (let entry = directory + 2; entry + 12 <= last; entry += 12) {
    if (file.getUint16(entry, little) === TAG) {
      return {
        bytes: file.buffer,
        get: () => file.getUint16(entry + 8, little),
        set: (value) => file.setUint16(entry + 8, value, little),
      };
    }
  }
  return null;
}
