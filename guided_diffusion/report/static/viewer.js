"use strict";

/** Linked slices of several volumes on one grid: one cross-hair, one window, one picture per volume and plane. */
class Viewer {
  constructor(root, layout, volumes) {
    this.root = root;
    this.layout = layout;
    this.volumes = volumes;
    this.cross = layout.shape.map((size) => Math.floor(size / 2));
    this.pointer = null;
    this.window = [...layout.window];
    this.difference = false;
    this.base = 0;
    this.single = false;
    this.current = Math.min(1, volumes.length - 1);
    this.panels = [...root.querySelectorAll("[data-panel]")];
    this.canvases = [...root.querySelectorAll("canvas[data-plane]")];
    this.offscreen = new Map(this.canvases.map((canvas) => [canvas, document.createElement("canvas")]));
    this.painted = new Map();
    this.waiting = false;
    new ResizeObserver(() => this.refresh()).observe(root);
  }

  moveTo(place) {
    this.cross = place.map((index, axis) => clamp(index, 0, this.layout.shape[axis] - 1));
    this.refresh();
  }

  step(axis, by) {
    const place = [...this.cross];
    place[axis] += by;
    this.moveTo(place);
  }

  setWindow(low, high) {
    this.window = [Math.max(0, Math.min(low, high - 0.1)), Math.max(high, 0.1)];
    this.refresh();
  }

  setDifference(on, base = this.base) {
    this.difference = on;
    this.base = base;
    this.refresh();
  }

  show(single, current = this.current) {
    this.single = single;
    this.current = (current + this.volumes.length) % this.volumes.length;
    this.refresh();
  }

  /** The window of a volume: a deviation's own follows the height of the common one. */
  windowOf(number) {
    const about = this.layout.volumes[number];
    return about.is_deviation ? [0, (about.window[1] * this.window[1]) / this.layout.window[1]] : this.window;
  }

  /** Changes of this size get the full colour. */
  get differenceTop() {
    return (this.window[1] - this.window[0]) / 4;
  }

  /** Draws once before the next frame, however often it is called. */
  refresh() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.draw();
    });
  }

  draw() {
    this.hidePanels();
    this.root.classList.toggle("single", this.single);
    for (const canvas of this.canvases) {
      if (canvas.clientWidth) this.drawSlice(canvas);
    }
    this.root.dataset.cross = this.cross.join(",");
    this.root.dataset.window = this.window.join(",");
    this.root.dispatchEvent(new CustomEvent("viewerchange"));
  }

  /** Hides all panels but the current one if it is shown alone. A slice that had the focus hands it to its plane there:
   * without a focus in the viewer its keys would do nothing. */
  hidePanels() {
    const focused = this.canvases.find((canvas) => canvas === document.activeElement);
    this.panels.forEach((panel, number) => {
      panel.hidden = this.single && number !== this.current;
    });
    if (!focused || !this.panels[Number(focused.dataset.volume)].hidden) return;
    const shown = this.panels[this.current].querySelector(`canvas[data-plane=${focused.dataset.plane}]`);
    shown.focus({ preventScroll: true });
  }

  drawSlice(canvas) {
    const { plane } = canvas.dataset;
    const number = Number(canvas.dataset.volume);
    const index = this.cross[PLANES[plane].through];
    const about = this.layout.volumes[number];
    const base = this.difference && number !== this.base && !about.is_deviation ? this.volumes[this.base] : null;
    const state = JSON.stringify([index, this.windowOf(number), base !== null && this.base]);
    const slice = this.offscreen.get(canvas);
    if (this.painted.get(canvas) !== state) {
      const context = slice.getContext("2d");
      paintSlice(context, this.volumes[number], plane, index, this.windowOf(number), base, this.differenceTop);
      this.painted.set(canvas, state);
    }
    const scale = window.devicePixelRatio || 1;
    canvas.width = Math.round(canvas.clientWidth * scale);
    canvas.height = Math.round(canvas.clientHeight * scale);
    const context = canvas.getContext("2d");
    context.drawImage(slice, 0, 0, canvas.width, canvas.height);
    drawMarks(context, plane, shareOf(this.layout.shape, plane, this.cross), scale);
  }

  /** A place in words, from the affine: mm to the patient's right or left, front or back, head or feet. */
  describe(place) {
    return this.layout.affine.slice(0, 3).map((row, axis) => {
      const mm = row[0] * place[0] + row[1] * place[1] + row[2] * place[2] + row[3];
      return `${["RL", "AP", "SI"][axis][mm < 0 ? 1 : 0]} ${Math.abs(mm).toFixed(1)}`;
    }).join(", ") + " mm";
  }
}
