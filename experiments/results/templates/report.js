"use strict";

// Tables: a click on a header sorts the rows of each group. Missing values stay last.
function compareCells(a, b, sign) {
  const [x, y] = [a.dataset.value, b.dataset.value];
  if (!x || !y) return !x - !y;
  const difference = Number.isNaN(Number(x)) ? x.localeCompare(y, undefined, { numeric: true }) : Number(x) - Number(y);
  return sign * difference;
}

for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, index) => header.querySelector("button").addEventListener("click", () => {
    const sign = header.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    headers.forEach((each) => each.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    for (const body of table.tBodies) {
      const rows = [...body.rows].filter((row) => !row.classList.contains("group"));
      body.append(...rows.sort((a, b) => compareCells(a.cells[index], b.cells[index], sign)));
    }
  }));
}

// Galleries: two images with a divider, chosen from lists or by a click on a tile, and zoomed and panned together.
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

function startGallery(gallery) {
  const [prompt, left, right, split, zoom] = ["prompt", "left", "right", "split", "zoom"].map(
    (name) => gallery.querySelector(`[name=${name}]`));
  const stage = gallery.querySelector(".stage");
  const tiles = [...gallery.querySelectorAll(".tile")];
  const sides = [...gallery.querySelectorAll(".side")];
  const corner = { x: 0, y: 0 }; // top left of the visible part, as a fraction of the image

  function showImages() {
    const chosen = [left, right].map((select) => Number(prompt.value) * left.length + Number(select.value));
    tiles.forEach((tile, index) => tile.classList.toggle("shown", chosen.includes(index)));
    sides.forEach((side, index) => {
      const image = tiles[chosen[index]].querySelector("img");
      side.querySelector("img").src = image.src;
      side.querySelector("img").alt = image.alt;
      side.querySelector(".tag").textContent = [left, right][index].selectedOptions[0].text;
    });
  }

  function showView() {
    const scale = Number(zoom.value);
    corner.x = clamp(corner.x, 0, 1 - 1 / scale);
    corner.y = clamp(corner.y, 0, 1 - 1 / scale);
    stage.classList.toggle("zoomed", scale > 1);
    stage.style.setProperty("--split", `${split.value}%`);
    for (const side of sides) {
      side.firstElementChild.style.transform = `scale(${scale}) translate(${-100 * corner.x}%, ${-100 * corner.y}%)`;
    }
  }

  function zoomTo(scale) { // keeps the centre of the visible part
    const before = Number(zoom.dataset.before || 1);
    corner.x += (1 / before - 1 / scale) / 2;
    corner.y += (1 / before - 1 / scale) / 2;
    zoom.dataset.before = scale;
    showView();
  }

  function panBy(x, y) {
    corner.x += x / Number(zoom.value);
    corner.y += y / Number(zoom.value);
    showView();
  }

  stage.addEventListener("pointerdown", (down) => {
    const box = stage.getBoundingClientRect();
    const pan = Number(zoom.value) > 1 && !down.target.closest(".divider span");
    let last = down;
    const move = (event) => {
      if (pan) {
        panBy((last.clientX - event.clientX) / box.width, (last.clientY - event.clientY) / box.height);
      } else {
        split.value = clamp(100 * (event.clientX - box.left) / box.width, 0, 100);
        showView();
      }
      last = event;
    };
    const stop = () => ["pointermove", "pointerup", "pointercancel"].forEach(
      (name) => stage.removeEventListener(name, name === "pointermove" ? move : stop));
    stage.addEventListener("pointermove", move);
    stage.addEventListener("pointerup", stop);
    stage.addEventListener("pointercancel", stop);
    stage.setPointerCapture(down.pointerId);
    move(down);
  });
  stage.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] }[event.key];
    if (!step || Number(zoom.value) === 1) return;
    event.preventDefault();
    panBy(...step);
  });
  tiles.forEach((tile, index) => tile.addEventListener("click", () => {
    prompt.value = Math.floor(index / left.length);
    right.value = index % left.length;
    showImages();
    stage.scrollIntoView({ block: "nearest" });
  }));
  [prompt, left, right].forEach((select) => select.addEventListener("input", showImages));
  split.addEventListener("input", showView);
  zoom.addEventListener("input", () => zoomTo(Number(zoom.value)));
  gallery.querySelector(".compare").hidden = false;
  showImages();
  showView();
}

document.querySelectorAll(".gallery").forEach(startGallery);
