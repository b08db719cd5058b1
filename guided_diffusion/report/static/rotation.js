"use strict";

const TURN_MILLISECONDS = 120;

/** The turning projections: a slider, a button that starts and stops, and views of which half are mirror images. */
function connectRotation(section, rotation) {
  const pictures = [...section.querySelectorAll("img[data-turning]")];
  const slider = section.querySelector("input[type=range]");
  const button = section.querySelector("button");
  const half = rotation.views / 2;
  const show = (view) => {
    pictures.forEach((picture, n) => {
      picture.src = rotation.images[n].views[view % half];
      picture.classList.toggle("mirrored", view >= half);
      picture.alt = `${rotation.images[n].title}: projection at ${(view * 360) / rotation.views} degrees`;
    });
    section.querySelector("output").textContent = `${(view * 360) / rotation.views}°`;
  };
  let timer = null;
  slider.addEventListener("input", () => show(Number(slider.value)));
  button.addEventListener("click", () => {
    if (timer) {
      clearInterval(timer);
      timer = null;
    } else {
      timer = setInterval(() => {
        slider.value = (Number(slider.value) + 1) % rotation.views;
        show(Number(slider.value));
      }, TURN_MILLISECONDS);
    }
    button.textContent = timer ? "Stop" : "Turn";
  });
  show(0);
}
