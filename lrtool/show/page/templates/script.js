"use strict";
// The values of a plot, under the pointer and by keyboard, read from the table below it. Without
// this script the table says the same.
for (const plot of document.querySelectorAll(".plot")) {
  const table = plot.closest(".figure").querySelector("table.numbers");
  const heads = [...table.tHead.rows[0].cells];
  const axis = text => {
    const [low, high, log, whole] = text.split(" ").map(Number);
    const scale = log ? Math.log : Number, back = log ? Math.exp : Number;
    const span = scale(high) - scale(low);
    const place = value => span > 0 ? (scale(value) - scale(low)) / span : 0.5;
    return Object.assign(place, {at: place => back(scale(low) + place * span), log, whole});
  };
  const x = axis(plot.dataset.x), y = axis(plot.dataset.y);
  let view = {left: 0, right: 1, bottom: 0, top: 1};  // the part of the plot that is shown
  const number = cell => parseFloat(cell.textContent.replaceAll(",", ""));
  const all = [...table.tBodies[0].rows]
    .map(row => ({cells: [...row.cells], place: x(number(row.cells[0]))}))
    .filter(row => row.place >= 0 && row.place <= 1);
  let rows = all;
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

  const shown = place => (place - view.left) / (view.right - view.left);
  const lines = row => row.cells.slice(1)
    .map((cell, index) => ({text: cell.textContent, head: heads[index + 1], y: (y(number(cell)) - view.bottom) / (view.top - view.bottom)}))
    .filter(line => line.text);
  const describe = index => {
    const row = rows[index], said = lines(row).map(line => `${line.head.textContent} ${line.text}`);
    plot.setAttribute("aria-valuenow", index);
    plot.setAttribute("aria-valuetext", `${heads[0].textContent} ${row.cells[0].textContent}: ${said.join(", ")}`);
  };
  const show = index => {
    current = Math.min(Math.max(index, 0), rows.length - 1);
    const row = rows[current], place = shown(row.place), left = `${100 * place}%`;
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
    values.style.left = place < 0.5 ? `calc(${left} + 1rem)` : "auto";
    values.style.right = place < 0.5 ? "auto" : `calc(${100 * (1 - place)}% + 1rem)`;
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
      if (Math.abs(shown(row.place) - here) < Math.abs(shown(rows[best].place) - here)) best = index;
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

  // A range of x, chosen by two sliders: its values fill the height.
  if (plot.dataset.zoom === undefined || all.length < 10) continue;
  const svg = (name, attributes, text = "") => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.textContent = text;
    return element;
  };
  const spell = value => value && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e9)
    ? String(Number(value.toPrecision(6)).toExponential())
    : value.toLocaleString("en-US", {maximumSignificantDigits: 6});
  const ticks = (low, high, log, whole, most) => {
    const decades = Math.log10(high / low);
    if (log && decades >= 1.5) {
      const stride = Math.ceil(decades / most), found = [];
      for (let power = Math.ceil(Math.log10(low)); power <= Math.log10(high); power += stride) found.push(10 ** power);
      return found;
    }
    const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
    const step = Math.max([1, 2, 5, 10].find(factor => factor * power >= rough) * power, whole);
    const found = [];
    for (let index = Math.ceil(low / step); index * step <= high; index++) found.push(index * step + 0); // no -0
    return found;
  };
  const axes = svg("g", {});
  plot.querySelector(".ticks").after(axes);
  const zoom = (left, right) => {
    const whole = left === 0 && right === 1;
    view = {left, right, bottom: 0, top: 1};
    rows = whole ? all : all.filter(row => row.place > left - 1e-9 && row.place < right + 1e-9);
    if (!rows.length) rows = all;
    const heights = rows.flatMap(row => lines(row).map(line => line.y)).filter(height => height >= 0 && height <= 1);
    if (!whole && heights.length) {
      const bottom = Math.min(...heights), top = Math.max(...heights), margin = 0.06 * (top - bottom) || 0.05;
      view = {left, right, bottom: bottom - margin, top: top + margin};
    }
    plot.classList.toggle("zoomed", !whole);
    const wide = 1 / (right - left), high = 1 / (view.top - view.bottom);
    for (const inner of plot.querySelectorAll(".view")) {
      inner.setAttribute("x", `${-100 * left * wide}%`);
      inner.setAttribute("width", `${100 * wide}%`);
      if (!inner.closest(".data")) continue;
      inner.setAttribute("y", `${-100 * (1 - view.top) * high}%`);
      inner.setAttribute("height", `${100 * high}%`);
    }
    axes.replaceChildren();
    current = 0;
    hide();
    describe(0);
    plot.setAttribute("aria-valuemax", rows.length - 1);
    plot.style.marginLeft = "";
    if (whole) return;
    for (const value of ticks(x.at(left), x.at(right), x.log, x.whole, plot.clientWidth / 90)) {
      const at = `${100 * shown(x(value))}%`;
      axes.append(svg("line", {class: "grid", x1: at, x2: at, y1: 0, y2: "100%"}), svg("text", {class: "tick", x: at, y: "100%", dy: "1.4em"}, spell(value)));
    }
    let letters = 0;
    for (const value of ticks(y.at(view.bottom), y.at(view.top), y.log, y.whole, 4)) {
      letters = Math.max(letters, spell(value).length);
      const at = `${100 * (1 - (y(value) - view.bottom) / (view.top - view.bottom))}%`;
      axes.append(svg("line", {class: "grid", x1: 0, x2: "100%", y1: at, y2: at}), svg("text", {class: "y", x: "-.5em", y: at, dy: ".35em"}, spell(value)));
    }
    const room = (0.62 * letters + 0.8) * parseFloat(getComputedStyle(plot).fontSize);
    if (room > parseFloat(getComputedStyle(plot).marginLeft)) plot.style.marginLeft = `${room}px`;
  };
  const STEPS = 200;
  const controls = document.createElement("fieldset"), legend = document.createElement("legend");
  controls.className = "zoom";
  legend.textContent = `Zoom: ${heads[0].textContent}`;
  const slider = (name, value) => {
    const label = document.createElement("label"), input = document.createElement("input"), output = document.createElement("output");
    Object.assign(input, {type: "range", min: 0, max: STEPS, value});
    input.setAttribute("aria-label", `${name} ${heads[0].textContent}`);
    label.append(name, input, output);
    return {label, input, output};
  };
  const from = slider("from", 0), to = slider("to", STEPS), reset = document.createElement("button");
  // The sliders go from the first value to the last one; at their ends they show the margins too.
  const first = all[0].place, reach = all.at(-1).place - first;
  const inner = position => first + position / STEPS * reach;
  const place = position => position <= 0 ? 0 : position >= STEPS ? 1 : inner(position);
  const choose = moved => {
    let left = Number(from.input.value), right = Number(to.input.value);
    if (right - left < 2) {  // the other one makes way
      if (moved === from) right = Math.min(left + 2, STEPS); else left = Math.max(right - 2, 0);
      if (right - left < 2) left = right === STEPS ? STEPS - 2 : left, right = left + 2;
      from.input.value = left;
      to.input.value = right;
    }
    const low = x.at(inner(left)), high = x.at(inner(right));
    // Counts inside the range; a short one may have none, and is said as it is.
    const counts = [Math.ceil(low - 1e-6), Math.floor(high + 1e-6)], whole = x.whole && counts[0] <= counts[1];
    [from, to].forEach((each, index) => {
      each.output.textContent = spell(whole ? counts[index] : [low, high][index]);
      each.input.setAttribute("aria-valuetext", each.output.textContent);
    });
    zoom(place(left), place(right));
  };
  from.input.addEventListener("input", () => choose(from));
  to.input.addEventListener("input", () => choose(to));
  reset.type = "button";
  reset.textContent = "show all";
  reset.setAttribute("aria-label", `show all: ${heads[0].textContent}`);
  reset.addEventListener("click", () => { from.input.value = 0; to.input.value = STEPS; choose(from); });
  controls.append(legend, from.label, to.label, reset);
  plot.nextElementSibling.after(controls);
  choose(from);
}

// Columns that sort a table, by click and by keyboard.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  const key = cell => {
    const text = cell.dataset.sort ?? cell.textContent.trim();
    return text === "" || text === "–" ? null : Number.isNaN(Number(text)) ? text : Number(text);
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down > 0 ? "ascending" : "descending");
      const rows = [...body.rows].map(row => [key(row.cells[column]), row]);
      rows.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null);  // those without a value last
        if (typeof a === typeof b) return down * (typeof a === "number" ? a - b : a.localeCompare(b));
        return typeof a === "number" ? -down : down;
      });
      body.append(...rows.map(([, row]) => row));
    });
  });
}
