// Decodes the PNG files that the server answers with: 8 bits of grey, not interlaced.
//
// A canvas would do it, too, but browsers that guard against fingerprinting change the values that a page reads from one.

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];

/** Calls `row(y, bytes)` for every row of a grey PNG, from top to bottom; `bytes` is valid during the call only. */
export async function greyRows(file, row) {
  const { width, height, packed } = parts(file);
  const plain = new Uint8Array(await new Response(
    new Blob(packed).stream().pipeThrough(new DecompressionStream("deflate")),
  ).arrayBuffer());
  if (plain.length < (width + 1) * height) throw new Error("the PNG is cut off");
  let above = new Uint8Array(width);
  for (let y = 0; y < height; y++) {
    const start = y * (width + 1);
    const line = plain.subarray(start + 1, start + 1 + width);
    unfilter(plain[start], line, above);
    row(y, line);
    above = line;
  }
}

function parts(file) {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  if (SIGNATURE.some((byte, at) => file[at] !== byte)) throw new Error("no PNG");
  const packed = [];
  let width = 0;
  let height = 0;
  for (let at = 8; at + 12 <= file.length;) {
    const length = view.getUint32(at);
    const kind = String.fromCharCode(...file.subarray(at + 4, at + 8));
    const data = file.subarray(at + 8, at + 8 + length);
    if (kind === "IHDR") {
      width = view.getUint32(at + 8);
      height = view.getUint32(at + 12);
      const [depth, colour, , , interlaced] = data.subarray(8);
      if (depth !== 8 || colour !== 0 || interlaced !== 0) throw new Error("no plain grey PNG of 8 bits");
    } else if (kind === "IDAT") {
      packed.push(data);
    }
    at += 12 + length;
  }
  return { width, height, packed };
}

/** Undoes the filter of a row in place (PNG specification, section 9). */
function unfilter(kind, line, above) {
  if (kind === 0) return;
  for (let x = 0; x < line.length; x++) {
    const left = x > 0 ? line[x - 1] : 0;
    const up = above[x];
    const corner = x > 0 ? above[x - 1] : 0;
    if (kind === 1) line[x] += left;
    else if (kind === 2) line[x] += up;
    else if (kind === 3) line[x] += (left + up) >> 1;
    else line[x] += paeth(left, up, corner);
  }
}

function paeth(left, up, corner) {
  const guess = left + up - corner;
  const [a, b, c] = [Math.abs(guess - left), Math.abs(guess - up), Math.abs(guess - corner)];
  if (a <= b && a <= c) return left;
  return b <= c ? up : corner;
}

/** Returns the bytes of a base64 text. */
export function bytesOf(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  return Uint8Array.from(atob(base64), character => character.charCodeAt(0));
}
