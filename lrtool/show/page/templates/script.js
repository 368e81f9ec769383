"use strict";
// The values of a plot, under the pointer and by keyboard, read from the table below it. Without
// this script the table says the same.
for (const plot of document.querySelectorAll(".plot")) {
  const table = plot.closest(".figure").querySelector("table.numbers");
  const heads = [...table.tHead.rows[0].cells];
  const axis = text => {
    const [low, high, log] = text.split(" ").map(Number);
    const scale = log ? Math.log : Number;
    return value => high > low ? (scale(value) - scale(low)) / (scale(high) - scale(low)) : 0.5;
  };
  const x = axis(plot.dataset.x), y = axis(plot.dataset.y);
  const number = cell => parseFloat(cell.textContent.replaceAll(",", ""));
  const rows = [...table.tBodies[0].rows]
    .map(row => ({cells: [...row.cells], place: x(number(row.cells[0]))}))
    .filter(row => row.place >= 0 && row.place <= 1);
  if (!rows.length) continue;

  const add = name => {
    const element = document.createElement("div");
    element.className = name;
    element.hidden = true;
    element.setAttribute("aria-hidden", "true");
    return plot.appendChild(element);
  };
  const cursor = add("cursor"), values = add("values");
  let points = [], current = 0;

  plot.setAttribute("role", "slider");
  plot.setAttribute("aria-label", plot.getAttribute("aria-label").replace("Its numbers are", "The arrow keys go through its values, which are"));
  plot.setAttribute("aria-valuemin", 0);
  plot.setAttribute("aria-valuemax", rows.length - 1);
  plot.tabIndex = 0;

  const lines = row => row.cells.slice(1)
    .map((cell, index) => ({text: cell.textContent, head: heads[index + 1], y: y(number(cell))}))
    .filter(line => line.text);
  const describe = index => {
    const row = rows[index], said = lines(row).map(line => `${line.head.textContent} ${line.text}`);
    plot.setAttribute("aria-valuenow", index);
    plot.setAttribute("aria-valuetext", `${heads[0].textContent} ${row.cells[0].textContent}: ${said.join(", ")}`);
  };
  const show = index => {
    current = Math.min(Math.max(index, 0), rows.length - 1);
    const row = rows[current], left = `${100 * row.place}%`;
    describe(current);
    points.forEach(point => point.remove());
    points = lines(row).filter(line => line.head.dataset.colour && line.y >= 0 && line.y <= 1).map(line => {
      const point = add(`point c${line.head.dataset.colour}`);
      point.style.left = left;
      point.style.top = `${100 * (1 - line.y)}%`;
      point.hidden = false;
      return point;
    });
    values.replaceChildren(...[`${heads[0].textContent}: ${row.cells[0].textContent}`, ...lines(row).map(line => `${line.head.textContent}: ${line.text}`)].map((text, index) => {
      const line = document.createElement(index ? "p" : "strong");
      line.textContent = text;
      return line;
    }));
    cursor.style.left = left;
    values.style.left = row.place < 0.5 ? `calc(${left} + 1rem)` : "auto";
    values.style.right = row.place < 0.5 ? "auto" : `calc(${100 * (1 - row.place)}% + 1rem)`;
    cursor.hidden = values.hidden = false;
  };
  const hide = () => {
    cursor.hidden = values.hidden = true;
    points.forEach(point => point.remove());
  };
  describe(0);

  const nearest = event => {
    const box = plot.getBoundingClientRect(), here = (event.clientX - box.left) / box.width;
    let best = 0;
    rows.forEach((row, index) => {
      if (Math.abs(row.place - here) < Math.abs(rows[best].place - here)) best = index;
    });
    return best;
  };
  plot.addEventListener("pointermove", event => show(nearest(event)));
  plot.addEventListener("pointerdown", event => show(nearest(event)));
  plot.addEventListener("pointerleave", () => { if (document.activeElement !== plot) hide(); });
  plot.addEventListener("focus", () => show(current));
  plot.addEventListener("blur", hide);
  plot.addEventListener("keydown", event => {
    const far = Math.max(Math.round(rows.length / 10), 1), last = rows.length - 1;
    const to = {
      ArrowRight: current + 1, ArrowUp: current + 1, ArrowLeft: current - 1, ArrowDown: current - 1,
      PageUp: current + far, PageDown: current - far, Home: 0, End: last,
    }[event.key];
    if (event.key === "Escape") hide();
    if (to === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    show(to);
  });
}
