"use strict";

// A click on a heading sorts by its column, a second click the other way; empty cells stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  const value = (row, column) => {
    const cell = row.cells[column];
    const number = cell.dataset.value;
    return number === undefined ? cell.textContent.trim() : Number(number);
  };
  headings.forEach((heading, column) => {
    const button = heading.querySelector("button");
    button.addEventListener("click", () => {
      const other = {ascending: "descending", descending: "ascending"};
      const order = other[heading.getAttribute("aria-sort")] ?? button.dataset.first;
      headings.forEach((each) => each.setAttribute("aria-sort", each === heading ? order : "none"));
      const sign = order === "ascending" ? 1 : -1;
      const rows = [...body.rows].sort((left, right) => {
        const a = value(left, column);
        const b = value(right, column);
        if (a === "" || b === "") return (a === "") - (b === "");
        return sign * (typeof a === "number" ? a - b : a.localeCompare(b, "en"));
      });
      body.append(...rows);
    });
  });
}

// A link to a model opens its section.
const reveal = () => {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) {
    target.open = true;
    target.scrollIntoView();
  }
};
addEventListener("hashchange", reveal);
reveal();

const unfold = document.getElementById("unfold");
unfold.addEventListener("click", () => {
  const open = unfold.getAttribute("aria-expanded") === "false";
  unfold.setAttribute("aria-expanded", String(open));
  unfold.textContent = open ? "Close all" : "Open all";
  for (const details of document.querySelectorAll("details")) details.open = open;
});

// On paper there is nothing to click.
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
