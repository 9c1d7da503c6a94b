// Search field and menus of a long table (uwmlib/reporting/searchable.py): rows that do not match are hidden.
(() => {
  // "P_u^t" and "Put" are one word; minus signs are hyphens, as they are typed.
  const plain = (text) => text.toLowerCase().replace(/[_^{}]/g, "").replace(/−/g, "-").replace(/\s+/g, " ").trim();

  function enable(box) {
    const controls = box.querySelector(".searchable-controls");
    const field = controls.querySelector("input");
    const menus = [...controls.querySelectorAll("select")];
    const rows = [...box.querySelectorAll("tbody tr")].map((row) => ({ row, words: plain(row.dataset.words) }));

    function show() {
      const wanted = plain(field.value).split(" ").filter(Boolean);
      let shown = 0;
      for (const { row, words } of rows) {
        const chosen = menus.every((menu) => {
          const has = row.getAttribute(`data-filter-${menu.dataset.filter}`).split("; ");
          return !menu.value || has.includes(menu.value);
        });
        row.hidden = !chosen || !wanted.every((word) => words.includes(word));
        shown += row.hidden ? 0 : 1;
      }
      controls.querySelector("output").textContent = `${shown} of ${rows.length} shown`;
    }

    function reset() {
      field.value = "";
      menus.forEach((menu) => (menu.value = ""));
      show();
    }

    field.addEventListener("input", show);
    menus.forEach((menu) => menu.addEventListener("change", show));
    controls.querySelector("button").addEventListener("click", reset);
    controls.hidden = false;
    reset();
  }

  document.addEventListener("DOMContentLoaded", () => document.querySelectorAll(".searchable").forEach(enable));
})();
