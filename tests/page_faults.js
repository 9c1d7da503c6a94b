// What a reader cannot see on a page, as [kind, place] pairs. With `strict` nothing may scroll sideways;
// without it formulas still may not, and whatever does has to show that it does.
({ strict }) => {
  const TOLERANCE = 1.5; // rounding of layouts, in pixels
  const SMALLEST_TEXT = 10.5; // of tables, in pixels
  const faults = [];
  const main = document.querySelector("main");
  const column = main.querySelector("article") ?? main;
  const columnBox = column.getBoundingClientRect();
  const report = (kind, element) => faults.push([kind, describe(element)]);

  // Folded parts are parts of the page as well.
  document.querySelectorAll("details").forEach((details) => (details.open = true));
  document.querySelectorAll(".toggle-hidden").forEach((box) => box.classList.remove("toggle-hidden"));

  function describe(element) {
    const label = element.closest("[id]")?.id ?? "";
    const words = element.textContent.trim().replace(/\s+/g, " ").slice(0, 60);
    return `${element.tagName.toLowerCase()} in #${label}: ${words}`;
  }

  function isForEyes(element) {
    const unseen = "mjx-assistive-mml, .visually-hidden, .sr-only, script, style, .headerlink, .copybtn";
    return !element.closest(unseen) && element.checkVisibility({ visibilityProperty: true });
  }

  function boxesOf(node) {
    const range = document.createRange();
    range.selectNodeContents(node);
    return node.nodeType === Node.TEXT_NODE ? [...range.getClientRects()] : [node.getBoundingClientRect()];
  }

  // The first ancestor that cuts or scrolls what leaves it sideways.
  function frameOf(element) {
    for (let box = element; box && box !== main; box = box.parentElement) {
      const style = getComputedStyle(box);
      if (style.overflowX !== "visible" && style.display !== "inline") return box;
    }
    return null;
  }

  function leaves(box, left, right) {
    return box.width > 0 && (box.left < left - TOLERANCE || box.right > right + TOLERANCE);
  }

  const scrollers = new Set();
  function look(node, element) {
    const frame = frameOf(node.nodeType === Node.TEXT_NODE ? element : element.parentElement);
    for (const box of boxesOf(node)) {
      if (frame) {
        const left = frame.getBoundingClientRect().left + frame.clientLeft;
        if (!leaves(box, left, left + frame.clientWidth)) continue;
        if (/auto|scroll/.test(getComputedStyle(frame).overflowX)) scrollers.add(frame);
        else report("cut by its box", element);
        return;
      }
      if (leaves(box, columnBox.left, columnBox.right)) return report("wider than its column", element);
    }
  }

  function lookAtScroller(box) {
    if (strict || box.matches("mjx-container")) report("to be scrolled sideways", box);
    if (box.tabIndex < 0) report("scrolls, but not by keyboard", box);
    const style = getComputedStyle(box);
    const borders = parseFloat(style.borderTopWidth) + parseFloat(style.borderBottomWidth);
    if (box.offsetHeight - box.clientHeight - borders < 4) report("scrolls without a bar in sight", box);
    box.querySelectorAll("table").forEach((table) => lookAtScrolledTable(box, table));
  }

  // At the far end of the scroll the first column and the caption still stand there, and leave room.
  function lookAtScrolledTable(box, table) {
    box.scrollLeft = box.scrollWidth;
    const { left } = box.getBoundingClientRect();
    for (const row of table.rows) {
      const cell = row.cells[0].getBoundingClientRect();
      if (leaves(cell, left, left + box.clientWidth)) return report("first column out of view", table);
      if (isCovered(row.cells[0])) return report("first column covered", table);
      if (cell.width > 0.6 * box.clientWidth) return report("first column leaves no room", table);
    }
    const caption = table.caption?.getBoundingClientRect();
    if (caption && leaves(caption, left, left + box.clientWidth)) report("caption out of view", table);
    box.scrollLeft = 0;
  }

  function isCovered(cell) {
    cell.scrollIntoView({ block: "center", inline: "nearest", behavior: "instant" });
    const { left, top, width, height } = cell.getBoundingClientRect();
    return !cell.contains(document.elementFromPoint(left + width / 2, top + height / 2));
  }

  const walker = document.createTreeWalker(column, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.nodeType === Node.TEXT_NODE ? node.parentElement : node;
    if ((node.nodeType === Node.ELEMENT_NODE || node.data.trim()) && isForEyes(element)) look(node, element);
  }
  scrollers.forEach(lookAtScroller);
  const root = document.scrollingElement;
  if (root.scrollWidth > root.clientWidth + TOLERANCE) faults.push(["the page itself scrolls sideways", ""]);
  for (const cell of column.querySelectorAll("td, th"))
    if (parseFloat(getComputedStyle(cell).fontSize) < SMALLEST_TEXT) report("text too small", cell);
  return faults;
}
