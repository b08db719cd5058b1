"use strict";

const TAP_PIXELS = 8;
const SWIPE_PIXELS_PER_SLICE = 6;
const WINDOW_SUV_PER_PIXEL = 0.02;
const ARROWS = { arrowleft: ["across", -1], arrowright: ["across", 1], arrowup: ["down", -1], arrowdown: ["down", 1] };

/** Mouse and touch on the slices. */
function connectPointers(viewer) {
  for (const canvas of viewer.canvases) {
    const { plane } = canvas.dataset;
    const { through } = PLANES[plane];
    const place = (event) => {
      const box = canvas.getBoundingClientRect();
      const share = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
      return placeAt(viewer.layout.shape, plane, share, viewer.cross);
    };
    let drag = null;
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      const windowing = event.button === 2 || event.shiftKey;
      drag = { x: event.clientX, y: event.clientY, window: windowing ? [...viewer.window] : null, slice: viewer.cross[through] };
      if (event.pointerType !== "touch" && !windowing) viewer.moveTo(place(event));
    });
    canvas.addEventListener("pointermove", (event) => {
      viewer.pointer = event.pointerType === "touch" ? null : place(event);
      const [right, down] = drag ? [event.clientX - drag.x, event.clientY - drag.y] : [0, 0];
      if (drag && drag.window) {
        viewer.setWindow(drag.window[0] + right * WINDOW_SUV_PER_PIXEL, drag.window[1] + down * WINDOW_SUV_PER_PIXEL);
      } else if (drag && event.pointerType === "touch") {
        const moved = Math.trunc(right / SWIPE_PIXELS_PER_SLICE);
        viewer.step(through, drag.slice + moved - viewer.cross[through]);
      } else if (drag) {
        viewer.moveTo(place(event));
      }
      viewer.refresh();
    });
    canvas.addEventListener("pointerup", (event) => {
      const still = drag && Math.hypot(event.clientX - drag.x, event.clientY - drag.y) < TAP_PIXELS;
      if (still && event.pointerType === "touch") viewer.moveTo(place(event));
      drag = null;
    });
    canvas.addEventListener("pointercancel", () => { drag = null; });
    canvas.addEventListener("pointerleave", () => {
      viewer.pointer = null;
      viewer.refresh();
    });
    canvas.addEventListener("wheel", (event) => {
      if (event.ctrlKey) return;
      event.preventDefault();
      viewer.step(through, Math.sign(event.deltaY));
    }, { passive: false });
  }
}

/** Keys on the viewer, whichever of its parts has the focus. */
function connectKeys(viewer) {
  const presets = [...viewer.root.querySelectorAll("[data-preset]")];
  viewer.root.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.target.matches("input[type=number], select")) return;
    const plane = event.target.dataset.plane;
    const by = event.shiftKey ? 10 : 1;
    const key = event.key.toLowerCase(); // the page shows capital letters, and Caps Lock writes them
    if (plane && key in ARROWS) {
      const [name, direction] = ARROWS[key];
      const { turned } = PLANES[plane];
      viewer.step(PLANES[plane][name], direction * by * (name === "down" && turned ? -1 : 1));
    } else if (plane && (key === "pageup" || key === "pagedown")) {
      viewer.step(PLANES[plane].through, (key === "pageup" ? -1 : 1) * by);
    } else if (key === "+" || key === "=") {
      viewer.setWindow(viewer.window[0], viewer.window[1] + 0.5);
    } else if (key === "-") {
      viewer.setWindow(viewer.window[0], viewer.window[1] - 0.5);
    } else if (key >= "1" && key <= String(presets.length)) {
      presets[Number(key) - 1].click();
    } else if (key === "d") {
      viewer.setDifference(!viewer.difference);
    } else if (key === "s") {
      viewer.show(!viewer.single);
    } else if (key === "f") {
      viewer.show(true, viewer.single ? viewer.current + 1 : viewer.current);
    } else if (key === "n" || key === "p") {
      visitPlace(viewer, key === "n" ? 1 : -1);
    } else {
      return;
    }
    event.preventDefault();
  });
}

