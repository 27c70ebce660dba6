// Pictures of the results: zoom, pan, value under the pointer, stretch and colour scale, drawn by Plotly.
// A marker and its row in the table highlight each other.
(() => {
  "use strict";

  const COLOURS = ["Greys", "Viridis", "Cividis", "Inferno"];
  const LAYERS = { image: "Image", model: "Model", residual: "Residual" };
  const STRETCHES = { percentile: "1 to 99.8 %", full: "Full range", log: "Logarithmic" };
  const [HEATMAP, MARKERS, SELECTED] = [0, 1, 2]; // places of the traces
  const MOST_SORTED = 200000;
  const pictures = new Map();

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

  /** Return the values as drawn, the ends of the colour scale, and the labels of a logarithmic one. */
  function stretched(picture, layer, stretch) {
    const rows = picture.layers[layer];
    if (layer === "residual") {
      const order = sorted(rows);
      const largest = Math.max(Math.abs(order[0] ?? 1), Math.abs(order[order.length - 1] ?? 1)) || 1;
      const limit = picture.data.residual.limit ?? largest;
      return { z: rows, zmin: -limit, zmax: limit, bar: { title: { text: picture.data.residual.unit } } };
    }
    // Image and model share the scale of the image.
    const [low, high] = extremes(picture.layers.image);
    const bar = { title: { text: "counts" } };
    if (stretch === "full") return { z: rows, zmin: low, zmax: high, bar };
    const order = sorted(picture.layers.image);
    const at = (share) => order[Math.round(share * (order.length - 1))];
    if (stretch === "percentile") {
      const [from, to] = [at(0.01), at(0.998)];
      return { z: rows, zmin: from < to ? from : low, zmax: from < to ? to : high, bar };
    }
    const floor = at(0.01);
    const scale = Math.max((high - floor) / 1000, 1e-30);
    const curve = (value) => Math.log10(1 + Math.max(value - floor, 0) / scale);
    const steps = [0, 0.01, 0.1, 1].map((share) => floor + share * (high - floor));
    return {
      z: rows.map((row) => row.map((value) => (isFinite(value) ? curve(value) : NaN))),
      zmin: 0,
      zmax: curve(high),
      bar: { title: { text: "counts" }, tickvals: steps.map(curve), ticktext: steps.map((value) => value.toPrecision(3)) },
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

  function traces(data) {
    const words = (flux) => (flux === null ? "" : `, intensity ${flux.toFixed(1)}`);
    const points = (given, marker, name) => ({
      type: "scatter", mode: "markers", name, marker, x: given.x, y: given.y,
      text: given.x.map((x, k) => `${name} at ${x.toFixed(2)}, ${given.y[k].toFixed(2)}${words(given.intensity[k])}`),
      hovertemplate: "%{text}<extra></extra>",
    });
    const ring = (color, size, width) => ({ symbol: "circle-open", size, color, line: { width } });
    const made = [
      {
        type: "heatmap", hoverinfo: "none",
        x: centres(data.shape[1], data.step), y: centres(data.shape[0], data.step),
        colorbar: { thickness: 12, len: 1, outlinewidth: 0 },
      },
      points(data.targets, ring("#D55E00", 11, 2), "Target"),
      { ...points({ x: [], y: [], intensity: [] }, ring("#F0E442", 20, 4), "Selected"), hoverinfo: "skip" },
    ];
    if (data.truth) made.push(points(data.truth, { symbol: "x-thin-open", size: 9, color: "#009E73", line: { width: 2 } }, "Truth"));
    return made;
  }

  function draw(figure) {
    const data = JSON.parse(figure.querySelector("template").content.textContent);
    const layers = Object.fromEntries(Object.entries(data.layers).map(([name, text]) => [name, decode(text, data.shape)]));
    const picture = { data, layers, figure, plot: document.createElement("div") };
    pictures.set(data.key, picture);
    const bar = document.createElement("div");
    bar.className = "csist-look-bar";
    const [layerLabel, layer] = labelled("Show", LAYERS);
    const [stretchLabel, stretch] = labelled("Stretch", STRETCHES);
    const [colourLabel, colour] = labelled("Colours", Object.fromEntries(COLOURS.map((name) => [name, name])));
    bar.append(layerLabel, stretchLabel, colourLabel);
    const value = document.createElement("p");
    value.className = "csist-look-value";
    value.textContent = "Point at a pixel to read its value.";
    picture.plot.className = "csist-look-plot";
    figure.prepend(bar, picture.plot, value);

    const narrow = window.innerWidth < 800;
    // As high as the image is for its width, so that no gap is left above and below it.
    const frame = { width: 130, height: 70 };
    const wide = Math.max(figure.clientWidth - frame.width, 100);
    const high = (wide * data.shape[0]) / data.shape[1] + frame.height;
    picture.plot.style.height = `${Math.min(high, Math.max(0.8 * window.innerHeight, 300), 560)}px`;
    const axis = { showgrid: false, zeroline: false, ticks: "outside", constrain: "domain" };
    const [rows, columns] = data.shape.map((count) => count * data.step);
    const layout = {
      margin: { l: 40, r: 10, t: 30, b: 36 }, showlegend: false, hovermode: "closest",
      dragmode: narrow ? false : "zoom", // a finger scrolls the page
      paper_bgcolor: "white", plot_bgcolor: "white",
      xaxis: { ...axis, title: { text: "x in px" }, range: [-0.5, columns - 0.5] },
      yaxis: { ...axis, title: { text: "y in px" }, range: [rows - 0.5, -0.5], scaleanchor: "x" },
    };
    const style = () => {
      const drawn = stretched(picture, layer.value, stretch.value);
      const residual = layer.value === "residual";
      const plain = { tickvals: null, ticktext: null };
      return {
        z: [drawn.z], zmin: [drawn.zmin], zmax: [drawn.zmax], colorscale: [residual ? "RdBu" : colour.value],
        colorbar: [{ thickness: 12, outlinewidth: 0, ...plain, ...drawn.bar }],
      };
    };
    const first = Object.fromEntries(Object.entries(style()).map(([name, [one]]) => [name, one]));
    const [heatmap, ...others] = traces(data);
    const config = {
      responsive: true, displaylogo: false, displayModeBar: true, scrollZoom: !narrow,
      modeBarButtons: [["toImage"], ["zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]],
    };
    Plotly.newPlot(picture.plot, [{ ...heatmap, ...first }, ...others], layout, config);

    const redraw = () => {
      stretch.disabled = colour.disabled = layer.value === "residual";
      Plotly.restyle(picture.plot, style(), [HEATMAP]);
    };
    for (const select of [layer, stretch, colour]) select.addEventListener("change", redraw);
    picture.plot.on("plotly_hover", (event) => {
      // The position of the pointer, because the point of the event may be a marker nearby.
      const place = (position) => Math.round((position - 0.5 * (data.step - 1)) / data.step);
      const [column, row] = [place(event.xvals[0]), place(event.yvals[0])];
      const shown = layers[layer.value][row]?.[column];
      if (shown === undefined) return;
      const unit = layer.value === "residual" ? data.residual.unit : "counts";
      const read = isFinite(shown) ? `${Number(shown.toPrecision(6))} ${unit}` : "no value";
      const [x, y] = [column, row].map((number) => number * data.step + 0.5 * (data.step - 1));
      value.textContent = `x ${x}, y ${y}: ${read}`;
    });
    picture.plot.on("plotly_click", (event) => {
      const point = event.points.find((each) => each.curveNumber === MARKERS);
      if (point) select(`${data.key}-${point.pointNumber}`, "row");
    });
  }

  /** Highlight a target in its picture and in the table, and scroll to the other one of the two. */
  function select(target, towards) {
    const cut = target.lastIndexOf("-");
    const picture = pictures.get(target.slice(0, cut));
    for (const row of document.querySelectorAll("tr[data-target]")) {
      const chosen = row.dataset.target === target;
      row.classList.toggle("csist-chosen", chosen);
      if (chosen) row.setAttribute("aria-current", "true");
      else row.removeAttribute("aria-current");
      if (chosen && towards === "row") row.scrollIntoView({ block: "nearest" });
    }
    for (const other of pictures.values()) {
      if (other !== picture) Plotly.restyle(other.plot, { x: [[]], y: [[]] }, [SELECTED]);
    }
    if (!picture) return;
    const number = Number(target.slice(cut + 1));
    const [x, y] = [picture.data.targets.x[number], picture.data.targets.y[number]];
    Plotly.restyle(picture.plot, { x: [[x]], y: [[y]] }, [SELECTED]);
    if (towards !== "picture") return;
    picture.figure.scrollIntoView({ block: "nearest" });
    // Pan if the target lies outside the part shown.
    const ranges = ["xaxis", "yaxis"].map((name) => picture.plot.layout[name].range);
    const inside = [x, y].every((value, k) => value >= Math.min(...ranges[k]) && value <= Math.max(...ranges[k]));
    if (inside) return;
    const moved = ranges.map(([from, to], k) => [from, to].map((end) => end + [x, y][k] - 0.5 * (from + to)));
    Plotly.relayout(picture.plot, { "xaxis.range": moved[0], "yaxis.range": moved[1] });
  }

  function drawNew() {
    for (const [key, picture] of pictures) {
      if (picture.figure.isConnected) continue;
      Plotly.purge(picture.plot);
      pictures.delete(key);
    }
    for (const figure of document.querySelectorAll(".csist-look:not([data-drawn])")) {
      figure.dataset.drawn = "yes";
      draw(figure);
    }
  }

  const rowOf = (event) => event.target.closest?.("tr[data-target]");
  document.addEventListener("click", (event) => {
    const row = rowOf(event);
    if (row) select(row.dataset.target, "picture");
  });
  document.addEventListener("keydown", (event) => {
    const row = event.key === "Enter" && rowOf(event);
    if (row) select(row.dataset.target, "picture");
  });
  new MutationObserver(drawNew).observe(document.documentElement, { childList: true, subtree: true });
})();
