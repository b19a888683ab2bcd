"use strict";
// Without this file the page works too: videos have their controls and the form is a plain one.

const left = document.getElementById("left");
const right = document.getElementById("right");
const play = document.getElementById("play");
const form = document.getElementById("answers");
const send = document.getElementById("send");
const state = document.getElementById("state");
const shortcuts = document.getElementById("shortcuts");
const videos = [left, right];
const STEP = 0.05; // seconds that the videos may be apart
const WAIT = 3000; // milliseconds until answers are sent again

// Both videos run as one: what is done to one is done to the other, and both end before both start.
function other(video) { return video === left ? right : left; }
function start(video) { video.play().catch(() => {}); }
function fromBeginning() { for (const video of videos) { video.currentTime = 0; start(video); } }
function toggle() {
  const stopped = left.paused;
  for (const video of videos) { if (stopped) { start(video); } else { video.pause(); } }
}

document.getElementById("player").hidden = false;
for (const video of videos) {
  video.loop = false;
  video.addEventListener("play", () => {
    play.textContent = "Stop both";
    if (other(video).paused && !other(video).ended) { start(other(video)); }
  });
  video.addEventListener("pause", () => {
    if (video.ended) { return; }
    play.textContent = "Play both";
    if (!other(video).paused) { other(video).pause(); }
  });
  video.addEventListener("seeked", () => {
    if (Math.abs(other(video).currentTime - video.currentTime) > STEP) {
      other(video).currentTime = video.currentTime;
    }
  });
  video.addEventListener("ended", () => { if (other(video).ended) { fromBeginning(); } });
}
left.addEventListener("timeupdate", () => {
  const apart = Math.abs(right.currentTime - left.currentTime);
  if (!left.paused && !left.seeking && !right.seeking && !right.ended && apart > STEP) {
    right.currentTime = left.currentTime;
  }
});
play.addEventListener("click", toggle);
document.getElementById("beginning").addEventListener("click", fromBeginning);
if (!matchMedia("(prefers-reduced-motion: reduce)").matches) { fromBeginning(); }

// Answers that are not sent yet outlive a reload.
const KEY = location.pathname + ":" + form.elements.comparison.value;
function keep(key, value) { try { sessionStorage.setItem(key, value); } catch { /* forbidden */ } }
function kept(key) { try { return sessionStorage.getItem(key); } catch { return null; } }
function answers() { return new URLSearchParams(new FormData(form)); }
for (const [name, value] of new URLSearchParams(kept(KEY) || "")) {
  const field = form.elements[name];
  if (field instanceof RadioNodeList) { field.value = value; }
}
form.addEventListener("change", () => keep(KEY, answers().toString()));

shortcuts.checked = kept("shortcuts") !== "off";
shortcuts.addEventListener("change", () => keep("shortcuts", shortcuts.checked ? "on" : "off"));
document.addEventListener("keydown", (event) => {
  if (!shortcuts.checked || event.ctrlKey || event.altKey || event.metaKey) { return; }
  if (event.key === "p") { toggle(); }
  if (event.key === "b") { fromBeginning(); }
  if ("1234".includes(event.key)) {
    const question = document.getElementById("question-" + event.key);
    (question.querySelector(":checked") || question.querySelector("input")).focus();
  }
});

// Sent until the server has them. It counts them once, however often they come.
async function post() {
  send.disabled = true;
  try {
    const response = await fetch(location.pathname, {
      method: "POST", body: answers(), redirect: "manual",
    });
    if (response.type === "opaqueredirect") {
      try { sessionStorage.removeItem(KEY); } catch { /* forbidden */ }
      location.reload();
      return;
    }
    if (response.status < 500) {
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      state.textContent = page.querySelector("[role=alert]")?.textContent || "This was refused.";
      send.disabled = false;
      return;
    }
  } catch { /* no connection */ }
  state.textContent = "Not saved yet: the server does not answer. Your answers are kept and sent again.";
  setTimeout(post, WAIT);
}
form.addEventListener("submit", (event) => { event.preventDefault(); post(); });
