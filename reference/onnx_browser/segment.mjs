// Segments images in a browser with a model that `zeg export … --with-preprocessing --dynamic-size` wrote.

/** Reads the table of `zeg embed`: class names, and one embedding for each. */
export function readTable(buffer) {
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const { shape, data_offsets: [start, end] } = header.embeddings;
  const values = new Float32Array(buffer.slice(8 + length + start, 8 + length + end));
  return { names: JSON.parse(header.__metadata__.classes), values, shape };
}

/** Returns the class index of every pixel, and the share of every class. */
export async function segment(ort, session, table, { data, width, height }) {
  const bytes = new Uint8Array(width * height * 3); // a canvas holds RGBA
  for (let pixel = 0; pixel < width * height; pixel++) {
    bytes.set(data.subarray(4 * pixel, 4 * pixel + 3), 3 * pixel);
  }
  const { scores } = await session.run({
    image: new ort.Tensor("uint8", bytes, [1, height, width, 3]),
    class_embeddings: new ort.Tensor("float32", table.values, table.shape),
  });
  const labels = new Uint8Array(width * height);
  const counts = new Array(table.names.length).fill(0);
  for (let pixel = 0; pixel < labels.length; pixel++) {
    let best = 0;
    for (let index = 1; index < table.names.length; index++) {
      const at = (label) => scores.data[label * labels.length + pixel];
      if (at(index) > at(best)) best = index;
    }
    labels[pixel] = best;
    counts[best]++;
  }
  return { labels, shares: counts.map((count) => count / labels.length) };
}
