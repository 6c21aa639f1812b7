"use strict";
(() => {
  const config = {
    responsive: true, displaylogo: false, displayModeBar: matchMedia("(min-width: 600px)").matches,
    modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]],
  };

  // Colours and fonts of the page for a plot's text, axes and grids, so that it fits a light and a dark page.
  function theme(plot) {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const look = {
      "font.color": colour("--text"), "font.size": 13, "font.family": getComputedStyle(document.body).fontFamily,
      "hoverlabel.bgcolor": colour("--page"), "hoverlabel.font.color": colour("--text"),
      "hoverlabel.bordercolor": colour("--quiet"), "hoverlabel.align": "left",
      "modebar.bgcolor": "rgba(0,0,0,0)", "modebar.color": colour("--quiet"), "modebar.activecolor": colour("--text"),
    };
    for (const axis of Object.keys(plot.layout).filter((key) => /^[xy]axis\d*$/.test(key))) {
      look[axis + ".gridcolor"] = look[axis + ".linecolor"] = colour("--line");
    }
    return look;
  }
  const paint = () => Promise.all(
    [...document.querySelectorAll(".plot")].map((plot) => Plotly.relayout(plot, theme(plot))));

  function showCard(id) {
    const card = document.getElementById("network-" + id);
    if (!card) return;
    location.hash = "network-" + id;  // :target highlights it, and the back button returns
    card.scrollIntoView({ block: "nearest" });
    card.focus({ preventScroll: true });
  }

  for (const source of document.querySelectorAll("script[data-plot]")) {
    const plot = document.getElementById(source.dataset.plot);
    const figure = JSON.parse(source.textContent);
    Plotly.newPlot(plot, figure.data, figure.layout, config).then(() => Plotly.relayout(plot, theme(plot)));
    plot.on("plotly_click", (event) => {
      const id = event.points[0].customdata;
      if (id) showCard(id);
    });
  }

  for (const choice of document.querySelectorAll("select[data-traces-of]")) {
    choice.addEventListener("change", () => {
      const plot = document.getElementById(choice.dataset.tracesOf);
      const chosen = Number(choice.value);
      Plotly.update(plot, { visible: plot.data.map((_, i) => i === chosen) },
        { "xaxis.title.text": plot.data[chosen].meta, "xaxis.autorange": true, "yaxis.autorange": true });
    });
    choice.value = "0";  // a reloading browser would keep the last choice while the plot starts with the first
  }

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
  let closed = [];
  addEventListener("beforeprint", () => {
    document.documentElement.classList.add("paper");
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const details of closed) details.open = true;
    paint();
  });
  addEventListener("afterprint", () => {
    document.documentElement.classList.remove("paper");
    for (const details of closed) details.open = false;
    paint();
  });
})();
