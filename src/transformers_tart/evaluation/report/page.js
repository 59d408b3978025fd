"use strict";
// The title of each column sorts its table: first by ascending values, then by descending ones.
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  const titles = [...table.tHead.rows[0].cells];
  if (body.rows.length < 2 || !titles[0].textContent) continue;
  titles.forEach((title, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...title.childNodes);
    title.append(button);
    title.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const isDescending = title.getAttribute("aria-sort") === "ascending";
      for (const other of titles) other.setAttribute("aria-sort", "none");
      title.setAttribute("aria-sort", isDescending ? "descending" : "ascending");
      const text = (row) => row.cells[column].textContent.trim();
      const number = (row) => parseFloat(text(row).replace(/^mean of /, ""));
      const isMissing = (row) => text(row) === "–";
      const areNumbers = [...body.rows].every((row) => isMissing(row) || !Number.isNaN(number(row)));
      const compare = (a, b) => (areNumbers ? number(a) - number(b) : text(a).localeCompare(text(b)));
      const order = (a, b) => isMissing(a) - isMissing(b) || (isMissing(a) ? 0 : compare(a, b) * (isDescending ? -1 : 1));
      body.append(...[...body.rows].sort(order));
    });
  });
}
