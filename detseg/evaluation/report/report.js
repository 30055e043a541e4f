// Sorts tables by the column that is clicked, and moves the operating point.
"use strict";

for (const head of document.querySelectorAll("table.sortable th")) {
  head.tabIndex = 0;
  const sort = () => {
    const table = head.closest("table"), column = head.cellIndex, body = table.tBodies[0];
    const falling = head.dataset.order !== "falling";
    for (const other of table.querySelectorAll("th")) delete other.dataset.order;
    head.dataset.order = falling ? "falling" : "rising";
    const value = row => row.cells[column].textContent;
    const compare = (a, b) => {
      const [x, y] = [parseFloat(value(a)), parseFloat(value(b))];
      if (column === 0 || (isNaN(x) && isNaN(y))) return value(b).localeCompare(value(a), undefined, { numeric: true });
      if (isNaN(x) !== isNaN(y)) return isNaN(x) === falling ? 1 : -1;
      return y - x;
    };
    const rows = [...body.rows].sort(compare);
    body.append(...(falling !== (column === 0) ? rows : rows.reverse()));
  };
  head.addEventListener("click", sort);
  head.addEventListener("keydown", event => { if (event.key === "Enter") sort(); });
}

// A whole image shows the error that was clicked, on both sides and enlarged.
const links = [...document.querySelectorAll("figure a")];
let current = -1;
const outline = link => {
  current = links.indexOf(link);
  const whole = document.querySelector(link.hash), picture = whole.querySelector(".picture");
  const boxes = JSON.parse(link.dataset.boxes).map(([kind, ...sides]) => {
    const box = document.createElement("i");
    box.className = kind;
    ["left", "top", "width", "height"].forEach((name, k) => { box.style[name] = `${sides[k]}%`; });
    return box;
  });
  picture.replaceChildren(picture.querySelector("img"), ...boxes);
  const part = link.querySelector("img").cloneNode();
  whole.querySelector(".part").replaceChildren(part, part.alt);
};
for (const link of links) link.addEventListener("click", () => outline(link));
const opened = links.find(link => link.hash === location.hash);  // by an address that somebody passed on
if (opened) outline(opened);

const step = by => {
  if (current < 0) current = links.findIndex(link => link.hash === location.hash);
  const link = links[(current + by + links.length) % links.length];
  outline(link);
  location.replace(link.hash);
};

// It closes where the page was: the entry before in the history may be of another page.
const close = event => {
  const [x, y] = [scrollX, scrollY];
  event.preventDefault();
  location.hash = "";
  scrollTo(x, y);
};
for (const whole of document.querySelectorAll(".whole")) whole.addEventListener("click", event => {
  if (event.target.className === "previous") step(-1);
  else if (event.target.className === "next") step(1);
  else close(event);
});
document.addEventListener("keydown", event => {
  if (!document.querySelector(".whole:target")) return;
  if (event.key === "Escape") close(event);
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
});

const element = id => document.getElementById(id);
if (element("operating")) {
  const { low, high, thresholds, classes } = JSON.parse(element("curves").textContent);
  const slider = element("slider"), place = i => (thresholds[i] - low) / (high - low);
  [slider.min, slider.max] = [low, high];
  let shown;

  const numbers = i => {
    const kept = shown.kept[i], right = shown.right[i], missed = shown.objects - right;
    const precision = kept ? right / kept : NaN, recall = shown.objects ? right / shown.objects : NaN;
    const f1 = kept + shown.objects ? 2 * right / (kept + shown.objects) : NaN;
    return { precision, recall, f1, right, wrong: kept - right, missed };
  };
  const best = quality => {
    let found = -1, highest = -Infinity;
    thresholds.forEach((_, i) => {
      const value = quality(numbers(i));
      if (!isNaN(value) && value >= highest) { highest = value; found = i; }  // of equals the highest threshold
    });
    return found;
  };
  const text = value => isNaN(value) ? "-" : value.toFixed(3);
  const move = i => {
    element("none").textContent = i < 0 ? "no threshold reaches that" : "";
    if (i < 0) return;
    const n = numbers(i);
    element("at-threshold").textContent = thresholds[i].toFixed(3);
    element("at-precision").textContent = text(n.precision);
    element("at-recall").textContent = text(n.recall);
    element("at-F1").textContent = text(n.f1);
    for (const name of ["right", "wrong", "missed"]) element("at-" + name).textContent = n[name];
    element("cursor").setAttribute("d", `M${place(i)} 0V1`);
    const point = element("pr-point");
    point.setAttribute("visibility", isNaN(n.precision) || isNaN(n.recall) ? "hidden" : "visible");
    point.setAttribute("cx", n.recall || 0);
    point.setAttribute("cy", n.precision || 0);
  };
  const draw = (id, x, y) => element(id).setAttribute("points", thresholds.map((_, i) => [x(i), y(i)])
    .filter(([a, b]) => !isNaN(a) && !isNaN(b)).map(pair => pair.join()).join(" "));
  const moveSlider = i => { if (i >= 0) slider.value = thresholds[i]; move(i); };
  const nearest = value => thresholds.reduce(
    (best, threshold, i) => Math.abs(threshold - value) < Math.abs(thresholds[best] - value) ? i : best, 0);
  const choose = number => {
    shown = classes[number];
    draw("precision-line", place, i => numbers(i).precision);
    draw("recall-line", place, i => numbers(i).recall);
    draw("F1-line", place, i => numbers(i).f1);
    draw("pr-line", i => numbers(i).recall, i => numbers(i).precision);
    moveSlider(best(n => n.f1));
  };
  slider.addEventListener("input", () => move(nearest(Number(slider.value))));
  element("class").addEventListener("change", event => choose(event.target.value));
  element("by-f1").addEventListener("click", () => moveSlider(best(n => n.f1)));
  element("by-precision").addEventListener("click", () => {
    const least = Number(element("least-precision").value);
    moveSlider(best(n => n.precision >= least ? n.recall : NaN));
  });
  element("by-cost").addEventListener("click", () => {
    const cost = Number(element("cost").value);
    moveSlider(best(n => -n.wrong - cost * n.missed));
  });
  choose(element("class").value);
}
