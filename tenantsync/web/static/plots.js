// Puts uPlot's plots in place of the ones that came with the page, and keeps them fresh.

let history = JSON.parse(document.getElementById("history").textContent);
const figures = [...document.querySelectorAll("[data-plot]")];
const drawn = new Map();
const probe = document.body.appendChild(Object.assign(document.createElement("span"), { hidden: true }));

function colour(name) {
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}

function said(value, unit) {
  if (value == null) return "–";
  const size = Math.abs(value);
  const text = size >= 1e6 ? `${(value / 1e6).toFixed(1)} M` : size >= 1e4 ? `${(value / 1e3).toFixed(1)} k`
    : size >= 100 || Number.isInteger(value) ? value.toFixed(0) : value.toFixed(size < 1 ? 2 : 1);
  return unit ? `${text} ${unit}` : text;
}

function moment(seconds) {
  return new Intl.DateTimeFormat(document.documentElement.lang, { dateStyle: "short", timeStyle: "short" }).format(seconds * 1000);
}

// Hours within a day, days beyond; in the language of the page and the viewer's own time.
function tick(ticks) {
  const days = ticks.at(-1) - ticks[0] > 36 * 3600;
  const form = days ? { month: "numeric", day: "numeric" } : { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  const written = new Intl.DateTimeFormat(document.documentElement.lang, form);
  return (seconds) => written.format(seconds * 1000);
}

function columns(figure) {
  const names = figure.dataset.series.split(" ");
  const values = names.map((name) => history.series[name]);
  if ("target" in figure.dataset) values.push(history.at.map(() => history.target));
  return [history.at, ...values];
}

function tooltip(figure, area) {
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  area.append(tip);
  const names = [...figure.querySelectorAll(".key > span")].map((one) => one.textContent);
  return {
    hooks: {
      setCursor: [(plot) => {
        const { idx, left } = plot.cursor;
        const row = idx == null ? [] : plot.data.slice(1).map((column) => column[idx]);
        tip.hidden = idx == null || left < 0 || row.every((value) => value == null);
        if (tip.hidden) return;
        tip.replaceChildren(document.createTextNode(moment(plot.data[0][idx])));
        row.forEach((value, number) => {
          tip.append(document.createElement("br"), `${names[number]}: ${said(value, figure.dataset.unit)}`);
        });
        tip.style.top = "4px";
        const right = left > plot.width / 2;
        tip.style.left = right ? "auto" : `${left + 60}px`;
        tip.style.right = right ? `${plot.width - left - 36}px` : "auto";
      }],
    },
  };
}

function draw(figure) {
  const area = figure.querySelector(".area");
  const data = columns(figure);
  if (data.slice(1).every((column) => column.every((value) => value == null))) return;
  area.replaceChildren();
  const line = (number) => ({ stroke: colour(`--plot-${number}`), width: 1.8, points: { show: false }, spanGaps: false });
  const names = figure.dataset.series.split(" ");
  const series = [{}, ...names.map((_, number) => line(number + 1))];
  if ("target" in figure.dataset) series.push({ ...line(1), stroke: colour("--plot-target"), dash: [5, 5], width: 1.2 });
  const axis = { stroke: colour("--ink-2"), font: "12px Inter, system-ui, sans-serif", ticks: { show: false }, grid: { stroke: colour("--line"), width: 1 } };
  const plot = new uPlot({
    width: Math.max(200, area.clientWidth),
    height: 148,
    padding: [8, 4, 0, 0],
    legend: { show: false },
    cursor: { y: false, sync: { key: "overview" }, drag: { x: false, y: false } },
    scales: { y: { range: (_, low, high) => [0, high > 0 ? high * 1.08 : 1] } },
    series,
    axes: [
      { ...axis, size: 24, space: 76, grid: { show: false }, values: (_, ticks) => ticks.map(tick(ticks)) },
      { ...axis, size: 46, space: 34, values: (_, ticks) => ticks.map((tick) => said(tick, "")) },
    ],
    plugins: [tooltip(figure, area)],
  }, data, area);
  plot.root.setAttribute("aria-hidden", "true");
  drawn.set(figure, plot);
}

function redraw() {
  for (const plot of drawn.values()) plot.destroy();
  drawn.clear();
  figures.forEach(draw);
}

let width = 0;
new ResizeObserver(() => {
  if (innerWidth === width) return;
  width = innerWidth;
  redraw();
}).observe(document.body);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

document.addEventListener("refreshed", (event) => {
  const fresh = event.detail.getElementById("history");
  if (!fresh) return;
  history = JSON.parse(fresh.textContent);
  for (const figure of figures) {
    const plot = drawn.get(figure);
    if (plot) plot.setData(columns(figure));
    else draw(figure);
  }
});
