// Pictures of the results: zoom, pan, value under the pointer, stretch and colour scale, drawn by Plotly.
// A marker and its row in the table highlight each other. The panels of one picture share zoom, layer and scale.
(() => {
  "use strict";

  // With a <base>, Plotly refers to clips and colour bars by the address of the page, which a run changes. This one only
  // states the default.
  document.querySelector('base[href="./"]')?.remove();

  const COLOURS = ["Greys", "Viridis", "Cividis", "Inferno"];
  const LAYERS = { image: "Image", model: "Model", residual: "Residual" };
  const STRETCHES = { percentile: "1 to 99.8 %", full: "Full range", log: "Logarithmic" };
  const TRACK_COLOURS = ["#56B4E9", "#F0E442", "#CC79A7", "#009E73", "#E69F00", "#0072B2"];
  const [HEATMAP, MARKERS, SELECTED] = [0, 1, 2]; // places of the traces
  const MOST_SORTED = 200000;
  const NARROW_PX = 800;
  const panels = new Map();
  let wanted = null; // target whose picture is not drawn yet

  /** Decode base64 into rows of single-precision values. */
  function decode(text, [rows, columns]) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const values = new Float32Array(bytes.buffer);
    return Array.from({ length: rows }, (_, row) => values.subarray(row * columns, (row + 1) * columns));
  }

  /** Return sorted finite values, a regular sample of large images. */
  function sorted(rows) {
    const step = Math.max(1, Math.ceil((rows.length * rows[0].length) / MOST_SORTED));
    const kept = [];
    let place = 0;
    for (const row of rows) for (const value of row) if (place++ % step === 0 && isFinite(value)) kept.push(value);
    return Float32Array.from(kept).sort();
  }

  function extremes(rows) {
    let [low, high] = [Infinity, -Infinity];
    for (const row of rows) {
      for (const value of row) {
        if (value < low) low = value;
        if (value > high) high = value;
      }
    }
    return low < high ? [low, high] : [low - 1, low + 1];
  }

  /** Return the values as drawn, the ends of the colour scale, its unit, and the labels of a logarithmic one. */
  function stretched(panel, layer, stretch) {
    const rows = panel.layers[layer];
    if (layer === "residual") {
      const order = sorted(rows);
      const largest = Math.max(Math.abs(order[0] ?? 1), Math.abs(order[order.length - 1] ?? 1)) || 1;
      const limit = panel.data.residual.limit ?? largest;
      return { z: rows, zmin: -limit, zmax: limit, unit: panel.data.residual.unit };
    }
    // Image and model share the scale of the image.
    const [low, high] = extremes(panel.layers.image);
    const unit = "counts";
    if (stretch === "full") return { z: rows, zmin: low, zmax: high, unit };
    const order = sorted(panel.layers.image);
    const at = (share) => order[Math.round(share * (order.length - 1))];
    if (stretch === "percentile") {
      const [from, to] = [at(0.01), at(0.998)];
      return { z: rows, zmin: from < to ? from : low, zmax: from < to ? to : high, unit };
    }
    const floor = at(0.01);
    const scale = Math.max((high - floor) / 1000, 1e-30);
    const curve = (value) => Math.log10(1 + Math.max(value - floor, 0) / scale);
    const steps = [0, 0.01, 0.1, 1].map((share) => floor + share * (high - floor));
    return {
      z: rows.map((row) => row.map((value) => (isFinite(value) ? curve(value) : NaN))),
      zmin: 0,
      zmax: curve(high),
      unit, ticks: { tickvals: steps.map(curve), ticktext: steps.map((value) => value.toPrecision(3)) },
    };
  }

  function labelled(name, choices) {
    const label = document.createElement("label");
    const select = document.createElement("select");
    for (const [value, text] of Object.entries(choices)) select.add(new Option(text, value));
    label.append(name, select);
    select.name = name.toLowerCase().replace(" ", "-");
    return [label, select];
  }

  /** Return the coordinates of the pixels' centres in px of the image. */
  function centres(count, step) {
    return Array.from({ length: count }, (_, place) => place * step + 0.5 * (step - 1));
  }

  const ring = (color, size, width) => ({ symbol: "circle-open", size, color, line: { width } });

  function pointTrace(given, marker, name) {
    const words = (k) => {
      const flux = given.intensity[k] === null ? "" : `, intensity ${given.intensity[k].toFixed(1)}`;
      const group = given.group?.[k] ? `${name} of group ${given.group[k]}` : name;
      return `${group} at ${given.x[k].toFixed(2)}, ${given.y[k].toFixed(2)}${flux}`;
    };
    return {
      type: "scatter", mode: "markers", name, marker, x: given.x, y: given.y,
      text: given.x.map((_, k) => words(k)), hovertemplate: "%{text}<extra></extra>",
    };
  }

  function traces(data, panel) {
    const none = { x: [], y: [], intensity: [] };
    const made = [
      {
        type: "heatmap", hoverinfo: "none",
        x: centres(data.shape[1], data.step), y: centres(data.shape[0], data.step),
      },
      pointTrace(panel.targets ?? none, ring("#D55E00", 11, 2), "Target"),
      { ...pointTrace(none, ring("#F0E442", 20, 4), "Selected"), hoverinfo: "skip" },
    ];
    if (panel.groups) {
      made.push({
        type: "scatter", mode: "text", hoverinfo: "skip", ...panel.groups, textposition: "top right", cliponaxis: true,
        textfont: { color: "#F0E442", size: 13, weight: "bold", shadow: "1px 1px 2px #000, -1px -1px 2px #000" },
      });
    }
    (panel.tracks ?? []).forEach((track, k) => {
      const line = { color: TRACK_COLOURS[k % TRACK_COLOURS.length], width: 2 };
      made.push({ type: "scatter", mode: "lines", line, ...track, hovertemplate: "%{fullData.name}<extra></extra>" });
    });
    const cross = { symbol: "x-thin-open", size: 9, color: "#009E73", line: { width: 2 } };
    if (data.truth) made.push(pointTrace(data.truth, cross, "True target"));
    return made;
  }

  /** Draw the panels of a picture, with one bar of controls and one line for the value under the pointer. */
  function draw(figure) {
    const data = JSON.parse(figure.querySelector("template").content.textContent);
    const bar = document.createElement("div");
    bar.className = "csist-look-bar";
    const has = Object.entries(LAYERS).filter(([name]) => name === "image" || name in data.panels[0].layers);
    const [layerLabel, layer] = labelled("Show", Object.fromEntries(has));
    const [stretchLabel, stretch] = labelled("Stretch", STRETCHES);
    const [colourLabel, colour] = labelled("Colours", Object.fromEntries(COLOURS.map((name) => [name, name])));
    bar.append(...(has.length > 1 ? [layerLabel] : []), stretchLabel, colourLabel);
    const value = document.createElement("p");
    value.className = "csist-look-value";
    value.textContent = "Point at a pixel to read its value.";
    const rows = document.createElement("div");
    rows.className = "csist-panels";
    figure.prepend(bar, rows, value);
    const choice = { layer, stretch, colour, value };
    const image = decode(data.image, data.shape);
    const own = data.panels.map((panel) => {
      const layers = Object.fromEntries(Object.entries(panel.layers).map(([name, text]) => [name, decode(text, data.shape)]));
      const box = document.createElement("div");
      box.className = "csist-panel";
      const plot = document.createElement("div");
      plot.className = "csist-look-plot";
      if (data.panels.length > 1) box.append(Object.assign(document.createElement("h4"), { textContent: panel.name }));
      box.append(plot);
      rows.append(box);
      return { data: panel, shared: data, layers: { image, ...layers }, figure, plot };
    });
    for (const panel of own) {
      panels.set(panel.data.key, panel);
      drawPanel(panel, choice, own);
    }
    const redraw = () => {
      stretch.disabled = colour.disabled = layer.value === "residual";
      for (const panel of own) Plotly.restyle(panel.plot, styleOf(panel, choice), [HEATMAP]);
    };
    for (const select of [layer, stretch, colour]) select.addEventListener("change", redraw);
  }

  /** The colour bar stands beside a single panel, and below panels that stand side by side. */
  function colourBar(panel, unit) {
    const plain = { thickness: 12, outlinewidth: 0, tickvals: null, ticktext: null, title: { text: unit } };
    if (panel.shared.panels.length === 1) return plain;
    const below = { orientation: "h", thickness: 8, y: 0, ypad: 54, yanchor: "top", len: 0.9, nticks: 5 };
    return { ...plain, ...below, title: { text: unit, side: "bottom" } };
  }

  function styleOf(panel, { layer, stretch, colour }) {
    const drawn = stretched(panel, layer.value, stretch.value);
    return {
      z: [drawn.z], zmin: [drawn.zmin], zmax: [drawn.zmax],
      colorscale: [layer.value === "residual" ? "RdBu" : colour.value],
      colorbar: [{ ...colourBar(panel, drawn.unit), ...drawn.ticks }],
    };
  }

  function drawPanel(panel, choice, siblings) {
    const { shared: data, plot } = panel;
    const narrow = window.innerWidth < NARROW_PX;
    // As high as the image is for its width, so that no gap is left above and below it.
    const alone = data.panels.length === 1;
    const frame = alone ? { width: 130, height: 80 } : { width: 60, height: 175 };
    const wide = Math.max(plot.clientWidth - frame.width, 100);
    const high = (wide * data.shape[0]) / data.shape[1] + frame.height;
    plot.style.height = `${Math.min(high, Math.max(0.8 * window.innerHeight, 300), 560)}px`;
    const axis = { showgrid: false, zeroline: false, ticks: "outside", constrain: "domain", automargin: true };
    const [rows, columns] = data.shape.map((count) => count * data.step);
    const layout = {
      margin: { l: 44, r: 10, t: 30, b: alone ? 50 : 60 }, showlegend: false, hovermode: "closest",
      dragmode: narrow ? false : "zoom", // a finger scrolls the page
      paper_bgcolor: "white", plot_bgcolor: "white", font: { color: "#27272a" },
      xaxis: { ...axis, title: { text: "x in px", standoff: 8 }, range: [-0.5, columns - 0.5] },
      yaxis: { ...axis, title: { text: "y in px", standoff: 8 }, range: [rows - 0.5, -0.5], scaleanchor: "x" },
    };
    const first = Object.fromEntries(Object.entries(styleOf(panel, choice)).map(([name, [one]]) => [name, one]));
    const [heatmap, ...others] = traces(data, panel.data);
    const config = {
      responsive: true, displaylogo: false, displayModeBar: true, scrollZoom: !narrow,
      modeBarButtons: [["toImage"], ["zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]],
    };
    Plotly.newPlot(plot, [{ ...heatmap, ...first }, ...others], layout, config);
    plot.tabIndex = 0;
    plot.setAttribute("role", "group");
    plot.setAttribute("aria-label", "Picture: plus and minus zoom, arrow keys move, 0 shows all");
    plot.addEventListener("keydown", (event) => moveByKey(event, panel, { rows, columns }));
    plot.on("plotly_hover", (event) => {
      // The position of the pointer, because the point of the event may be a marker nearby.
      const place = (position) => Math.round((position - 0.5 * (data.step - 1)) / data.step);
      const [column, row] = [place(event.xvals[0]), place(event.yvals[0])];
      const shown = panel.layers[choice.layer.value][row]?.[column];
      if (shown === undefined) return;
      const unit = choice.layer.value === "residual" ? panel.data.residual.unit : "counts";
      const read = isFinite(shown) ? `${Number(shown.toPrecision(6))} ${unit}` : "no value";
      const [x, y] = [column, row].map((number) => number * data.step + 0.5 * (data.step - 1));
      choice.value.textContent = `x ${x}, y ${y}: ${read}`;
    });
    plot.on("plotly_click", (event) => {
      const point = event.points.find((each) => each.curveNumber === MARKERS);
      if (point) select(`${panel.data.key}-${point.pointNumber}`, "row");
    });
    plot.on("plotly_relayout", () => {
      for (const other of siblings) if (other !== panel) follow(other, rangesOf(panel));
    });
  }

  function rangesOf(panel) {
    return ["xaxis", "yaxis"].map((name) => [...panel.plot.layout[name].range]);
  }

  /** Show the same part of the image as another panel. */
  function follow(panel, ranges) {
    if (!panel.plot.layout) return; // not drawn yet
    const same = rangesOf(panel).every((own, k) => own.every((end, side) => Math.abs(end - ranges[k][side]) < 1e-6));
    if (!same) Plotly.relayout(panel.plot, { "xaxis.range": ranges[0], "yaxis.range": ranges[1] });
  }

  function moveByKey(event, panel, { rows, columns }) {
    const steps = { ArrowLeft: [-0.2, 0], ArrowRight: [0.2, 0], ArrowUp: [0, -0.2], ArrowDown: [0, 0.2] };
    const zooms = { "+": 0.7, "=": 0.7, "-": 1 / 0.7 };
    let ranges = rangesOf(panel);
    if (event.key === "0") {
      ranges = [[-0.5, columns - 0.5], [rows - 0.5, -0.5]];
    } else if (event.key in zooms) {
      ranges = ranges.map(([from, to]) => [0.5 * (from + to), 0.5 * (to - from) * zooms[event.key]]);
      ranges = ranges.map(([middle, half]) => [middle - half, middle + half]);
    } else if (event.key in steps) {
      ranges = ranges.map(([from, to], k) => [from, to].map((end) => end + steps[event.key][k] * Math.abs(to - from)));
    } else {
      return;
    }
    event.preventDefault();
    Plotly.relayout(panel.plot, { "xaxis.range": ranges[0], "yaxis.range": ranges[1] });
  }

  /** Highlight a target in its picture and in the table, and scroll to the other one of the two. */
  function select(target, towards) {
    const cut = target.lastIndexOf("-");
    const panel = panels.get(target.slice(0, cut));
    for (const row of document.querySelectorAll("tr[data-target]")) {
      const chosen = row.dataset.target === target;
      row.classList.toggle("csist-chosen", chosen);
      if (chosen) row.setAttribute("aria-current", "true");
      else row.removeAttribute("aria-current");
      if (chosen && towards === "row") row.scrollIntoView({ block: "nearest" });
    }
    for (const other of panels.values()) {
      if (other !== panel && other.plot.data) Plotly.restyle(other.plot, { x: [[]], y: [[]] }, [SELECTED]);
    }
    if (!panel) {
      showImage(target);
      return;
    }
    const number = Number(target.slice(cut + 1));
    const [x, y] = [panel.data.targets.x[number], panel.data.targets.y[number]];
    Plotly.restyle(panel.plot, { x: [[x]], y: [[y]] }, [SELECTED]);
    if (towards !== "picture") return;
    panel.figure.scrollIntoView({ block: "nearest" });
    // Pan if the target lies outside the part shown.
    const ranges = rangesOf(panel);
    const inside = [x, y].every((value, k) => value >= Math.min(...ranges[k]) && value <= Math.max(...ranges[k]));
    if (inside) return;
    const moved = ranges.map(([from, to], k) => [from, to].map((end) => end + [x, y][k] - 0.5 * (from + to)));
    Plotly.relayout(panel.plot, { "xaxis.range": moved[0], "yaxis.range": moved[1] });
  }

  /** Move the slider of a sequence to the image of a target, and select the target when its picture is drawn. */
  function showImage(target) {
    const slider = document.querySelector("#shown input[type=number]");
    if (!slider) return;
    wanted = target;
    slider.value = Number(slider.min || 0) + Number(target.split("-")[1]);
    for (const kind of ["input", "change"]) slider.dispatchEvent(new Event(kind, { bubbles: true }));
  }

  function drawNew() {
    for (const [key, panel] of panels) {
      if (panel.figure.isConnected) continue;
      Plotly.purge(panel.plot);
      panels.delete(key);
    }
    for (const figure of document.querySelectorAll(".csist-look:not([data-drawn])")) {
      if (!figure.clientWidth) continue; // hidden: its width is not known yet
      figure.dataset.drawn = "yes";
      draw(figure);
    }
    if (wanted && panels.has(wanted.slice(0, wanted.lastIndexOf("-")))) {
      const target = wanted;
      wanted = null;
      select(target, "picture");
    }
    document.querySelectorAll(".csist-scroll").forEach(hint);
  }

  /** Say that a table is wider than its place, until it is scrolled to its end. */
  function hint(scroll) {
    const rest = scroll.scrollWidth - scroll.clientWidth;
    scroll.parentElement.classList.toggle("csist-wide", rest > 4);
    scroll.parentElement.classList.toggle("csist-at-end", rest - scroll.scrollLeft < 4);
  }

  const rowOf = (event) => event.target.closest?.("tr[data-target]");
  document.addEventListener("click", (event) => {
    const row = rowOf(event);
    if (row) select(row.dataset.target, "picture");
  });
  document.addEventListener("keydown", (event) => {
    const row = rowOf(event);
    if (!row) return;
    const next = { ArrowDown: row.nextElementSibling, ArrowUp: row.previousElementSibling }[event.key];
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      select(row.dataset.target, "picture");
    } else if (next?.dataset.target) {
      event.preventDefault();
      row.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    }
  });
  document.addEventListener("scroll", (event) => event.target.classList?.contains("csist-scroll") && hint(event.target), true);
  window.addEventListener("resize", drawNew);
  new MutationObserver(drawNew).observe(document.documentElement, { childList: true, subtree: true });
})();
