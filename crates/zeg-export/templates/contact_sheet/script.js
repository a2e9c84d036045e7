"use strict";
// Selects, finds and sorts cards; without this script the page shows all cards in order.
(() => {
  const byId = (id) => document.getElementById(id);
  const grid = byId("images");
  const chips = [...document.querySelectorAll(".chip")];
  const cards = [...grid.children].map((element, order) => {
    const shares = new Map();
    for (const pair of element.dataset.shares.split(" ")) {
      if (pair) {
        const [label, share] = pair.split(":");
        shares.set(label, Number(share));
      }
    }
    const { name, confidence, unlabelled } = element.dataset;
    return {
      element, order, shares, name,
      found: name.toLocaleLowerCase(),
      confidence: confidence === undefined ? null : Number(confidence),
      unlabelled: Number(unlabelled),
      rows: [...element.querySelectorAll("tbody tr")],
    };
  });
  document.documentElement.classList.add("scripted");

  const chosen = new Set();
  const shareOfChosen = (card) => {
    let sum = 0;
    for (const [label, share] of card.shares) {
      if (chosen.size === 0 || chosen.has(label)) sum += share;
    }
    return sum;
  };
  // Images without a confidence come last in both orders.
  const byConfidence = (sign) => (a, b) =>
    (a.confidence === null) - (b.confidence === null) || sign * (a.confidence - b.confidence);
  const compare = {
    order: () => 0,
    name: (a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }),
    share: (a, b) => shareOfChosen(b) - shareOfChosen(a),
    unsure: byConfidence(1),
    sure: byConfidence(-1),
    unlabelled: (a, b) => b.unlabelled - a.unlabelled,
  };

  const show = () => {
    const wanted = byId("name-search").value.trim().toLocaleLowerCase();
    let count = 0;
    for (const card of cards) {
      const hasClass = chosen.size === 0 || [...chosen].some((label) => card.shares.has(label));
      card.element.hidden = !(hasClass && card.found.includes(wanted));
      if (!card.element.hidden) count += 1;
      const labels = [...card.shares.keys()];
      card.rows.forEach((row, place) => row.classList.toggle("chosen", chosen.has(labels[place])));
    }
    byId("status").textContent = count === cards.length
      ? `${count} ${count === 1 ? "image" : "images"}`
      : `${count} of ${cards.length} images`;
    byId("nothing").hidden = count > 0 || cards.length === 0;
    byId("clear").hidden = chosen.size === 0;
  };
  const sort = () => {
    const order = compare[byId("sort").value] || compare.order;
    grid.append(...cards.sort((a, b) => order(a, b) || a.order - b.order).map((card) => card.element));
  };
  const clear = () => {
    chosen.clear();
    for (const chip of chips) chip.setAttribute("aria-pressed", "false");
  };

  for (const chip of chips) {
    chip.addEventListener("click", () => {
      const label = chip.dataset.class;
      if (!chosen.delete(label)) chosen.add(label);
      chip.setAttribute("aria-pressed", String(chosen.has(label)));
      if (byId("sort").value === "share") sort();
      show();
    });
  }
  byId("class-search").addEventListener("input", (event) => {
    const wanted = event.target.value.trim().toLocaleLowerCase();
    for (const chip of chips) {
      const fits = chip.title.toLocaleLowerCase().includes(wanted);
      chip.parentElement.hidden = !fits && chip.getAttribute("aria-pressed") === "false";
    }
  });
  byId("name-search").addEventListener("input", show);
  byId("sort").addEventListener("change", sort);
  byId("clear").addEventListener("click", () => {
    clear();
    if (byId("sort").value === "share") sort();
    show();
    byId("class-search").focus();
  });
  byId("reset").addEventListener("click", () => {
    byId("name-search").value = "";
    clear();
    if (byId("sort").value === "share") sort();
    show();
    grid.focus();
  });
  grid.addEventListener("click", (event) => {
    const button = event.target.closest(".unfold");
    if (!button) return;
    const open = button.closest(".card").classList.toggle("open");
    button.dataset.more = button.dataset.more || button.textContent;
    button.textContent = open ? "Show fewer" : button.dataset.more;
    button.setAttribute("aria-expanded", String(open));
  });
  sort(); // a reloaded page keeps the selected options
  show();
})();
