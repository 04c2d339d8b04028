"use strict";
// The grid is one stop of the Tab key; arrows move inside of it, and what a cell is stands below.
for (const grid of document.querySelectorAll("table.grid")) {
  const pane = document.getElementById(grid.dataset.pane);
  const rows = [...grid.tBodies[0].rows].map((row) => [...row.cells].map((cell) => cell.querySelector("button")));
  const cells = rows.flat().filter(Boolean);
  const show = (cell) => {
    for (const other of cells) {
      other.tabIndex = other === cell ? 0 : -1;
      other.setAttribute("aria-pressed", String(other === cell));
    }
    pane.textContent = cell.getAttribute("aria-label");
  };
  const place = (cell) => {
    const row = rows.findIndex((found) => found.includes(cell));
    return [row, rows[row].indexOf(cell)];
  };
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  for (const cell of cells) {
    cell.tabIndex = cell === cells[0] ? 0 : -1;
    cell.addEventListener("click", () => show(cell));
    cell.addEventListener("focus", () => show(cell));
  }
  grid.addEventListener("keydown", (event) => {
    let next = { Home: cells[0], End: cells[cells.length - 1] }[event.key];
    if (event.key in steps) {
      let [row, column] = place(document.activeElement);
      const [down, right] = steps[event.key];
      do {
        row += down;
        column += right;
        next = rows[row] && rows[row][column];
      } while (!next && rows[row] && column >= 0 && column < rows[row].length);
    }
    if (next) {
      event.preventDefault();
      next.focus();
    }
  });
}
// Where an expert lies.
for (const input of document.querySelectorAll("input.expert")) {
  const section = input.closest("section");
  input.closest("form").addEventListener("submit", (event) => event.preventDefault());
  input.addEventListener("input", () => {
    let said = "";
    for (const tile of section.querySelectorAll(".tiles li")) {
      const found = input.value !== "" && tile.textContent === String(Number(input.value));
      tile.classList.toggle("found", found);
      if (found) said = "Expert " + tile.textContent + " lies on " + tile.closest("[data-ranks]").dataset.ranks + ".";
    }
    section.querySelector("output").textContent = said || (input.value === "" ? "" : "There is no such expert.");
  });
}
