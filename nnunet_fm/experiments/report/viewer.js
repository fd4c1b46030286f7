"use strict";
// Slices of a case with contours of truth and predictions. Data: the script element "cases", see report/cases.py.
(() => {
  const cases = JSON.parse(document.getElementById("cases").textContent);
  if (!cases.length) return;
  const get = (id) => document.getElementById(id);
  const [canvas, slice, where, overlays] = ["canvas", "slice", "where", "overlays"].map(get);
  const DASHES = [[], [7, 3], [2, 3], [9, 3, 2, 3], [12, 4], [4, 4]];
  const SIDE = 640; // longer side of the picture in pixels
  // axes (z, y, x) that run down, across and through; `up` turns the picture so that the head is on top
  const PLANES = {
    axial: { down: 1, across: 2, through: 0, up: false },
    coronal: { down: 0, across: 2, through: 1, up: true },
    sagittal: { down: 0, across: 1, through: 2, up: true },
  };
  let shown = null;
  let turn = 0; // of the case that is being loaded: a slow one does not overwrite a later one

  async function unpack(text) {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  function fill(select, names) {
    select.replaceChildren(...names.map((name, n) => new Option(name, n)));
  }

  async function load(number) {
    const mine = ++turn;
    const given = cases[number];
    const volumes = await Promise.all([...given.channels, ...given.labels].map((v) => unpack(v.voxels)));
    if (mine !== turn) return;
    const count = given.channels.length;
    shown = { ...given, images: volumes.slice(0, count), masks: volumes.slice(count) };
    fill(get("channel"), given.channels.map((c) => c.name));
    fill(get("region"), given.regions.map((r) => r.name));
    overlays.replaceChildren(...given.labels.map(overlay));
    get("plane").value = "axial";
    place(given.start);
  }

  function overlay(label, number) {
    const row = document.createElement("label");
    const box = document.createElement("input");
    const line = document.createElement("canvas");
    [box.type, box.checked] = ["checkbox", true];
    box.addEventListener("change", draw);
    [line.className, line.width, line.height] = ["swatch", 48, 8];
    const pen = line.getContext("2d");
    [pen.strokeStyle, pen.lineWidth] = [label.colour, 3];
    pen.setLineDash(DASHES[number % DASHES.length]);
    pen.stroke(new Path2D("M0 4H48"));
    row.append(box, line, `${label.name} (${number})`);
    return row;
  }

  function place(start) {
    const plane = PLANES[get("plane").value];
    slice.max = shown.shape[plane.through] - 1;
    slice.value = start ?? Math.floor(slice.max / 2);
    draw();
  }

  function cut(volume, plane, position) {
    const steps = [shown.shape[1] * shown.shape[2], shown.shape[2], 1];
    const [rows, columns] = [shown.shape[plane.down], shown.shape[plane.across]];
    const result = new Uint8Array(rows * columns);
    for (let r = 0; r < rows; r++) {
      const from = position * steps[plane.through] + (plane.up ? rows - 1 - r : r) * steps[plane.down];
      for (let c = 0; c < columns; c++) result[r * columns + c] = volume[from + c * steps[plane.across]];
    }
    return result;
  }

  function drawImage(plane, position, rows, columns) {
    const voxels = cut(shown.images[get("channel").value], plane, position);
    const small = document.createElement("canvas");
    [small.width, small.height] = [columns, rows];
    const pixels = new ImageData(columns, rows);
    voxels.forEach((v, n) => pixels.data.set([v, v, v, 255], 4 * n));
    small.getContext("2d").putImageData(pixels, 0, 0);
    const pen = canvas.getContext("2d");
    pen.imageSmoothingEnabled = false;
    pen.drawImage(small, 0, 0, canvas.width, canvas.height);
  }

  // Edges between voxels inside and outside, each with the inside on its right, chained into closed lines so that
  // dashes run along them. Corners are numbered row by row.
  function contour(mask, rows, columns) {
    const [h, w, across] = [canvas.height / rows, canvas.width / columns, columns + 1];
    const inside = (r, c) => r >= 0 && c >= 0 && r < rows && c < columns && mask[r * columns + c];
    const after = new Map();
    const edge = (r, c, r2, c2) => {
      const from = r * across + c;
      if (!after.has(from)) after.set(from, []);
      after.get(from).push(r2 * across + c2);
    };
    for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) {
      if (!inside(r, c)) continue;
      if (!inside(r - 1, c)) edge(r, c, r, c + 1);
      if (!inside(r, c + 1)) edge(r, c + 1, r + 1, c + 1);
      if (!inside(r + 1, c)) edge(r + 1, c + 1, r + 1, c);
      if (!inside(r, c - 1)) edge(r + 1, c, r, c);
    }
    const path = new Path2D();
    const point = (corner) => [(corner % across) * w, Math.floor(corner / across) * h];
    for (const [start, ends] of after) while (ends.length) {
      path.moveTo(...point(start));
      for (let at = ends.pop(); ; at = after.get(at).pop()) {
        path.lineTo(...point(at));
        if (at === start) break;
      }
    }
    return path;
  }

  function drawContours(plane, position, rows, columns) {
    const wanted = new Set(shown.regions[get("region").value].labels);
    const pen = canvas.getContext("2d");
    overlays.querySelectorAll("input").forEach((box, n) => {
      if (!box.checked) return;
      const path = contour(cut(shown.masks[n], plane, position).map((v) => wanted.has(v)), rows, columns);
      pen.setLineDash(DASHES[n % DASHES.length]);
      for (const [colour, width] of [["#000", 4], [shown.labels[n].colour, 2]]) {
        [pen.strokeStyle, pen.lineWidth] = [colour, width];
        pen.stroke(path);
      }
    });
  }

  function draw() {
    const name = get("plane").value;
    const plane = PLANES[name];
    const position = Number(slice.value);
    const [rows, columns] = [shown.shape[plane.down], shown.shape[plane.across]];
    const [height, width] = [rows * shown.spacing[plane.down], columns * shown.spacing[plane.across]];
    const scale = SIDE / Math.max(height, width);
    [canvas.height, canvas.width] = [Math.round(height * scale), Math.round(width * scale)];
    drawImage(plane, position, rows, columns);
    drawContours(plane, position, rows, columns);
    where.textContent = `${position + 1} of ${shown.shape[plane.through]}`;
    canvas.setAttribute("aria-label", `${shown.name}, ${name} slice ${where.textContent}`);
    canvas.dataset.slice = position;
  }

  function step(by) {
    slice.value = Number(slice.value) + by; // the range keeps it inside
    draw();
  }

  const KEYS = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10, Home: -1e6, End: 1e6 };
  canvas.addEventListener("keydown", (event) => {
    const box = overlays.querySelectorAll("input")[event.key];
    if (event.key in KEYS) step(KEYS[event.key]);
    else if (box) box.click();
    else return;
    event.preventDefault();
  });
  canvas.addEventListener("wheel", (event) => {
    step(event.deltaY > 0 ? -1 : 1);
    event.preventDefault();
  }, { passive: false });
  slice.addEventListener("input", draw);
  for (const id of ["channel", "region"]) get(id).addEventListener("change", draw);
  get("plane").addEventListener("change", () => place());
  get("case").addEventListener("change", (event) => load(event.target.value));
  fill(get("case"), cases.map((c) => c.name));
  load(0);
})();
