"use strict";

/** Reads the page's volumes and connects the viewer. Sets data-state of the page to ready or failed. */
async function startViewer() {
  const root = document.getElementById("viewer");
  const status = root.querySelector("[data-status]");
  try {
    if (!("DecompressionStream" in window)) throw new Error("it is older than 2023 and cannot unpack the volumes");
    const layout = JSON.parse(document.getElementById("layout").textContent);
    const volumes = [];
    for (let n = 0; n < layout.volumes.length; n++) {
      status.textContent = `Reading volume ${n + 1} of ${layout.volumes.length} …`;
      const element = document.getElementById(`volume-${n}`);
      volumes.push(await unpackVolume(element.textContent, layout));
      element.remove();
    }
    const viewer = new Viewer(root, layout, volumes);
    viewer.root.addEventListener("viewerchange", () => showState(viewer));
    connectPointers(viewer);
    connectKeys(viewer);
    connectForm(viewer);
    viewer.refresh();
    status.textContent = "";
    document.documentElement.dataset.state = "ready";
  } catch (error) {
    status.textContent = `This browser cannot show the slices: ${error.message}. The projections and tables are complete.`;
    document.documentElement.dataset.state = "failed";
  }
}

const turning = document.getElementById("rotation");
if (turning) connectRotation(turning, JSON.parse(document.getElementById("turning").textContent));
startViewer();
