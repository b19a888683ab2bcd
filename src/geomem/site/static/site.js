"use strict";
// Tables that sort, and cells that tell where they come from. Without this file pages can be read all the same.

function valueOf(row, column) {
  const cell = row.children[column];
  if (column === 0) { return cell.dataset.value; }
  return cell.dataset.value === "" ? NaN : Number(cell.dataset.value);
}

function compare(a, b) {
  if (typeof a === "string") { return a.localeCompare(b, "en"); }
  return a - b;
}

function sortable(table) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  const told = document.getElementById("sorted");
  for (const button of table.querySelectorAll("button[data-sort]")) {
    button.addEventListener("click", () => {
      const heading = button.closest("th");
      const was = heading.getAttribute("aria-sort");
      for (const other of table.querySelectorAll("th[aria-sort]")) { other.removeAttribute("aria-sort"); }
      const column = Number(button.dataset.sort);
      let rows = original;
      if (was !== "descending") {
        const now = was === "ascending" ? "descending" : "ascending";
        heading.setAttribute("aria-sort", now);
        const sign = now === "ascending" ? 1 : -1;
        // what has no number stays at the end
        rows = original.slice().sort((p, q) => {
          const [a, b] = [valueOf(p, column), valueOf(q, column)];
          if (Number.isNaN(a) || Number.isNaN(b)) { return Number.isNaN(a) - Number.isNaN(b); }
          return sign * compare(a, b);
        });
        told.textContent = `Sorted by ${button.textContent.trim()}, ${now}.`;
      } else {
        told.textContent = "In the order of the paper.";
      }
      table.classList.toggle("sorted", rows !== original);
      body.append(...rows);
    });
  }
}

function fact(name, value) {
  const entry = document.createElement("div");
  const term = document.createElement("dt");
  const told = document.createElement("dd");
  const code = document.createElement("code");
  term.textContent = name;
  code.textContent = value;
  told.append(code);
  entry.append(term, told);
  return entry;
}

function telling(table) {
  const cells = JSON.parse(document.getElementById("cells").textContent);
  const dialog = document.getElementById("origin");
  table.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-cell]");
    const cell = button && cells[button.dataset.cell];
    if (!cell) { return; }
    document.getElementById("origin-title").textContent = cell.title.join(": ");
    document.getElementById("origin-facts").replaceChildren(...cell.facts.map(([name, value]) => fact(name, value)));
    const sources = cell.sources.map((number) => {
      const copy = document.getElementById(`source-${number}`).cloneNode(true);
      copy.removeAttribute("id");
      return copy;
    });
    document.getElementById("origin-sources").replaceChildren(...sources);
    dialog.showModal();
    dialog.scrollTop = 0;
  });
}

const table = document.getElementById("table");
if (table) {
  sortable(table);
  telling(table);
}
