"use strict";
const report = (() => {
  const specs = JSON.parse(document.getElementById("report-specs").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const views = new Map();

  const config = () => {
    const css = getComputedStyle(document.documentElement);
    const [text, dim, line] = ["--text", "--dim", "--line"].map((name) => css.getPropertyValue(name).trim());
    const font = getComputedStyle(document.body).fontFamily;
    return {
      background: "transparent", font,
      view: { stroke: null },
      axis: {
        labelColor: dim, titleColor: dim, domainColor: line, tickColor: line, gridColor: line, gridOpacity: 0.6,
        labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal", labelOverlap: true,
      },
      legend: { disable: true },
      axisY: { minExtent: 34, tickCount: 5 },
    };
  };

  const options = () => ({
    mode: "vega-lite", renderer: "canvas", config: config(), tooltip: { theme: dark.matches ? "dark" : "light" },
    actions: { export: true, source: false, compiled: false, editor: false }, scaleFactor: 2,
    downloadFileName: "chart", defaultStyle: true,
  });

  const draw = async (name) => {
    const box = document.getElementById("chart-" + name);
    views.get(name)?.finalize();
    const result = await vegaEmbed(box, specs[name], { ...options(), downloadFileName: name });
    views.set(name, result);
  };

  /* Draws the charts in the order of the page, and lets the browser handle events in between. */
  const drawAll = async () => {
    for (const name of Object.keys(specs)) {
      await draw(name);
      await new Promise((done) => setTimeout(done));
    }
    document.documentElement.dataset.drawnMs = String(Math.round(performance.now()));
  };

  const rows = (text) => {
    const lines = [[""]];
    let quoted = false;
    for (let i = 0; i < text.length; i++) {
      const c = text[i], row = lines[lines.length - 1];
      if (quoted && c === '"' && text[i + 1] === '"') { row[row.length - 1] += c; i++; }
      else if (c === '"') quoted = !quoted;
      else if (!quoted && c === ",") row.push("");
      else if (!quoted && c === "\n") { if (i < text.length - 1) lines.push([""]); }
      else row[row.length - 1] += c;
    }
    return lines;
  };

  const fill = (details) => {
    if (!details.open || details.querySelector("table")) return;
    const region = document.createElement("div");
    region.className = "scroll";
    region.tabIndex = 0;
    region.setAttribute("role", "region");
    region.setAttribute("aria-label", "Values of the chart");
    const table = region.appendChild(document.createElement("table"));
    rows(specs[details.dataset.chart].data.values).forEach((cells, index) => {
      const line = (index ? table.tBodies[0] ?? table.createTBody() : table.createTHead()).insertRow();
      for (const cell of cells) {
        line.appendChild(document.createElement(index ? "td" : "th")).textContent = cell;
      }
    });
    details.append(region);
  };

  for (const details of document.querySelectorAll("details.values")) {
    details.addEventListener("toggle", () => fill(details));
  }
  let drawing = drawAll();
  dark.addEventListener("change", () => { drawing = drawing.then(drawAll); });
  return { views, get drawing() { return drawing; } };
})();
window.report = report;
