"use strict";

/** The axes of the volume that run across a picture, down it (turned round or not), and through it. */
const PLANES = {
  coronal: { across: 1, down: 2, through: 0, turned: true, sides: ["R", "L"] },
  sagittal: { across: 0, down: 2, through: 1, turned: true, sides: ["A", "P"] },
  axial: { across: 1, down: 0, through: 2, turned: false, sides: ["R", "L"] },
};
const LITTLE_CHANGE = [255, 255, 255];
const LESS = [33, 102, 172];
const MORE = [178, 24, 43];
const CROSS_COLOUR = "#d9480f";
const SIDE_COLOUR = "#1d4ed8";

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** Grey of every number of a volume in a window, 0 to 255, dark is high. */
function greys(volume, [low, high]) {
  return Uint8ClampedArray.from(volume.values, (value) => 255 * (1 - (value - low) / (high - low)));
}

/** Numbers of one slice as [row][column] offsets into the volume. */
function sliceOffsets(shape, plane, index) {
  const strides = [shape[1] * shape[2], shape[2], 1];
  const { across, down, through, turned } = PLANES[plane];
  const rows = shape[down];
  const first = index * strides[through] + (turned ? (rows - 1) * strides[down] : 0);
  return { first, row: (turned ? -1 : 1) * strides[down], column: strides[across], rows, columns: shape[across] };
}

/** Paints a slice in grey; with `base`, its difference to that volume is laid over it in red (more) and blue (less). */
function paintSlice(context, volume, plane, index, window, base, differenceTop) {
  const { first, row, column, rows, columns } = sliceOffsets(volume.shape, plane, index);
  const image = context.createImageData(columns, rows);
  const grey = greys(volume, window);
  let pixel = 0;
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++, pixel += 4) {
      const offset = first + r * row + c * column;
      const number = volume.numbers[offset] - volume.lowest;
      const shade = grey[number];
      let share = 0;
      let tint = LITTLE_CHANGE;
      if (base) {
        const change = volume.values[number] - base.values[base.numbers[offset] - base.lowest];
        share = Math.min(Math.abs(change) / differenceTop, 1);
        tint = change > 0 ? MORE : LESS;
      }
      for (let colour = 0; colour < 3; colour++) {
        image.data[pixel + colour] = shade * (1 - share) + tint[colour] * share;
      }
      image.data[pixel + 3] = 255;
    }
  }
  context.canvas.width = columns;
  context.canvas.height = rows;
  context.putImageData(image, 0, 0);
}

/** Position of a place of the volume in a picture of a plane, as shares of its width and height. */
function shareOf(shape, plane, place) {
  const { across, down, turned } = PLANES[plane];
  const y = (place[down] + 0.5) / shape[down];
  return [(place[across] + 0.5) / shape[across], turned ? 1 - y : y];
}

/** The place of the volume under a point of a picture (shares of width and height) in the slice of `cross`. */
function placeAt(shape, plane, [x, y], cross) {
  const { across, down, turned } = PLANES[plane];
  const place = [...cross];
  place[across] = clamp(Math.floor(x * shape[across]), 0, shape[across] - 1);
  place[down] = clamp(Math.floor((turned ? 1 - y : y) * shape[down]), 0, shape[down] - 1);
  return place;
}

/** Draws the cross-hair with a gap in its middle, and the patient's sides. */
function drawMarks(context, plane, [x, y], scale) {
  const { width, height } = context.canvas;
  const gap = 7 * scale;
  const [px, py] = [x * width, y * height];
  context.strokeStyle = CROSS_COLOUR;
  context.lineWidth = scale;
  context.beginPath();
  for (const [x0, y0, x1, y1] of [
    [0, py, px - gap, py], [px + gap, py, width, py], [px, 0, px, py - gap], [px, py + gap, px, height],
  ]) {
    context.moveTo(x0, y0);
    context.lineTo(x1, y1);
  }
  context.stroke();
  context.fillStyle = SIDE_COLOUR;
  context.font = `600 ${12 * scale}px system-ui, sans-serif`;
  context.textBaseline = "top";
  context.textAlign = "left";
  context.fillText(PLANES[plane].sides[0], 4 * scale, 4 * scale);
  context.textAlign = "right";
  context.fillText(PLANES[plane].sides[1], width - 4 * scale, 4 * scale);
}
