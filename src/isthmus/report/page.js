// What the page does: draws the pictures, and computes seconds over the line that a reader chooses.
// `race` repeats isthmus.report.model and isthmus.report.race number by number; a test holds the two together.
const isthmus = (() => {
  "use strict";
  const CONFIG = {
    displaylogo: false, displayModeBar: "hover", responsive: true, plotlyServerURL: "",
    // Named one by one: plotly's own choice includes a button that sends the chart to a server.
    modeBarButtons: [["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d", "toImage"]],
  };
  const PAPER = 660; // pixels that a printed page is wide
  const WIDE_SPREAD = 8;
  const MISSING = "–";
  const BITS = 8 * 1514 / 1448; // on the line for a byte of payload, headers included
  const DELAYS = 2; // one-way delays that a hop costs
  const find = (name) => document.getElementById(name);

  // A picture that is folded away is drawn when it is unfolded: before, it has no size.
  function draw(name, figure) {
    const place = find(name), folded = place.closest("details:not([open])");
    const go = () => Plotly.newPlot(place, figure.data, figure.layout, CONFIG);
    if (folded) folded.addEventListener("toggle", go, { once: true });
    else go();
  }

  const drawn = () => document.querySelectorAll(".js-plotly-plot");
  addEventListener("beforeprint", () => drawn().forEach((chart) => Plotly.relayout(chart, { width: PAPER })));
  addEventListener("afterprint", () => drawn().forEach((chart) => Plotly.relayout(chart, { width: null, autosize: true })));

  // --- words: as isthmus.line and isthmus.report.wording have them ---

  const digits = (value, count) => String(Number(value.toPrecision(count)));
  const whole = (value) => value.toLocaleString("en-US", { maximumFractionDigits: 0 });
  const rateWords = (rate) => {
    if (rate === Infinity) return "no limit";
    const [unit, factor] = [["G", 1e9], ["M", 1e6], ["k", 1e3]].find(([, size]) => rate >= size) ?? ["", 1];
    return `${digits(rate / factor, 6)} ${unit}bit/s`;
  };
  const timeWords = (seconds) => `${digits(1000 * seconds, 6)} ms`;
  const lineWords = (line) => {
    const rates = rateWords(line.down) + (line.up === line.down ? "" : `, up ${rateWords(line.up)}`);
    return line.latency ? `${rates}, ${timeWords(line.latency)}` : rates;
  };
  const secondsWords = (value) => `${value < 10 ? digits(value, 3) : whole(value)} s`;
  const timesWords = (larger, smaller) => {
    if (!(smaller > 0)) return MISSING;
    const ratio = larger / smaller;
    return `${ratio < 10 ? digits(ratio, 2) : whole(ratio)} ×`;
  };
  const said = (middle, margin) =>
    secondsWords(middle) + (margin > 1e-9 * middle ? ` ± ${secondsWords(margin).replace(/ s$/, "")}` : "");

  const RATES = { "": 1, k: 1e3, m: 1e6, g: 1e9, t: 1e12 };
  const TIMES = { us: 1e-6, "µs": 1e-6, ms: 1e-3, s: 1 };
  const NUMBER = "(\\d+\\.?\\d*|\\.\\d+)";
  const readRate = (text) => {
    if (/^\s*no limit\s*$/i.test(text)) return Infinity;
    const found = text.toLowerCase().match(RegExp(`^\\s*${NUMBER}\\s*([kmgt]?)(bit(/s|ps)?|bps)\\s*$`));
    const rate = found ? Number(found[1]) * RATES[found[2]] : 0;
    if (!(rate > 0)) throw Error("must be bits a second, as 100 Mbit/s");
    return rate;
  };
  const readTime = (text) => {
    if (/^\s*0\s*$/.test(text)) return 0;
    const found = text.toLowerCase().match(RegExp(`^\\s*${NUMBER}\\s*(us|µs|ms|s)\\s*$`));
    if (!found) throw Error("must be a time, as 10 ms");
    return Number(found[1]) * TIMES[found[2]];
  };

  // --- the model ---

  function seconds(run, line, overlaps) {
    let total = 0;
    return run.compute_seconds.map((computing, at) => {
      const half = run.ahead_bytes[at] / 2; // of what travelled beside computing, taken to go each way
      const rate = (sent, received) => BITS * Math.max(Math.max(0, sent) / line.up, Math.max(0, received) / line.down);
      const moving = rate(run.sent_bytes[at] - half, run.received_bytes[at] - half) + DELAYS * run.hops[at] * line.latency;
      const beside = Math.max(computing, rate(half, half));
      total += overlaps ? Math.max(beside, moving) : beside + moving;
      return total;
    });
  }

  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const mean = (values) => sum(values) / values.length;
  const deviation = (values) => Math.sqrt(sum(values.map((v) => (v - mean(values)) ** 2)) / (values.length - 1));

  // Mean over seeds of the seconds at which the target was reached, and half of its confidence interval.
  function arrival(entry, clocks) {
    const taken = entry.hits.map(([run, row]) => clocks[run][row]);
    if (!taken.length || !taken.every(Number.isFinite)) return null;
    const means = entry.seeds.map((places) => mean(places.map((at) => taken[at])));
    return [mean(means), means.length > 1 ? entry.margin * deviation(means) : 0];
  }

  // --- the picture and the table ---

  function race(name, chart, courses) {
    const form = find(`${name}-line`), place = find(chart), table = find(`${name}-race`), told = find(`${name}-told`);
    const fields = ["down", "up", "latency"].map((field) => form.elements[field]);

    function redraw(line) {
      const clocks = courses.curves.map((curve) => curve.runs.map((run) => seconds(run, line, curve.overlaps)));
      if (place.data) redrawChart(place, courses.curves, clocks, lineWords(line));
      if (table) redrawTable(table, courses.entries, clocks);
      told.textContent = `Drawn for ${lineWords(line)}.`;
    }

    function read() {
      const line = {};
      let wrong = "";
      for (const field of fields) {
        let fault = "";
        try {
          line[field.name] = (field.name === "latency" ? readTime : readRate)(field.value);
        } catch (error) {
          fault = `${field.dataset.words} ${error.message}. `;
        }
        field.setAttribute("aria-invalid", String(Boolean(fault)));
        wrong += fault;
      }
      if (wrong) told.textContent = wrong;
      else redraw(line);
    }

    form.hidden = false;
    form.addEventListener("submit", (event) => event.preventDefault());
    fields.forEach((field) => field.addEventListener("input", () => {
      form.elements.preset.value = "";
      read();
    }));
    form.elements.preset.addEventListener("change", (event) => {
      if (!event.target.value) return;
      const line = Object.fromEntries(Object.entries(JSON.parse(event.target.value)).map(([k, v]) => [k, v ?? Infinity]));
      fields.forEach((field) => (field.value = (field.name === "latency" ? timeWords : rateWords)(line[field.name])));
      read();
    });
    read(); // a browser that went back to the page has kept what was in the box
  }

  function redrawChart(place, curves, clocks, words) {
    const courses = curves.map((curve, at) => {
      const x = curve.y.map((_, point) => mean(curve.runs.map((run, one) => clocks[at][one][run.at[point]])));
      return { x, y: curve.y, low: curve.low, high: curve.high };
    });
    const ends = courses.map(({ x }) => x[x.length - 1]).filter((end) => end > 0);
    const log = ends.length > 0 && Math.max(...ends) > WIDE_SPREAD * Math.min(...ends);
    const traces = [], data = { x: [], y: [] };
    place.data.forEach((trace, at) => {
      if (!trace.meta) return;
      const course = courses[Number(trace.meta.replace("curve ", ""))];
      const kept = course.x.map((_, point) => point).filter((point) => !log || course.x[point] > 0);
      const [x, y, low, high] = ["x", "y", "low", "high"].map((side) => kept.map((point) => course[side][point]));
      traces.push(at);
      data.x.push(trace.fill ? [...x, ...x.toReversed()] : x);
      data.y.push(trace.fill ? [...high, ...low.toReversed()] : y);
    });
    const places = place.data.flatMap((trace, at) => (traces.includes(at) ? data.x[traces.indexOf(at)] : trace.x));
    Plotly.update(place, data, { ...timeAxis(log, places), "xaxis.title.text": `seconds over ${words}` }, traces);
  }

  // As isthmus.report.charts has it.
  function timeAxis(log, places) {
    const positive = places.filter((value) => value > 0);
    const plain = { type: "linear", autorange: true, tickmode: "auto", dtick: null, nticks: 0, tickformat: "", exponentformat: "SI", minor: {} };
    const low = Math.min(...positive), high = Math.max(...positive);
    const extreme = low < 1e-4 || high > 1e13, few = high > 10 ** 1.7 * low;
    const powers = { nticks: 8, exponentformat: "power" };
    const full = {
      tickmode: "linear", dtick: few ? 1 : high > 10 * low ? "D2" : "D1", tickformat: low >= 1 ? "~s" : "~g",
      minor: { dtick: few ? "D1" : 1, ticks: few ? "outside" : "" },
    };
    const chosen = !log || !positive.length ? plain : { ...plain, type: "log", ...(extreme ? powers : full) };
    return Object.fromEntries(Object.entries(chosen).map(([key, value]) => [`xaxis.${key}`, value]));
  }

  function redrawTable(table, entries, clocks) {
    const found = entries.map((entry, at) => arrival(entry, clocks[at]));
    const middles = found.filter(Boolean).map(([middle]) => middle);
    const [fastest, slowest] = [Math.min(...middles), Math.max(...middles)];
    found.forEach((pair, at) => {
      const one = entries[at].seeds.length === 1 ? ", one seed" : "";
      const texts = pair
        ? [said(...pair) + one, timesWords(pair[0], fastest), timesWords(slowest, pair[0])]
        : ["not reached", MISSING, MISSING];
      const cells = [...table.tBodies[0].rows[at].cells].slice(-texts.length);
      texts.forEach((text, column) => (cells[column].textContent = text));
    });
  }

  return { draw, race };
})();
