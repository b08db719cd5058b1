"use strict";

/** A volume of whole numbers [X, Y, Z], Z fastest, each standing for knee * sinh(number * step). */
class PackedVolume {
  constructor(shape, numbers, step, knee) {
    this.shape = shape;
    this.numbers = numbers;
    this.lowest = 0;
    let highest = 0;
    for (const number of numbers) {
      if (number < this.lowest) this.lowest = number;
      if (number > highest) highest = number;
    }
    this.values = Float32Array.from({ length: highest - this.lowest + 1 },
      (_, n) => knee * Math.sinh((n + this.lowest) * step));
  }

  /** The value at a place [i, j, k]. */
  at([i, j, k]) {
    const [, ny, nz] = this.shape;
    return this.values[this.numbers[(i * ny + j) * nz + k] - this.lowest];
  }
}

/** Reads what packing.py wrote: base64 of zlib of zigzag-coded differences along Z, low bytes before high bytes. */
async function unpackVolume(text, { shape, step, knee }) {
  const packed = Uint8Array.from(atob(text.trim()), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const count = shape[0] * shape[1] * shape[2];
  const numbers = new Int16Array(count);
  let previous = 0;
  for (let n = 0; n < count; n++) {
    if (n % shape[2] === 0) previous = 0;
    const zigzag = bytes[n] | (bytes[count + n] << 8);
    previous += (zigzag >>> 1) ^ -(zigzag & 1);
    numbers[n] = previous;
  }
  return new PackedVolume(shape, numbers, step, knee);
}
