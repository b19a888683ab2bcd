"use strict";
// All videos of a page follow one slider. A video is one picture that holds all its frames, row by row.

const player = document.getElementById("player");
const slider = document.getElementById("frame");
const play = document.getElementById("play");
const told = document.getElementById("told");
const [length, context, columns] = ["length", "context", "columns"].map((name) => Number(player.dataset[name]));
const places = JSON.parse(document.getElementById("places").textContent);
const RATE = 8; // frames a second
const sprites = new Map(); // by index of the video

function draw(canvas, index, frame) {
  const sprite = sprites.get(index);
  if (!sprite || !sprite.complete || !sprite.naturalWidth) { return; }
  const [width, height] = [canvas.width, canvas.height];
  const [column, row] = [frame % columns, Math.floor(frame / columns)];
  canvas.getContext("2d").drawImage(sprite, column * width, row * height, width, height, 0, 0, width, height);
}

function drawStills(index) {
  for (const still of player.querySelectorAll(`canvas[data-of="${index}"]`)) {
    draw(still, index, Number(still.dataset.frame));
  }
}

function onPath(kind, attributes) {
  const mark = document.createElementNS("http://www.w3.org/2000/svg", kind);
  mark.setAttribute("class", "here");
  set(mark, attributes);
  player.querySelector(".path svg").append(mark);
  return mark;
}
function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) { element.setAttribute(name, value); }
}
const ring = onPath("circle", { r: 9 });
const gaze = onPath("line", {});

function show() {
  const frame = Number(slider.value);
  const kind = frame < context ? "given" : "generated";
  told.textContent = `${frame} of ${length - 1}, ${kind}`;
  slider.setAttribute("aria-valuetext", `frame ${frame}, ${kind}`);
  for (const canvas of player.querySelectorAll("canvas.moving")) {
    canvas.classList.toggle("generated", frame >= context);
    if (!canvas.closest("figure").hidden) { draw(canvas, Number(canvas.dataset.index), frame); }
  }
  for (const mark of player.querySelectorAll("line.now")) {
    const [first, last, left, right] = ["first", "last", "left", "right"].map((name) => Number(mark.dataset[name]));
    const x = left + ((frame - first) / Math.max(last - first, 1)) * (right - left);
    set(mark, { x1: x, x2: x });
    mark.toggleAttribute("hidden", frame < first);
  }
  const [[x, y], [u, v]] = places[frame];
  set(ring, { cx: x, cy: y });
  set(gaze, { x1: x, y1: y, x2: x + 2 * (u - x), y2: y + 2 * (v - y) });
  document.dispatchEvent(new CustomEvent("frame", { detail: frame }));
}

function load(index) {
  if (sprites.has(index)) { return; }
  const sprite = new Image();
  sprites.set(index, sprite);
  sprite.addEventListener("load", () => { show(); drawStills(index); });
  sprite.src = player.querySelector(`canvas[data-index="${index}"]`).dataset.sprite;
}

for (const box of player.querySelectorAll("input[data-shows]")) {
  const index = Number(box.dataset.shows);
  const follow = () => {
    for (const part of player.querySelectorAll(`[data-video="${index}"]`)) {
      part.toggleAttribute("hidden", !box.checked);
    }
    if (box.checked) { load(index); }
    show();
  };
  box.addEventListener("change", follow);
  follow(); // a browser may remember what was chosen
}

let timer = null;
function stop() {
  clearInterval(timer);
  timer = null;
  play.textContent = "Play";
  play.setAttribute("aria-pressed", "false");
}
play.addEventListener("click", () => {
  if (timer !== null) { stop(); return; }
  play.textContent = "Pause";
  play.setAttribute("aria-pressed", "true");
  timer = setInterval(() => {
    slider.value = String((Number(slider.value) + 1) % length);
    show();
  }, 1000 / RATE);
});
slider.addEventListener("input", () => { stop(); show(); });
show();
