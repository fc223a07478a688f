// A grid of thumbnails in which samples are selected and judged; every text is set as text.
const KEYS = { a: "accept", x: "reject", f: "flag", d: "clear" };
const kept = new WeakMap(); // place on the page → what is selected there

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

export default function ({ data, parentElement, setTriggerValue }) {
  const memory = kept.get(parentElement) ?? { selected: new Set(), at: 0, from: 0, page: "" };
  kept.set(parentElement, memory);
  const page = data.cells.map((cell) => cell.row).join();
  if (page !== memory.page) {
    memory.selected.clear();
    memory.from = 0;
    memory.page = page;
  }
  memory.at = Math.min(memory.at, Math.max(data.cells.length - 1, 0));
  const hadFocus = parentElement.activeElement?.classList?.contains("cell") || memory.refocus;
  memory.refocus = false;
  parentElement.querySelector(".review")?.remove();

  const count = element("span", { class: "count", role: "status", "aria-live": "polite" });
  const all = element("input", { type: "checkbox", id: "all" });
  const comment = element("input", {
    type: "text", maxlength: 2000, placeholder: "comment", "aria-label": "Comment",
  });
  const isClass = data.names !== null;
  const label = isClass
    ? element("select", { "aria-label": "New label" },
        ...data.names.map((name, i) => element("option", { value: i }, name)))
    : element("input", { type: "number", step: "any", "aria-label": "New label" });

  const cells = data.cells.map((cell, index) => {
    const picture = cell.uri
      ? element("img", { src: cell.uri, alt: "", draggable: "false" })
      : element("span", { class: "broken" }, cell.error);
    const tick = element("span", { class: "tick", "aria-hidden": "true", title: "select" });
    const made = element(
      "div",
      {
        class: `cell ${cell.verdict || "none"}`, role: "option", tabindex: "-1",
        "aria-label": cell.name, "data-key": cell.key,
      },
      picture, tick, element("span", { class: "text" }, cell.text),
      element("span", { class: "verdict" }, cell.verdict || ""),
    );
    made.addEventListener("click", (event) => {
      memory.at = index;
      if (event.shiftKey) extend(index);
      else if (event.target === tick || event.ctrlKey || event.metaKey) toggle(index);
      else open(index);
      focus();
    });
    return made;
  });
  const grid = element(
    "div",
    { class: "grid", role: "listbox", "aria-multiselectable": "true", "aria-label": "Samples" },
    ...cells,
  );
  grid.style.setProperty("--side", `${data.side}px`);

  function rows() {
    return data.cells.filter((cell) => memory.selected.has(cell.row)).map((cell) => cell.row);
  }
  function show() {
    cells.forEach((made, index) => {
      made.setAttribute("aria-selected", memory.selected.has(data.cells[index].row));
      made.tabIndex = index === memory.at ? 0 : -1;
    });
    const number = memory.selected.size.toLocaleString("en");
    count.textContent = all.checked ? `${data.matching.toLocaleString("en")} selected`
      : `${number} selected`;
  }
  function focus() {
    show();
    cells[memory.at]?.focus({ preventScroll: false });
  }
  function toggle(index) {
    const row = data.cells[index].row;
    if (!memory.selected.delete(row)) memory.selected.add(row);
    memory.from = index;
    all.checked = false;
    show();
  }
  function extend(index) {
    const [low, high] = [Math.min(memory.from, index), Math.max(memory.from, index)];
    for (let i = low; i <= high; i++) memory.selected.add(data.cells[i].row);
    show();
  }
  function send(what, more = {}) {
    setTriggerValue("act", { what, at: Date.now(), ...more });
  }
  function open(index) {
    send("open", { rows: [data.cells[index].row] });
  }
  function say(verdict) {
    let on = all.checked ? "all" : rows();
    if (on.length === 0) {
      if (!data.cells.length) return;
      on = [data.cells[memory.at].row];
      memory.at = Math.min(memory.at + 1, data.cells.length - 1);
    }
    const value = verdict === "relabel" ? Number(label.value) : null;
    if (verdict === "relabel" && label.value === "") return label.focus();
    send(verdict, { rows: on, label: value, comment: comment.value });
    memory.selected.clear();
    memory.refocus = true;
  }
  function press(text, title, action) {
    const made = element("button", { type: "button", title }, text);
    made.addEventListener("click", action);
    return made;
  }
  all.addEventListener("change", show);

  const bar = element(
    "div",
    { class: "bar", role: "toolbar", "aria-label": "Verdicts" },
    press("Accept", "key A", () => say("accept")),
    press("Reject", "key X", () => say("reject")),
    press("Flag", "key F", () => say("flag")),
    press("Clear", "key D", () => say("clear")),
    element("span", { class: "group" }, label, press("Relabel", "key L", () => say("relabel"))),
    element("span", { class: "group" }, comment, press("Comment", "", () => say("comment"))),
    press("Undo", "key U", () => send("undo")),
    element("span", { class: "group" },
      press("Select page", "Ctrl+A", () => {
        data.cells.forEach((cell) => memory.selected.add(cell.row));
        show();
      }),
      press("Select none", "Esc", () => {
        memory.selected.clear();
        all.checked = false;
        show();
      }),
      element("label", { class: "all" }, all, ` all ${data.matching.toLocaleString("en")} that match`),
    ),
    count,
  );

  grid.addEventListener("keydown", (event) => {
    const across = Math.max(1, cells.filter((c) => c.offsetTop === cells[0].offsetTop).length);
    const steps = {
      ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across,
      Home: -cells.length, End: cells.length,
    };
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (key in steps) {
      memory.at = Math.min(Math.max(memory.at + steps[key], 0), cells.length - 1);
      if (event.shiftKey) extend(memory.at);
      focus();
    } else if (key === " ") toggle(memory.at);
    else if (key === "Enter") open(memory.at);
    else if (key === "Escape") {
      memory.selected.clear();
      show();
    } else if (key === "a" && (event.ctrlKey || event.metaKey)) {
      data.cells.forEach((cell) => memory.selected.add(cell.row));
      show();
    } else if (event.ctrlKey || event.metaKey || event.altKey) return;
    else if (key in KEYS) say(KEYS[key]);
    else if (key === "l") label.focus();
    else if (key === "u") {
      memory.refocus = true;
      send("undo");
    } else return;
    event.preventDefault();
    event.stopPropagation();
  });

  parentElement.append(element("div", { class: "review" }, bar, grid));
  if (hadFocus) focus();
  else show();
}
