"use strict";
(() => {
  const LIGHT = {"--paper": "#ffffff", "--ink": "#1a1a1a", "--grey": "#77777a", "--line": "#dddddd",
    "--mobile": "#d55e00", "--host": "#0072b2", "--second": "#9c4f86", "--c0": "#0072b2",
    "--c1": "#00785a", "--c2": "#9c4f86", "--c3": "#2f86b5", "--c4": "#7a5c00", "--c5": "#444444"};
  const DARK = {"--paper": "#16181b", "--ink": "#e8e8e6", "--grey": "#a0a3a8", "--line": "#3a3f45",
    "--mobile": "#ff9a4d", "--host": "#6cb8ee", "--second": "#e3a1cf", "--c0": "#6cb8ee",
    "--c1": "#4fc9a4", "--c2": "#e3a1cf", "--c3": "#a8d8f5", "--c4": "#e0c25c", "--c5": "#c8c8c8"};
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const index = JSON.parse(document.getElementById("index").textContent);
  const overview = document.getElementById("overview"), sheet = document.getElementById("structure");
  const drawn = new Map();  // element -> its specification, for another theme

  // Plotly reads tags in labels: texts of files go in as entities.
  const escaped = text => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  function resolved(value, palette) {
    if (typeof value === "string") return value in palette ? palette[value] : value;
    if (Array.isArray(value)) {
      return typeof value[0] === "number" || value[0] === null ? value : value.map(v => resolved(v, palette));
    }
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, resolved(v, palette)]));
    }
    return value;
  }

  // Panels get their width from the page: nothing is drawn before all of them stand in it.
  let waiting = null;
  function later(element, data, layout) {
    if (waiting) waiting.push([element, data, layout]); else draw(element, data, layout);
  }

  function draw(element, data, layout, light) {
    drawn.set(element, [data, layout]);
    const palette = dark.matches && !light ? DARK : LIGHT;
    const narrow = element.clientWidth < 480;
    const line = {gridcolor: palette["--line"], linecolor: palette["--grey"], zeroline: false,
      ticks: "outside", showline: true, automargin: true};
    const whole = resolved(layout, palette);
    const axis = one => Object.assign({}, line, one);
    const result = Object.assign({
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest",
      font: {family: "system-ui, Liberation Sans, sans-serif", size: narrow ? 11 : 13, color: palette["--ink"]},
      margin: {l: narrow ? 50 : 65, r: 15, t: 55, b: 50},
      modebar: {bgcolor: "rgba(0,0,0,0)", color: palette["--grey"], activecolor: palette["--ink"]},
      legend: {orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: {size: narrow ? 10 : 12}},
    }, whole);
    for (const key of Object.keys(result)) if (/^[xy]axis\d*$/.test(key)) result[key] = axis(result[key]);
    return Plotly.react(element, resolved(data, palette), result,
      {responsive: true, displaylogo: false, modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]]});
  }

  function redraw(light) {
    for (const [element, [data, layout]] of drawn) {
      if (element.isConnected) draw(element, data, layout, light); else drawn.delete(element);
    }
  }
  dark.addEventListener("change", () => redraw(false));
  addEventListener("beforeprint", () => redraw(true));
  addEventListener("afterprint", () => redraw(false));

  // ---- tables

  const address = name => "#s=" + encodeURIComponent(name);
  for (const a of document.querySelectorAll("a[data-s]")) a.href = address(a.dataset.s);

  function key(row, column) {
    const cell = row.cells[column], value = cell.dataset.v ?? cell.textContent.trim();
    const number = Number(value);
    return value === "" ? null : Number.isNaN(number) ? value.toLowerCase() : number;
  }
  function sort(table, column) {
    const heads = [...table.tHead.rows[0].cells];
    const down = heads[column].getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const head of heads) head.removeAttribute("aria-sort");
    heads[column].setAttribute("aria-sort", down < 0 ? "descending" : "ascending");
    const rows = [...table.tBodies[0].rows].map(row => [key(row, column), row]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);  // the unknown stays last
      if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
      return down * (typeof a === "number" ? a - b : a.localeCompare(b));
    });
    table.tBodies[0].append(...rows.map(([, row]) => row));
  }
  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((head, n) =>
      head.querySelector("button").addEventListener("click", () => sort(table, n)));
  }
  for (const input of document.querySelectorAll("input[data-for]")) {
    const table = document.getElementById(input.dataset.for);
    const count = document.querySelector(`[data-count="${input.dataset.for}"]`);
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      const rows = [...table.tBodies[0].rows];
      let seen = 0;
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every(word => text.includes(word));
        seen += !row.hidden;
      }
      count.textContent = seen === rows.length ? `${seen} rows` : `${seen} of ${rows.length} rows`;
    });
  }

  // ---- one structure

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children.filter(child => child !== null));
    return element;
  }
  function panel(parent, title, caption) {
    const plot = make("div", {class: "plot"});
    parent.append(make("figure", {}, make("h3", {}, title), plot,
      caption ? make("figcaption", {}, caption) : null));
    return plot;
  }
  const missing = (parent, title, why) => parent.append(
    make("figure", {}, make("h3", {}, title), make("p", {class: "missing"}, why)));

  function colour(names, mobile) {
    const found = {total: "--ink"};
    let n = 0;
    for (const name of names) {
      if (name in found) continue;
      found[name] = name === mobile ? "--mobile" : "--c" + (n++ % 6);
    }
    return found;
  }
  const dash = name => name === "total" ? "dot" : "solid";

  const PLASMA = ["#0d0887", "#5302a3", "#8b0aa5", "#b83289", "#db5c68", "#f48849", "#febd2a"]
    .map((c, n) => [n / 6, c]);
  const BLUE = [[0, "#0b4f9e"], [0.25, "#4f8fce"], [0.5, "#a9a9a9"], [0.75, "#e08a3c"], [1, "#a84300"]];
  const NIGHT = [[0, "#7a5cff"], [0.35, "#d45bc8"], [0.7, "#ff9a4d"], [1, "#fff27a"]];

  function quantile(sorted, share) {
    return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
  }

  function bandTraces(bands, choice) {
    const breaks = new Set(bands.starts);
    const line = {x: [], y: []}, dot = {x: [], y: [], value: [], text: []};
    const values = bands.colours[choice] || [];
    bands.y.forEach((curve, mode) => {
      curve.forEach((y, n) => {
        if (breaks.has(n)) { line.x.push(null); line.y.push(null); }
        line.x.push(bands.x[n]); line.y.push(y);
        const value = values[mode] ? values[mode][n] : null;
        if (value === null || y === null) return;
        dot.x.push(bands.x[n]); dot.y.push(y); dot.value.push(value);
      });
      line.x.push(null); line.y.push(null);
    });
    let shown = dot.value, bar = {thickness: 12}, range = [0, 1], scale = dark.matches ? NIGHT : PLASMA;
    if (choice === "msd") {
      shown = dot.value.map(Math.log10);
      const sorted = [...shown].sort((a, b) => a - b);
      // Acoustic modes have no bound towards Γ: they saturate.
      const high = sorted.length ? quantile(sorted, 0.99) : 0;
      const low = sorted.length ? Math.min(Math.max(quantile(sorted, 0.01), high - 3), high - 0.5) : -3;
      range = [low, high];
      const ticks = [];
      for (let p = Math.ceil(low); p <= high; p++) ticks.push(p);
      if (ticks.length < 2) ticks.splice(0, 2, low, high);
      Object.assign(bar, {title: {text: "MSD of a mode (Å²)", side: "right"}, tickvals: ticks,
        ticktext: ticks.map(t => Number((10 ** t).toPrecision(2)).toString())});
    } else if (choice === "coupling") {
      range = [-1, 1]; scale = BLUE;
      bar.title = {text: "coupling (no unit)", side: "right"};
    } else {
      bar.title = {text: "participation ratio (no unit)", side: "right"};
    }
    return [
      {type: "scatter", mode: "lines", x: line.x, y: line.y, hoverinfo: "skip",
        line: {color: "--grey", width: 0.7}},
      {type: "scatter", mode: "markers", x: dot.x, y: dot.y,
        customdata: dot.value, hovertemplate: "%{y:.3f} THz, %{customdata:.3g}<extra></extra>",
        marker: {size: 4, color: shown, cmin: range[0], cmax: range[1], colorscale: scale, colorbar: bar}},
    ];
  }

  function showBands(parent, data) {
    const {bands, dos} = data;
    if (!bands) { missing(parent, "Bands", "Not drawn: there are no modes of this structure."); return; }
    const select = make("select", {}, make("option", {value: "msd"}, `MSD of ${data.mobile || "the mobile ion"} at ${bands.temperature} K`),
      make("option", {value: "participation"}, "participation ratio"),
      make("option", {value: "coupling"}, `coupling of ${data.mobile || "the mobile ion"} and host`));
    const wide = make("div", {class: "wide"});
    parent.append(make("div", {class: "tools"}, make("label", {}, "Bands coloured by ", select)), wide);
    const left = panel(wide, "Bands", bands.of
      ? `${bands.x.length} of ${bands.of} points of the path; all are in modes.npz. Imaginary modes are negative; grey: undefined.`
      : "Imaginary modes are negative; grey without a dot: undefined.");
    const all = bands.y.flat().filter(v => v !== null);
    const top = all.reduce((a, b) => Math.max(a, b), 0);
    const low = all.reduce((a, b) => Math.min(a, b), 0);
    const range = [low < -0.05 ? low - 0.03 * (top - low) : 0, top + 0.03 * (top - low)];
    const lines = bands.ticks.map(([x]) => ({type: "line", x0: x, x1: x, y0: 0, y1: 1, yref: "paper",
      line: {color: "--line", width: 1}, layer: "below"}));
    if (data.cutoff !== undefined) lines.push({type: "line", x0: 0, x1: 1, xref: "paper", y0: data.cutoff,
      y1: data.cutoff, line: {color: "--ink", width: 1, dash: "dot"}});
    const layout = {showlegend: false, shapes: lines,
      xaxis: {tickvals: bands.ticks.map(t => t[0]), ticktext: bands.ticks.map(t => t[1]), showgrid: false,
        title: {text: "Path in the Brillouin zone (1/Å)"}, range: [bands.x[0], bands.x[bands.x.length - 1]]},
      yaxis: {title: {text: "Frequency (THz)"}, range}};
    const update = () => later(left, bandTraces(bands, select.value), layout);
    select.addEventListener("change", update);
    update();
    if (!dos) { missing(wide, "Density of states", "Not drawn: none is stored."); return; }
    const right = panel(wide, "Density of states", data.cutoff === undefined ? ""
      : `Dotted: acoustic cutoff, ${data.cutoff.toPrecision(3)} THz. Dashed: centres.`);
    const colours = colour(Object.keys(dos.y), data.mobile);
    const traces = Object.entries(dos.y).map(([name, y]) => ({type: "scatter", mode: "lines", x: y, y: dos.x,
      name: escaped(name), line: {color: colours[name], width: name === data.mobile ? 2 : 1.2, dash: dash(name)}}));
    const marks = Object.entries(dos.centres).filter(([name, v]) => v !== null && name !== "total").map(([name, v]) =>
      ({type: "line", x0: 0, x1: 1, xref: "paper", y0: v, y1: v,
        line: {color: colours[name] || "--grey", width: 1, dash: "dash"}}));
    if (data.cutoff !== undefined) marks.push(lines[lines.length - 1]);
    later(right, traces, {shapes: marks, xaxis: {title: {text: "States (1/THz)"}, rangemode: "tozero"},
      yaxis: {title: {text: "Frequency (THz)"}, range}});
  }

  function showRun(parent, data, run) {
    const grid = make("div", {class: "grid"});
    const T = run.temperature === "unknown" ? "unknown temperature" : `${run.temperature} K`;
    parent.append(make("h2", {}, `Molecular dynamics, ${T}`), make("p", {}, run.said + "."),
      chips(run.flags), list(run.notes) || "", grid);
    if (run.msd) {
      const plot = panel(grid, "Mean squared displacement",
        run.msd.fit ? "Dashed: the fit with its 95 % interval, over the lags that it uses; grey: cut off. A double click shows all lags." : "");
      const colours = colour(Object.keys(run.msd.y), data.mobile), {x, y, fit} = run.msd;
      const traces = Object.entries(y).map(([name, curve]) => ({type: "scatter", mode: "lines", x, y: curve,
        name: escaped(name), line: {color: colours[name], width: name === data.mobile ? 2.2 : 1.3}}));
      const shapes = [];
      if (fit) {
        const [a, b] = fit.lags, middle = fit.intercept + 3 * fit.D * (a + b);
        if (fit.interval.length === 2 && fit.interval.every(v => v !== null)) {
          const at = (D, t) => middle + 6 * D * (t - (a + b) / 2), [l, h] = fit.interval;
          traces.push({type: "scatter", mode: "lines", x: [a, b, b, a, a], fill: "toself", opacity: 0.35,
            y: [at(l, a), at(l, b), at(h, b), at(h, a), at(l, a)], line: {width: 0, color: "--grey"},
            name: "95 %", hoverinfo: "skip"});
        }
        traces.push({type: "scatter", mode: "lines", x: [a, b], y: [a, b].map(t => fit.intercept + 6 * fit.D * t),
          line: {color: "--ink", dash: "dash", width: 1.5}, name: fit.censored ? "fit, below detection" : "fit"});
        shapes.push({type: "rect", x0: 0, x1: a, y0: 0, y1: 1, yref: "paper", line: {width: 0},
          fillcolor: "--grey", opacity: 0.12, layer: "below"});
      }
      const end = fit ? 1.15 * fit.lags[1] : x[x.length - 1];
      const seen = Object.values(y).flatMap(curve => curve.filter((v, n) => v !== null && x[n] <= end));
      later(plot, traces, {shapes, xaxis: {title: {text: "Time (ps)"}, range: [0, end]},
        yaxis: {title: {text: "MSD (Å²)"}, range: [0, 1.1 * seen.reduce((a, b) => Math.max(a, b), 1e-9)]}});
    } else missing(grid, "Mean squared displacement", "Not drawn: the file of this run is missing.");
    if (run.vdos) {
      const plot = panel(grid, "Vibrational density of states", "Dashed: centres" +
        (data.cutoff === undefined ? "." : "; dotted: acoustic cutoff of the phonons."));
      const colours = colour(Object.keys(run.vdos.y), data.mobile);
      const traces = Object.entries(run.vdos.y).map(([name, curve]) => ({type: "scatter", mode: "lines",
        x: run.vdos.x, y: curve, name: escaped(name), line: {color: colours[name], width: name === data.mobile ? 2 : 1.3}}));
      const shapes = Object.keys(run.vdos.y).filter(name => typeof run.vdos.centres[name] === "number").map(name =>
        ({type: "line", x0: run.vdos.centres[name], x1: run.vdos.centres[name], y0: 0, y1: 1, yref: "paper",
          line: {color: colours[name], width: 1, dash: "dash"}}));
      if (data.cutoff !== undefined) shapes.push({type: "line", x0: data.cutoff, x1: data.cutoff, y0: 0, y1: 1,
        yref: "paper", line: {color: "--ink", width: 1, dash: "dot"}});
      later(plot, traces, {shapes, xaxis: {title: {text: "Frequency (THz)"}, rangemode: "tozero"},
        yaxis: {title: {text: "VDOS (1/THz)"}, rangemode: "tozero"}});
    } else missing(grid, "Vibrational density of states", "Not drawn: no velocities were seen.");
    if (run.density) {
      const plot = panel(grid, "Density of " + data.mobile,
        `Averaged along ${run.density.axis}; along the two other lattice vectors.`);
      later(plot, [{type: "heatmap", x: run.density.x, y: run.density.y, z: run.density.z, colorscale: "Cividis",
        colorbar: {title: {text: "Density (1/Å³)"}, thickness: 12}}],
        {xaxis: {title: {text: "First vector (Å)"}}, yaxis: {title: {text: "Second vector (Å)"}}});
    }
    if (run.channels) {
      const plot = panel(grid, "Channels", "Dimensionality of the connected region that holds this share of the ions.");
      later(plot, [{type: "scatter", mode: "lines", line: {shape: "hv", color: "--mobile", width: 2},
        x: run.channels.x, y: run.channels.y}], {showlegend: false,
        xaxis: {title: {text: "Share of mobile ions inside (no unit)"}, range: [0, 1]},
        yaxis: {title: {text: "Dimensionality (number)"}, range: [-0.2, 3.2], dtick: 1}});
    }
  }

  const chips = flags => make("p", {}, ...(flags.length
    ? flags.flatMap(flag => [make("span", {class: "flag"}, flag.replaceAll("_", " ")), " "]) : ["No flags."]));
  const list = texts => texts.length ? make("ul", {class: "notes"}, ...texts.map(text => make("li", {}, text))) : null;
  function pairs(title, rows) {
    if (!rows.length) return null;
    const body = make("tbody", {}, ...rows.map(([name, value]) =>
      make("tr", {}, make("th", {scope: "row"}, name), make("td", {}, value === null ? "" : String(value)))));
    return make("details", {}, make("summary", {}, title),
      make("div", {class: "scroll"}, make("table", {class: "pairs"}, body)));
  }

  function open(place) {
    const data = JSON.parse(document.getElementById("s" + place).textContent);
    const at = step => index.names[place + step];
    const near = (step, text) => at(step) === undefined ? null
      : make("a", {class: "button", href: address(at(step))}, text);
    sheet.replaceChildren(make("div", {class: "tools"}, make("a", {class: "button", href: "#ranking"}, "All candidates"),
      near(-1, "Previous"), near(1, "Next")));
    sheet.append(make("h1", {}, data.formula || data.id), make("p", {class: "lead"}, data.id + ": " + data.standing));
    if (data.problems.length) {
      sheet.append(make("div", {class: "problems"}, make("b", {}, "Not everything could be read"), list(data.problems)));
    }
    sheet.append(chips(data.flags), list(data.notes) || "");
    sheet.append(make("h2", {}, "Phonons"));
    showBands(sheet, data);
    if ((data.runs || []).length) data.runs.forEach(run => showRun(sheet, data, run));
    else sheet.append(make("h2", {}, "Molecular dynamics"), make("p", {class: "missing"},
      "No MSD(t), VDOS or channels: there was no molecular dynamics of this structure."));
    sheet.append(make("h2", {}, "Numbers and files"), pairs("Row of the table", data.table) || "",
      pairs("Record", data.record) || "");
    sheet.append(data.files.length ? make("ul", {class: "files"}, ...data.files.map(([name, href, size]) =>
      make("li", {}, make("a", {href}, name), " ", make("small", {}, size)))) : make("p", {class: "missing"}, "No files."));
  }

  function route() {
    let name = null;
    if (location.hash.startsWith("#s=")) {
      try { name = decodeURIComponent(location.hash.slice(3)); } catch { name = location.hash.slice(3); }
    }
    const place = name === null ? -1 : index.names.indexOf(name);
    const was = sheet.hidden;
    overview.hidden = name !== null;
    sheet.hidden = name === null;
    if (name === null) {
      sheet.replaceChildren();
      show();
      const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
      if (target && !was) target.scrollIntoView();
      return;
    }
    scrollTo(0, 0);
    if (place < 0) {
      sheet.replaceChildren(make("a", {class: "button", href: "#ranking"}, "All candidates"),
        make("p", {class: "missing"}, `There is no page of ${name}.`));
    } else {
      waiting = [];
      try { open(place); } finally {
        const all = waiting;
        waiting = null;
        for (const one of all) draw(...one);
      }
    }
  }

  let ready = false;
  function show() {
    if (ready) return;  // a hidden element has no width: not before it is seen
    ready = true;
    for (const figure of index.figures) {
      const element = document.getElementById("plot-" + figure.name);
      if (figure.layout.height) element.style.height = figure.layout.height + "px";
      draw(element, figure.data, figure.layout).then(() => element.on("plotly_click", event => {
        const name = event.points[0].customdata;
        if (typeof name === "string" && index.names.includes(name)) location.hash = address(name);
      }));
    }
  }
  addEventListener("hashchange", route);
  route();
})();
