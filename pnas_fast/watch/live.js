"use strict";
// Asks the server for the page every few seconds while somebody looks, and changes what is not as it was:
// places, words sought, sorted columns and what is open stay. It is followed by the page's own script.
const PAUSE = 4000;
const piecesOf = (root) =>
  new Map([...root.querySelectorAll("body > header, main > section")].map((one) => [one.id || "header", one]));
const textsOf = (pieces) => new Map([...pieces].map(([name, piece]) => [name, piece.outerHTML]));
let texts = textsOf(piecesOf(document)), known = null, asking = false;
// This script sees to it itself: both together would move the page twice.
document.documentElement.style.overflowAnchor = "none";

const carry = (old, fresh) => {
  const parts = (piece, selector) => [...piece.querySelectorAll(selector)];
  const open = parts(old, "details").map((one) => one.open);
  parts(fresh, "details").forEach((one, at) => { one.open = open[at] ?? one.open; });
  const lefts = parts(old, ".table, .drawn").map((one) => one.scrollLeft);
  return () => parts(fresh, ".table, .drawn").forEach((one, at) => { one.scrollLeft = lefts[at] ?? 0; });
};

const focused = () => {
  const {id, selectionStart: start, selectionEnd: end} = document.activeElement ?? {};
  return () => {
    const one = id ? document.getElementById(id) : null;
    if (!one || one === document.activeElement) return;
    one.focus({preventScroll: true});
    if (typeof start === "number") one.setSelectionRange(start, end);
  };
};

const renew = (source) => {
  const page = new DOMParser().parseFromString(source, "text/html");
  const now = piecesOf(document), next = piecesOf(page), nextTexts = textsOf(next);
  document.title = page.title;
  const isNew = (name) => texts.get(name) !== nextTexts.get(name);
  if (![...new Set([...now.keys(), ...next.keys()])].some(isNew)) return;
  const [name, seen] = [...now].find(([, piece]) => piece.getBoundingClientRect().bottom > 0) ?? ["header"];
  const top = seen?.getBoundingClientRect().top ?? 0;
  const focus = focused(), table = explained.end(), main = document.querySelector("main");
  const scrolls = [];
  now.forEach((piece, name) => next.has(name) || piece.remove());
  let place = main.firstElementChild;
  next.forEach((piece, name) => {
    const old = now.get(name);
    if (old && !isNew(name)) {
      if (name !== "header" && old !== place) main.insertBefore(old, place);
      else if (name !== "header") place = place.nextElementSibling;
      return;
    }
    if (old) scrolls.push(carry(old, piece));
    if (old === place && old) place = place.nextElementSibling;
    if (name === "header") old.replaceWith(piece);
    else {
      main.insertBefore(piece, place);
      old?.remove();
    }
  });
  texts = nextTexts;
  explained = explain(table);
  scrolls.forEach((scroll) => scroll());
  focus();
  const same = piecesOf(document).get(name);
  if (same && window.scrollY > 0) window.scrollBy({top: same.getBoundingClientRect().top - top, behavior: "instant"});
};

const tell = (text, lost) => {
  const line = document.getElementById("live");
  line.textContent = text;
  line.classList.toggle("lost", lost);
};

const look = async () => {
  if (document.hidden || asking) return;
  asking = true;
  try {
    const answer = await fetch(location.pathname, {cache: "no-cache", signal: AbortSignal.timeout(60_000)});
    const text = await answer.text();
    if (answer.ok && answer.headers.get("ETag") !== known) {
      renew(text);
      known = answer.headers.get("ETag");
    }
    const time = new Date().toLocaleTimeString();
    if (answer.ok) tell(`This page renews itself; last look ${time}.`, false);
    else tell(new DOMParser().parseFromString(text, "text/html").title, true);
  } catch {
    tell("Nobody answers any more: the search, or whoever showed this page, has ended.", true);
  } finally {
    asking = false;
  }
};
setInterval(look, PAUSE);
document.addEventListener("visibilitychange", look);