/** Buttons, sliders and the places that tables link to. */
function connectForm(viewer) {
  const { root } = viewer;
  for (const slider of root.querySelectorAll("[data-axis]")) {
    slider.addEventListener("input", () => {
      const place = [...viewer.cross];
      place[Number(slider.dataset.axis)] = Number(slider.value);
      viewer.moveTo(place);
    });
  }
  for (const button of root.querySelectorAll("[data-preset]")) {
    button.addEventListener("click", () => viewer.setWindow(0, Number(button.dataset.preset)));
  }
  const edges = [...root.querySelectorAll("[data-edge]")];
  for (const edge of edges) {
    edge.addEventListener("change", () => {
      const [low, high] = edges.map((input) => Number(input.value));
      if (Number.isFinite(low) && high > low) viewer.setWindow(low, high);
      else viewer.refresh();
    });
  }
  root.querySelector("[data-difference]").addEventListener("change", (event) => viewer.setDifference(event.target.checked));
  root.querySelector("[data-base]").addEventListener("change", (event) => viewer.setDifference(true, Number(event.target.value)));
  for (const button of root.querySelectorAll("[data-show]")) {
    const number = Number(button.dataset.show);
    button.addEventListener("click", () => (number < 0 ? viewer.show(false) : viewer.show(true, number)));
  }
  for (const link of document.querySelectorAll("[data-place]")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      visit(viewer, link);
    });
  }
}

/** Moves the cross-hair to the place of a link and brings the viewer to the reader. */
function visit(viewer, link) {
  document.querySelectorAll("[data-place][aria-current]").forEach((other) => other.removeAttribute("aria-current"));
  link.setAttribute("aria-current", "location");
  viewer.moveTo(link.dataset.place.split(",").map(Number));
  const slices = viewer.root.querySelector("[data-panel]:not([hidden]) canvas");
  slices.focus({ preventScroll: true });
  viewer.root.scrollIntoView({ block: "start" });
}

/** Goes on from the place last visited to the next or previous one of the tables. */
function visitPlace(viewer, by) {
  const links = [...document.querySelectorAll("[data-place]")];
  if (!links.length) return;
  const last = links.findIndex((link) => link.hasAttribute("aria-current"));
  visit(viewer, links[(last < 0 ? (by > 0 ? 0 : links.length - 1) : last + by + links.length) % links.length]);
}

/** Writes the state of the viewer into its controls and its table of values. */
function showState(viewer) {
  const { root, layout } = viewer;
  for (const slider of root.querySelectorAll("[data-axis]")) slider.value = viewer.cross[Number(slider.dataset.axis)];
  root.querySelectorAll("[data-edge]").forEach((edge, n) => {
    if (edge !== document.activeElement) edge.value = viewer.window[n].toFixed(1);
  });
  for (const button of root.querySelectorAll("[data-preset]")) {
    const chosen = viewer.window[0] === 0 && viewer.window[1] === Number(button.dataset.preset);
    button.setAttribute("aria-pressed", String(chosen));
  }
  for (const button of root.querySelectorAll("[data-show]")) {
    const number = Number(button.dataset.show);
    button.setAttribute("aria-pressed", String(viewer.single ? number === viewer.current : number < 0));
  }
  root.querySelector("[data-difference]").checked = viewer.difference;
  root.querySelector("[data-difference-top]").textContent = viewer.differenceTop.toFixed(2);
  const text = (selector, content) => { root.querySelector(selector).textContent = content; };
  text("[data-cross-mm]", viewer.describe(viewer.cross));
  text("[data-pointer-mm]", viewer.pointer ? viewer.describe(viewer.pointer) : "–");
  viewer.volumes.forEach((volume, n) => {
    text(`[data-cross-value="${n}"]`, volume.at(viewer.cross).toFixed(3));
    text(`[data-pointer-value="${n}"]`, viewer.pointer ? volume.at(viewer.pointer).toFixed(3) : "–");
    const [low, high] = viewer.windowOf(n);
    text(`[data-window-of="${n}"]`, `${low.toFixed(1)} to ${high.toFixed(layout.volumes[n].is_deviation ? 2 : 1)}`);
  });
}
